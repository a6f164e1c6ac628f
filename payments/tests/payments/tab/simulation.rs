//! Both machines and a network that loses, doubles and delays, on a virtual clock. The books that judge them are
//! the simulation's own.

mod world;

use infernet_protocol::money::{Msat, Price};
use proptest::prelude::*;

use self::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuyerKind {
    Honest,
    NeverPays,
    NeverAcknowledges,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderKind {
    Honest,
    /// Draws nothing more once it was paid for the second time.
    TakesAndStops,
    /// Says that it has drawn more than it has.
    Overclaims,
    /// Asks for money all the time, whatever is left.
    Begs,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub seed: u64,
    pub buyer: BuyerKind,
    pub provider: ProviderKind,
    pub price: Price,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub jobs: usize,
    /// Of a hundred messages.
    pub lost: u32,
    pub doubled: u32,
    /// Of a hundred payments.
    pub failing: u32,
    /// Of a hundred thousand milliseconds, on each side.
    pub crashes: u32,
    pub payment_ms: u64,
    /// What the buyer pays ahead.
    pub risk: Msat,
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let buyers = prop_oneof![
        4 => Just(BuyerKind::Honest),
        1 => Just(BuyerKind::NeverPays),
        1 => Just(BuyerKind::NeverAcknowledges),
    ];
    let providers = prop_oneof![
        3 => Just(ProviderKind::Honest),
        1 => Just(ProviderKind::TakesAndStops),
        1 => Just(ProviderKind::Overclaims),
        1 => Just(ProviderKind::Begs),
    ];
    let work = (
        0..20_000_000u64,
        0..200_000_000u64,
        1..500u64,
        1..600u64,
        1..4usize,
    );
    let trouble = (0..40u32, 0..40u32, 0..50u32, 0..60u32, 1..3_000u64);
    // Below 16 sat the smallest top-up beside what is left does not always fit.
    let risk = (16_000..60_000u64).prop_map(Msat);
    (any::<u64>(), buyers, providers, work, trouble, risk).prop_map(
        |(seed, buyer, provider, work, trouble, risk)| Scenario {
            seed,
            buyer,
            provider,
            price: Price {
                input_msat: work.0,
                output_msat: work.1,
            },
            input_tokens: work.2,
            output_tokens: work.3,
            jobs: work.4,
            lost: trouble.0,
            doubled: trouble.1,
            failing: trouble.2,
            crashes: trouble.3,
            payment_ms: trouble.4,
            risk,
        },
    )
}

/// Two honest sides, a good network, and a job that takes several top-ups.
const GOOD: Scenario = Scenario {
    seed: 1,
    buyer: BuyerKind::Honest,
    provider: ProviderKind::Honest,
    price: Price {
        input_msat: 1_000_000,
        output_msat: 40_000_000,
    },
    input_tokens: 100,
    output_tokens: 1_000,
    jobs: 1,
    lost: 0,
    doubled: 0,
    failing: 0,
    crashes: 0,
    payment_ms: 20,
    risk: Msat(50_000),
};

proptest! {
    // PROPTEST_CASES in the environment tries more.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_loses_more_than_a_top_up_or_a_credit_limit(scenario in scenario()) {
        World::new(scenario).run();
    }

    #[test]
    fn honest_sides_finish_and_their_books_agree(mut scenario in scenario()) {
        scenario.buyer = BuyerKind::Honest;
        scenario.provider = ProviderKind::Honest;
        scenario.crashes = 0;
        // What must be paid ahead has to fit in what the buyer risks.
        scenario.price.input_msat = scenario.price.input_msat.min(5_000_000);
        scenario.price.output_msat = scenario.price.output_msat.min(20_000_000);
        let world = World::new(scenario.clone()).run();
        for job in world.jobs.values() {
            prop_assert_eq!(job.counted, scenario.output_tokens);
        }
        prop_assert_eq!(world.buyer_books.due, world.provider_books.due);
        prop_assert!(world.under_way.is_empty());
    }
}

#[test]
fn a_stream_does_not_stall_when_the_buyer_pays_promptly() {
    let world = World::new(GOOD).run();
    assert!(world.payments >= 4, "only {} top-ups", world.payments);
    let finished = world.jobs.values().next().unwrap().finished_at.unwrap();
    // A token each millisecond, and the first top-up before them.
    assert!(
        finished <= GOOD.output_tokens + 100,
        "it took {finished} ms"
    );
}

#[test]
fn a_hundred_jobs_at_a_time_are_all_done() {
    let hundred = Scenario {
        jobs: 100,
        output_tokens: 300,
        payment_ms: 200,
        lost: 5,
        doubled: 5,
        ..GOOD
    };
    let world = World::new(hundred.clone()).run();
    for job in world.jobs.values() {
        assert_eq!(job.counted, hundred.output_tokens);
        assert!(job.finished_at.is_some());
    }
    assert_eq!(world.buyer_books.due, world.provider_books.due);
}

#[test]
fn who_risks_less_than_is_asked_for_is_served_in_parts() {
    for jobs in [1, 2, 20] {
        let careful = Scenario {
            jobs,
            output_tokens: 3_000,
            // Slow enough for the streams to run dry, so that the provider asks for more.
            payment_ms: 400,
            risk: Msat(16_000),
            lost: 10,
            doubled: 30,
            ..GOOD
        };
        let world = World::new(careful.clone()).run();
        assert_eq!(world.heard, careful.risk, "it was told");
        for job in world.jobs.values() {
            assert_eq!(job.counted, careful.output_tokens);
        }
        assert_eq!(world.buyer_books.due, world.provider_books.due);
    }
}

#[test]
fn a_buyer_that_never_pays_gets_nothing() {
    let world = World::new(Scenario {
        buyer: BuyerKind::NeverPays,
        ..GOOD
    })
    .run();
    assert!(world.jobs.values().all(|job| job.drawn == 0));
    assert_eq!(world.received, Msat::ZERO);
}

#[test]
fn a_provider_that_takes_the_money_and_stops_has_one_top_up() {
    let world = World::new(Scenario {
        provider: ProviderKind::TakesAndStops,
        ..GOOD
    })
    .run();
    assert!(world.received.0 > 0);
    assert!(world.buyer.at_risk_msat() <= i128::from(world.limits.risk.0));
}

#[test]
fn a_provider_that_overclaims_is_stopped_or_paid_for_what_came() {
    let world = World::new(Scenario {
        provider: ProviderKind::Overclaims,
        ..GOOD
    })
    .run();
    let job = world.jobs.values().next().unwrap();
    let had = GOOD.price.cost(GOOD.input_tokens, job.counted).unwrap();
    assert!(world.buyer_books.due <= had);
}
