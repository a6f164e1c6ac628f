//! Anything may happen, in any order, and the process may die at any moment of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use infernet_aggregator::treasury::{HoldDue, HoldStanding, Treasury, Work};
use infernet_payments::ledger::{Account, Ledger};
use infernet_payments::rail::PaymentRail;
use infernet_payments::test_rail::Fault;
use infernet_protocol::money::Msat;
use nostr::Timestamp;
use proptest::prelude::*;

use crate::house::{FUNDS, House, Mood, bill, order};

/// Groups of each buyer.
const GROUPS: u32 = 3;

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Act {
    Hold {
        buyer: usize,
        group: u32,
    },
    Pay {
        buyer: usize,
        group: u32,
    },
    Claim {
        buyer: usize,
        group: u32,
        share: u64,
    },
    Cancel {
        buyer: usize,
        group: u32,
        share: u64,
    },
    /// All of it: held, paid, claimed.
    Deal {
        buyer: usize,
        group: u32,
        share: u64,
    },
    Refund {
        buyer: usize,
    },
    Reject {
        provider: usize,
    },
    Round,
    Pass {
        seconds: u64,
    },
    /// The aggregator's wallet.
    HouseFault(usize),
    /// A buyer's wallet.
    BuyerFault {
        buyer: usize,
        which: usize,
    },
    Mood(usize),
    WalletsBack,
    /// The process dies, and comes back.
    Die,
}

/// An act, and after how many polls of it the process dies; none if it lives.
type Step = (Act, Option<usize>);

const FAULTS: [Fault; 9] = [
    Fault::LoseRequest,
    Fault::LoseAnswer,
    Fault::CrashBefore,
    Fault::CrashAfter,
    Fault::TellTwice,
    Fault::TellNothing,
    Fault::Delay(Duration::from_secs(200)),
    Fault::Fail(Duration::from_secs(100)),
    Fault::Fail(Duration::ZERO),
];

const MOODS: [Mood; 4] = [Mood::Honest, Mood::Silent, Mood::Greedy, Mood::Confused];

fn act() -> impl Strategy<Value = Act> {
    let (buyer, group) = (0..2_usize, 0..GROUPS);
    let share = 0..=100_u64;
    prop_oneof![
        4 => (buyer.clone(), group.clone()).prop_map(|(buyer, group)| Act::Hold { buyer, group }),
        4 => (buyer.clone(), group.clone()).prop_map(|(buyer, group)| Act::Pay { buyer, group }),
        3 => (buyer.clone(), group.clone(), share.clone())
            .prop_map(|(buyer, group, share)| Act::Claim { buyer, group, share }),
        1 => (buyer.clone(), group.clone(), share.clone())
            .prop_map(|(buyer, group, share)| Act::Cancel { buyer, group, share }),
        4 => (buyer.clone(), group, share)
            .prop_map(|(buyer, group, share)| Act::Deal { buyer, group, share }),
        1 => buyer.clone().prop_map(|buyer| Act::Refund { buyer }),
        1 => (0..2_usize).prop_map(|provider| Act::Reject { provider }),
        6 => Just(Act::Round),
        2 => (1..4_000_u64).prop_map(|seconds| Act::Pass { seconds }),
        2 => (0..FAULTS.len()).prop_map(Act::HouseFault),
        1 => (buyer, 0..FAULTS.len()).prop_map(|(buyer, which)| Act::BuyerFault { buyer, which }),
        1 => (0..MOODS.len()).prop_map(Act::Mood),
        2 => Just(Act::WalletsBack),
        1 => Just(Act::Die),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let dies = prop_oneof![3 => Just(None), 1 => (1..40_usize).prop_map(Some)];
    prop::collection::vec((act(), dies), 5..40)
}

/// Polls a future so many times, and drops it.
struct Killed<F> {
    future: Pin<Box<F>>,
    polls: Option<usize>,
}

impl<F: Future> Future for Killed<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = self.future.as_mut().poll(context);
        if let (true, Some(polls)) = (polled.is_pending(), &mut self.polls) {
            *polls -= 1;
            if *polls == 0 {
                return Poll::Ready(None);
            }
        }
        polled.map(Some)
    }
}

/// What we have decided, whatever the treasury makes of it.
#[derive(Default)]
struct Model {
    /// What a group may be charged.
    charges: BTreeMap<(usize, u32), u64>,
    /// Work that is in some bill, which was not refused.
    works: BTreeMap<(usize, u32), Vec<Work>>,
    awards: u32,
}

impl Model {
    /// A group's work, as it is always told.
    fn works(&mut self, house: &House, buyer: usize, group: u32, share: u64) -> Vec<Work> {
        let awards = &mut self.awards;
        let mut work = |provider, cost, chance| {
            *awards += 1;
            house.work(provider, *awards, cost, chance)
        };
        let made = || {
            vec![
                work(0, 600 * share, 100_000),
                work(1, 300 * share, 1_000_000),
            ]
        };
        self.works
            .entry((buyer, group))
            .or_insert_with(made)
            .clone()
    }
}

const MOST: u64 = 100_000;

struct Run {
    house: House,
    treasury: Option<Treasury>,
    model: Model,
    dues: BTreeMap<(usize, u32), HoldDue>,
}

impl Run {
    async fn new() -> Self {
        let house = House::new();
        house.open_books().await;
        let treasury = Some(house.start().await);
        Self {
            house,
            treasury,
            model: Model::default(),
            dues: BTreeMap::new(),
        }
    }

    async fn restart(&mut self) {
        if let Some(dead) = self.treasury.take() {
            dead.close().await;
        }
        let treasury = self.house.start().await;
        treasury.resume().await.unwrap();
        self.treasury = Some(treasury);
    }

    async fn step(&mut self, (act, dies): Step) {
        let house = &self.house;
        let treasury = self.treasury.clone().unwrap();
        match act {
            Act::HouseFault(which) => return house.wallet.misbehave(FAULTS[which]),
            Act::BuyerFault { buyer, which } => {
                return house.buyers[buyer].wallet.misbehave(FAULTS[which]);
            }
            Act::Mood(which) => return house.mood(MOODS[which]),
            Act::Pass { seconds } => return house.network.advance(Duration::from_secs(seconds)),
            Act::WalletsBack => return self.wallets_back(),
            Act::Die => return self.restart().await,
            Act::Pay { buyer, group } => return house.pay(&treasury, buyer, group).await,
            _ => {}
        }
        let killed = Killed {
            future: Box::pin(self.told(&treasury, act)),
            polls: dies,
        };
        if killed.await.is_none() {
            self.restart().await;
        }
    }

    async fn told(&mut self, treasury: &Treasury, act: Act) {
        match act {
            Act::Hold { buyer, group } => self.hold(treasury, buyer, group).await,
            Act::Claim {
                buyer,
                group,
                share,
            } => self.claim(treasury, buyer, group, share).await,
            Act::Deal {
                buyer,
                group,
                share,
            } => {
                self.hold(treasury, buyer, group).await;
                self.house.pay(treasury, buyer, group).await;
                treasury.round().await.unwrap();
                self.claim(treasury, buyer, group, share).await;
                treasury.round().await.unwrap();
            }
            Act::Cancel {
                buyer,
                group,
                share,
            } => {
                let works = self.model.works(&self.house, buyer, group, share);
                let _ = treasury.cancel(&order(buyer), group, &works).await;
            }
            Act::Refund { buyer } => {
                let house = &self.house;
                let key = house.buyers[buyer].key;
                let credit = treasury.credit(&key).await.unwrap();
                // A wallet that is down makes no invoice.
                if let Some(invoice) = house.try_wish(buyer, credit.0).await {
                    let _ = treasury.refund(&key, &order(buyer), invoice.as_str()).await;
                }
            }
            Act::Reject { provider } => {
                self.model.awards += 1;
                let award = crate::house::award(self.model.awards);
                let key = self.house.providers[provider].key;
                treasury.reject(&key, &award).await.unwrap();
            }
            Act::Round => treasury.round().await.unwrap(),
            _ => {}
        }
    }

    async fn hold(&mut self, treasury: &Treasury, buyer: usize, group: u32) {
        let due = self.house.due(buyer, group, MOST);
        let due = *self.dues.entry((buyer, group)).or_insert(due);
        let _ = treasury.hold(&due).await;
    }

    async fn claim(&mut self, treasury: &Treasury, buyer: usize, group: u32, share: u64) {
        let works = self.model.works(&self.house, buyer, group, share);
        let fee = works.iter().map(|work| work.cost.0).sum::<u64>() / 100;
        let bill = bill(works, fee);
        let charge = bill.charge.total().0;
        self.model.charges.insert((buyer, group), charge);
        let _ = treasury.claim(&order(buyer), group, &bill).await;
    }

    fn wallets_back(&self) {
        self.house.mood(Mood::Honest);
        let others = self.house.buyers.iter().chain(&self.house.providers);
        let wallets = others.map(|one| &one.wallet);
        for wallet in wallets.chain([&self.house.wallet]) {
            wallet.behave();
            wallet.restart();
        }
    }

    /// Until all has come to its end, bonds too.
    async fn end(&mut self) {
        self.wallets_back();
        self.restart().await;
        let treasury = self.treasury.clone().unwrap();
        for seconds in [
            1,
            300,
            8_000,
            10,
            60,
            8 * 86_400,
            60,
            3_600,
            3_600,
            3_600,
            3_600,
        ] {
            self.house.pass(&treasury, seconds).await;
        }
    }

    async fn judge(&self) {
        let house = &self.house;
        let all = house
            .wallet
            .list(house.network.now() - 100_000_000_u64)
            .await
            .unwrap();
        for payment in &all {
            assert!(payment.state.is_final(), "it is still open: {payment:?}");
        }
        let cashier = house.cashier().await;
        let report = cashier.reconcile(house.network.now()).await.unwrap();
        assert!(report.is_even(), "{report:?}");
        let ledger = cashier.ledger();
        assert!(ledger.open_holds().await.unwrap().is_empty());
        self.judge_buyers().await;
        self.judge_providers().await;
    }

    /// What a buyer has lost is what it was charged; nothing for what was cancelled.
    async fn judge_buyers(&self) {
        let (house, ledger) = (&self.house, self.house.ledger().await);
        let treasury = self.treasury.as_ref().unwrap();
        for (number, buyer) in house.buyers.iter().enumerate() {
            let order = order(number);
            let mut charged = 0;
            for group in 0..GROUPS {
                let standing = treasury.standing(&order, group).await.unwrap();
                if standing == HoldStanding::Settled {
                    charged += self.model.charges[&(number, group)];
                }
            }
            let custom = ledger.custom(&buyer.key).await.unwrap();
            assert_eq!(custom.charged, Msat(charged), "buyer {number}");
            let credit = ledger.credit(&buyer.key).await.unwrap();
            assert_eq!(credit.all, credit.free, "nothing is set aside any more");
            let compensated = compensated(&ledger, number, house).await;
            let lost = FUNDS.0 - buyer.balance().await;
            assert_eq!(lost + compensated, charged + credit.all.0, "buyer {number}");
        }
    }

    /// What a provider has got is what was accepted and not forfeited, once.
    async fn judge_providers(&self) {
        let ledger = self.house.ledger().await;
        for (number, provider) in self.house.providers.iter().enumerate() {
            let got = provider.balance().await - FUNDS.0;
            let Some(dues) = ledger.dues(&provider.key).await.unwrap() else {
                assert_eq!(got, 0);
                continue;
            };
            assert_eq!(dues.paid, Msat(got), "provider {number}");
            let known = self.model.works.values().flatten();
            let most: u64 = known
                .filter(|work| work.provider == provider.key)
                .map(|work| work.cost.0)
                .sum();
            assert!(
                dues.accepted.0 <= most,
                "provider {number}: work is owed twice"
            );
            let left = dues.unpaid().0;
            assert!(
                left < 1_000,
                "provider {number} is still owed {left}: {dues:?}"
            );
        }
    }
}

/// What of bonds went to a buyer.
async fn compensated(ledger: &Ledger, number: usize, house: &House) -> u64 {
    let account = Account::Credit(house.buyers[number].key);
    let lines = ledger
        .lines(&account, Timestamp::from_secs(0))
        .await
        .unwrap();
    let bonds = lines.iter().filter(|line| line.reason == "forfeit");
    bonds.map(|line| line.amount_msat.unsigned_abs()).sum()
}

fn run(steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let mut run = Run::new().await;
        let before = run.house.network.total();
        for step in steps {
            run.step(step).await;
            assert_eq!(run.house.network.total(), before);
        }
        run.end().await;
        run.judge().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_paid_twice_and_no_buyer_pays_for_what_was_not_charged(steps in steps()) {
        run(steps);
    }
}
