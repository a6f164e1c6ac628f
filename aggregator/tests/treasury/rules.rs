//! The rules, one by one.

use std::time::Duration;

use infernet_aggregator::treasury::{Error, HoldStanding, LONGEST_HOLD, Treasury};
use infernet_payments::rail::{Direction, PaymentRail, State};
use infernet_payments::test_rail::{Fault, Routing};
use infernet_protocol::batch::BlobKey;
use infernet_protocol::money::Msat;

use crate::house::{FUNDS, House, Mood, award, bill, order};

const ALL: u32 = 1_000_000;

/// A house whose first buyer's first group is held.
async fn held(most: u64) -> (House, Treasury) {
    let house = House::new();
    house.open_books().await;
    let treasury = house.start().await;
    let asked = treasury.hold(&house.due(0, 0, most)).await.unwrap();
    assert!(matches!(asked, HoldStanding::Invoiced(_)), "{asked:?}");
    house.pay(&treasury, 0, 0).await;
    house.pass(&treasury, 1).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Held);
    (house, treasury)
}

#[tokio::test]
async fn a_group_is_held_claimed_charged_and_its_provider_paid() {
    let (house, treasury) = held(100_000).await;
    let work = house.work(0, 1, 60_000, ALL);
    let claimed = treasury.claim(&order(0), 0, &bill(vec![work], 600)).await;
    assert_eq!(claimed.unwrap(), HoldStanding::Claiming);
    house.pass(&treasury, 1).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Settled);
    let credit = treasury.credit(&house.buyers[0].key).await.unwrap();
    assert_eq!(credit, Msat(39_400));
    assert_eq!(house.buyers[0].balance().await, FUNDS.0 - 100_000);
    // All but a bond for what is always checked: 1.5 % of a price.
    let bond = 910;
    assert_eq!(house.providers[0].balance().await, FUNDS.0 + 60_000 - bond);
    let sums = house.ledger().await.sums().await.unwrap();
    assert_eq!((sums.fees_earned, sums.charged), (Msat(600), Msat(60_000)));
    assert_eq!(sums.bonds, [(house.providers[0].key, 910)]);
    let report = house.cashier().await.reconcile(house.network.now()).await;
    assert!(report.unwrap().is_even());
}

#[tokio::test]
async fn what_is_left_is_paid_back_once_or_makes_the_next_hold_smaller() {
    let (house, treasury) = held(100_000).await;
    let work = house.work(0, 1, 10_000, ALL);
    let paid = treasury.claim(&order(0), 0, &bill(vec![work], 0)).await;
    paid.unwrap();
    house.pass(&treasury, 1).await;
    let next = treasury.hold(&house.due(0, 1, 150_000)).await.unwrap();
    let HoldStanding::Invoiced(invoice) = next else {
        panic!("{next:?}")
    };
    assert_eq!(invoice.amount(), Msat(60_000));
    let buyer = house.buyers[0].key;
    assert_eq!(treasury.credit(&buyer).await.unwrap(), Msat::ZERO);
    let covered = treasury.cancel(&order(0), 1, &[]).await.unwrap();
    assert_eq!(covered, HoldStanding::Cancelling);
    house.pass(&treasury, 1).await;
    assert_eq!(treasury.credit(&buyer).await.unwrap(), Msat(90_000));
    // Covered by the credit alone.
    let next = treasury.hold(&house.due(0, 2, 50_000)).await.unwrap();
    assert_eq!(next, HoldStanding::Held);
    let wish = house.wish(0, 50_000).await;
    let refused = treasury.refund(&buyer, &order(0), wish.as_str()).await;
    assert!(matches!(
        refused,
        Err(Error::NotLeft { left: Msat(40_000) })
    ));
    let work = house.work(1, 2, 50_000, ALL);
    let done = treasury.claim(&order(0), 2, &bill(vec![work], 0)).await;
    assert_eq!(done.unwrap(), HoldStanding::Settled);
    let wish = house.wish(0, 40_000).await;
    for _ in 0..2 {
        let paid = treasury.refund(&buyer, &order(0), wish.as_str()).await;
        paid.unwrap();
    }
    assert_eq!(house.buyers[0].balance().await, FUNDS.0 - 60_000);
    assert_eq!(treasury.credit(&buyer).await.unwrap(), Msat::ZERO);
}

#[tokio::test]
async fn nobody_is_paid_back_in_crumbs_or_twice_at_a_time() {
    let (house, treasury) = held(100_000).await;
    let work = house.work(0, 1, 10_000, ALL);
    let paid = treasury.claim(&order(0), 0, &bill(vec![work], 0)).await;
    paid.unwrap();
    house.pass(&treasury, 1).await;
    let buyer = house.buyers[0].key;
    let crumb = house.wish(0, 9_999).await;
    let refused = treasury.refund(&buyer, &order(0), crumb.as_str()).await;
    assert!(matches!(refused, Err(Error::Invoice(_))), "{refused:?}");
    // Routing eats no more than three satoshis of one who was charged next to nothing.
    house.network.set_routing(Routing {
        base: Msat(1_000),
        parts_per_million: 0,
    });
    let mut paid = 0;
    for _ in 0..8 {
        let wish = house.wish(0, 10_000).await;
        match treasury.refund(&buyer, &order(0), wish.as_str()).await {
            Ok(()) => paid += 1,
            Err(error) => assert!(matches!(error, Error::TooFar { .. }), "{error}"),
        }
    }
    assert_eq!(paid, 3);
    assert_eq!(house.network.routed(), Msat(3_000));
    let credit = treasury.credit(&buyer).await.unwrap();
    assert_eq!(credit, Msat(60_000));
}

#[tokio::test]
async fn no_hold_outlives_its_deadline_and_accepted_work_is_paid_at_our_loss() {
    let (house, treasury) = held(100_000).await;
    house.pass(&treasury, 7_200).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Cancelled);
    assert_eq!(house.buyers[0].balance().await, FUNDS.0);
    let late = bill(vec![house.work(0, 1, 20_000, ALL)], 0);
    let claimed = treasury.claim(&order(0), 0, &late).await;
    assert!(matches!(claimed, Err(Error::NotHeld)));
    let told = treasury.cancel(&order(0), 0, &late.works).await;
    assert_eq!(told.unwrap(), HoldStanding::Cancelled);
    house.pass(&treasury, 1).await;
    assert_eq!(house.buyers[0].balance().await, FUNDS.0);
    let paid = house.providers[0].balance().await - FUNDS.0;
    assert_eq!(paid, 20_000 - 304);
}

#[tokio::test]
async fn only_the_wallets_word_makes_a_hold_and_an_income() {
    let (house, treasury) = held(100_000).await;
    house.wallet.crash();
    let work = house.work(0, 1, 60_000, ALL);
    let claimed = treasury.claim(&order(0), 0, &bill(vec![work], 0)).await;
    assert_eq!(claimed.unwrap(), HoldStanding::Claiming);
    house.pass(&treasury, 10).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Claiming);
    let ledger = house.ledger().await;
    assert!(ledger.sums().await.unwrap().payouts.is_empty());
    let refused = treasury.cancel(&order(0), 0, &[]).await;
    assert!(matches!(refused, Err(Error::Claimed)));
    house.wallet.restart();
    house.wallet.misbehave(Fault::LoseRequest);
    house.pass(&treasury, 10).await;
    house.pass(&treasury, 10).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Settled);
}

#[tokio::test]
async fn a_claim_that_comes_too_late_charges_nobody_and_pays_the_provider() {
    let (house, treasury) = held(100_000).await;
    house.wallet.crash();
    let work = house.work(0, 1, 60_000, ALL);
    let claimed = treasury.claim(&order(0), 0, &bill(vec![work], 0)).await;
    claimed.unwrap();
    let early = treasury.cancel(&order(0), 0, &[]).await;
    assert!(matches!(early, Err(Error::Claimed)));
    // Until the chain gives it back.
    house.network.advance(Duration::from_secs(500 * 600));
    house.wallet.restart();
    house.pass(&treasury, 1).await;
    let standing = treasury.standing(&order(0), 0).await.unwrap();
    assert_eq!(standing, HoldStanding::Cancelled);
    // Whose group it was hears so, and can end it.
    let told = treasury.cancel(&order(0), 0, &[work]).await;
    assert_eq!(told.unwrap(), HoldStanding::Cancelled);
    house.pass(&treasury, 60).await;
    assert_eq!(house.buyers[0].balance().await, FUNDS.0);
    assert!(house.providers[0].balance().await > FUNDS.0 + 59_000);
}

#[tokio::test]
async fn an_invoice_that_runs_out_or_was_never_seen_is_made_anew_with_another_preimage() {
    let house = House::new();
    house.open_books().await;
    let treasury = house.start().await;
    let due = house.due(0, 0, 100_000);
    // Made, and its answer lost.
    house.wallet.misbehave(Fault::LoseAnswer);
    treasury.hold(&due).await.unwrap_err();
    let mut hashes = Vec::new();
    for _ in 0..2 {
        let standing = treasury.hold(&due).await.unwrap();
        let HoldStanding::Invoiced(invoice) = standing.clone() else {
            panic!("{standing:?}")
        };
        assert_eq!(treasury.hold(&due).await.unwrap(), standing);
        let preimage = treasury.preimage(&order(0), 0).await.unwrap().unwrap();
        assert_eq!(preimage.hash(), invoice.hash());
        let _ = BlobKey::of_delivery(preimage.as_bytes());
        hashes.push(invoice.hash());
        house.pass(&treasury, 900).await;
        house.pay_invoice(0, *invoice).await;
        house.pass(&treasury, 1).await;
    }
    assert_ne!(hashes[0], hashes[1]);
    let all = house
        .wallet
        .list(house.network.now() - 86_400_u64)
        .await
        .unwrap();
    let open = |state: State| !state.is_final();
    assert!(all.iter().all(|one| !open(one.state)), "{all:?}");
    assert_eq!(
        all.iter()
            .filter(|one| one.direction == Direction::Incoming)
            .count(),
        3
    );
    assert_eq!(house.buyers[0].balance().await, FUNDS.0);
}

#[tokio::test]
async fn no_other_invoice_of_a_provider_is_paid() {
    let (house, treasury) = held(100_000).await;
    let work = house.work(0, 1, 60_000, ALL);
    let claimed = treasury.claim(&order(0), 0, &bill(vec![work], 0)).await;
    claimed.unwrap();
    for mood in [Mood::Silent, Mood::Greedy, Mood::Confused] {
        house.mood(mood);
        house.pass(&treasury, 3_600).await;
        assert_eq!(house.providers[0].balance().await, FUNDS.0, "{mood:?}");
    }
    house.mood(Mood::Honest);
    house.pass(&treasury, 3_600).await;
    assert_eq!(house.providers[0].balance().await, FUNDS.0 + 60_000 - 910);
}

#[tokio::test]
async fn rejected_work_costs_its_provider_the_bond_which_goes_to_the_others() {
    let house = House::new();
    house.open_books().await;
    let treasury = house.start().await;
    // Rarely checked: much is held back.
    for (buyer, number, cost) in [(0, 1, 30_000), (1, 2, 10_000)] {
        treasury.hold(&house.due(buyer, 0, 100_000)).await.unwrap();
        house.pay(&treasury, buyer, 0).await;
        house.pass(&treasury, 1).await;
        let work = house.work(0, number, cost, 100_000);
        let claimed = treasury.claim(&order(buyer), 0, &bill(vec![work], 0)).await;
        claimed.unwrap();
        house.pass(&treasury, 60).await;
    }
    let provider = &house.providers[0];
    let bond = house.ledger().await.sums().await.unwrap().bonds[0].1 as u64;
    assert_eq!(provider.balance().await + bond, FUNDS.0 + 40_000);
    assert!((15_000..=25_000).contains(&bond), "{bond}");
    let went = treasury.reject(&provider.key, &award(9)).await.unwrap();
    assert_eq!(went, Msat(bond));
    let again = treasury.reject(&provider.key, &award(9)).await.unwrap();
    assert_eq!(again, Msat::ZERO);
    let mut compensated = Vec::new();
    for (buyer, left) in [(0, 70_000), (1, 90_000)] {
        let credit = treasury.credit(&house.buyers[buyer].key).await.unwrap();
        compensated.push(credit.0 - left);
    }
    assert_eq!(compensated.iter().sum::<u64>(), bond);
    assert!(
        compensated[0].abs_diff(3 * compensated[1]) <= 4,
        "{compensated:?}"
    );
    // It is told with the next payout.
    treasury.hold(&house.due(0, 1, 200_000)).await.unwrap();
    house.pay(&treasury, 0, 1).await;
    house.pass(&treasury, 1).await;
    let work = house.work(0, 3, 90_000, ALL);
    let claimed = treasury.claim(&order(0), 1, &bill(vec![work], 0)).await;
    claimed.unwrap();
    house.pass(&treasury, 60).await;
    house.pass(&treasury, 60).await;
    let told = house.payees.told.lock().unwrap().clone();
    let last = &told.last().unwrap().1;
    assert_eq!(last.rejected, [award(9)]);
    assert_eq!(last.forfeited_msat, Msat(bond));
}

#[tokio::test]
async fn a_little_work_that_is_checked_for_certain_sets_no_bond_free() {
    let (house, treasury) = held(100_000).await;
    let works = vec![
        house.work(0, 1, 60_000, 100_000),
        house.work(0, 2, 1_000, ALL),
    ];
    let claimed = treasury.claim(&order(0), 0, &bill(works, 0)).await;
    claimed.unwrap();
    house.pass(&treasury, 60).await;
    let bonds = house.ledger().await.sums().await.unwrap().bonds;
    assert_eq!(bonds, [(house.providers[0].key, 30_500)]);
}

#[tokio::test]
async fn without_a_wallet_no_money_is_taken_and_none_for_too_long() {
    let house = House::new();
    let treasury = house.start().await;
    let mut due = house.due(0, 0, 1_000);
    due.until = house.network.now() + LONGEST_HOLD + Duration::from_secs(60);
    let refused = treasury.hold(&due).await.unwrap_err();
    assert!(refused.to_string().contains("hours at most"), "{refused}");
    let folder = tempfile::tempdir().unwrap();
    let payees = std::sync::Arc::new(house.payees.clone());
    let clock = std::sync::Arc::new(infernet_node::clock::now);
    let poor = Treasury::open(folder.path(), None, payees, clock).await;
    let poor = poor.unwrap();
    assert!(!poor.takes_money());
    let refused = poor.hold(&due).await.unwrap_err();
    assert!(matches!(refused, Error::NoWallet));
    poor.round().await.unwrap();
}
