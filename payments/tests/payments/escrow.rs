//! The ledger of a buyer, an aggregator and a provider, and what older ledgers become.

use std::path::Path;

use infernet_payments::ledger::{
    Account, Bill, Caps, Due, Error, GroupName, Hold, HoldDue, Ledger, PlannedHold, Posted,
    Posting, Reason, Standing, Work,
};
use infernet_payments::rail::{self, PaymentRail};
use infernet_payments::{Invoice, PaymentHash, Preimage};
use infernet_protocol::batch::Charge;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Payout;
use nostr::{EventId, Keys, PublicKey, Timestamp};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use crate::benches::{ask, wallets};

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn somebody() -> PublicKey {
    Keys::generate().public_key()
}

fn award(number: u8) -> EventId {
    EventId::from_byte_array([number; 32])
}

async fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).await;
    (folder, ledger.unwrap())
}

fn due(buyer: PublicKey, group: u32, most: u64) -> HoldDue {
    HoldDue {
        order: award(200),
        group,
        buyer,
        most: Msat(most),
        until: AT + 3_600_u64,
    }
}

async fn plan(ledger: &Ledger, due: &HoldDue) -> Hold {
    let preimage = Preimage::from_bytes(rand::random());
    let planned = ledger.plan_hold(due, &preimage, Caps::default(), AT).await;
    match planned.unwrap() {
        PlannedHold::Now(hold) => hold,
        PlannedHold::Before(hold) => panic!("it is new: {hold:?}"),
    }
}

/// An invoice for a hold, and the wallet that it is of.
async fn invoice(hold: &Hold) -> Invoice {
    let (_network, _alice, bob) = wallets();
    let asked = rail::Hold {
        hash: hold.preimage.hash(),
        min_cltv_expiry_delta: 144,
    };
    let amount = hold.intent.as_ref().unwrap().amount;
    bob.make_hold_invoice(&ask(amount.0), &asked).await.unwrap()
}

/// A group whose money the wallet holds.
async fn held(ledger: &Ledger, due: &HoldDue) -> Hold {
    let hold = plan(ledger, due).await;
    let invoice = invoice(&hold).await;
    assert!(ledger.invoiced(&hold.key, &invoice, AT).await.unwrap());
    assert!(ledger.held(&hold.key, AT).await.unwrap());
    assert!(!ledger.held(&hold.key, AT).await.unwrap());
    ledger.hold_of(&hold.key).await.unwrap().unwrap()
}

fn work(number: u8, provider: PublicKey, cost: u64) -> Work {
    Work {
        award: award(number),
        provider,
        cost: Msat(cost),
        chance_ppm: 500_000,
        checked: false,
    }
}

fn bill(works: Vec<Work>, fee: u64) -> Bill {
    Bill {
        charge: Charge {
            work_msat: Msat(works.iter().map(|work| work.cost.0).sum()),
            checking_msat: Msat::ZERO,
            fee_msat: Msat(fee),
        },
        works,
    }
}

async fn settle(ledger: &Ledger, hold: &Hold) -> bool {
    let intent = hold.intent.as_ref().unwrap();
    let settled = ledger.settle(intent, intent.amount, Msat::ZERO, AT).await;
    settled.unwrap()
}

#[tokio::test]
async fn a_group_is_charged_with_the_payment_that_it_is_charged_to() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider) = (somebody(), somebody());
    let hold = held(&ledger, &due(buyer, 0, 50_000)).await;
    let bill = bill(vec![work(1, provider, 30_000)], 300);
    assert!(ledger.will_claim(&hold.key, &bill, AT).await.unwrap());
    assert!(ledger.will_claim(&hold.key, &bill, AT).await.unwrap());
    assert!(!ledger.will_cancel(&hold.key, &[], AT).await.unwrap());
    assert_eq!(ledger.balance(&Account::Payout(provider)).await.unwrap(), 0);
    assert!(settle(&ledger, &hold).await);
    assert!(!settle(&ledger, &hold).await);
    let balance = async |account| ledger.balance(&account).await.unwrap();
    assert_eq!(balance(Account::Wallet).await, 50_000);
    assert_eq!(balance(Account::Credit(buyer)).await, -19_700);
    assert_eq!(balance(Account::Income).await, -30_300);
    assert_eq!(balance(Account::Spending).await, 30_000);
    assert_eq!(balance(Account::Payout(provider)).await, -30_000);
    // The group has a charge, for good.
    let again = Posting::GroupEarned {
        group: GroupName::new(&award(200), 0),
        buyer,
        charge: bill.charge,
    };
    assert_eq!(ledger.post(&again, AT).await.unwrap(), Posted::Before);
}

#[tokio::test]
async fn a_hold_is_decided_once_and_what_it_is_charged_is_within_it() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider) = (somebody(), somebody());
    let first = held(&ledger, &due(buyer, 0, 1_000)).await;
    let too_much = bill(vec![work(1, provider, 1_000)], 1);
    let refused = ledger.will_claim(&first.key, &too_much, AT).await;
    assert!(matches!(refused, Err(Error::OutOfBounds)));
    let works = [work(1, provider, 400)];
    assert!(ledger.will_cancel(&first.key, &works, AT).await.unwrap());
    assert!(ledger.will_cancel(&first.key, &works, AT).await.unwrap());
    let claim = bill(vec![], 0);
    assert!(!ledger.will_claim(&first.key, &claim, AT).await.unwrap());
    assert!(ledger.went_back(&first.key, AT).await.unwrap());
    assert!(!ledger.went_back(&first.key, AT).await.unwrap());
    // The loss is the aggregator's.
    let owed = ledger.balance(&Account::Payout(provider)).await.unwrap();
    let credit = ledger.balance(&Account::Credit(buyer)).await.unwrap();
    assert_eq!((owed, credit), (-400, 0));
    // Work is in one bill.
    let second = held(&ledger, &due(buyer, 1, 1_000)).await;
    let stolen = bill(works.to_vec(), 0);
    let refused = ledger.will_claim(&second.key, &stolen, AT).await;
    assert!(matches!(refused, Err(Error::Conflict)));
    let now = ledger.hold_of(&second.key).await.unwrap().unwrap();
    assert_eq!((now.will, now.standing()), (None, Standing::Held));
}

#[tokio::test]
async fn a_group_has_one_hold_at_a_time_and_it_is_its_buyers() {
    let (_folder, ledger) = ledger().await;
    let buyer = somebody();
    let hold = plan(&ledger, &due(buyer, 0, 5_000)).await;
    let preimage = Preimage::from_bytes([9; 32]);
    let plan_for = async |due: HoldDue| {
        let planned = ledger.plan_hold(&due, &preimage, Caps::default(), AT);
        planned.await
    };
    let again = plan_for(due(buyer, 0, 5_000)).await;
    assert_eq!(again.unwrap(), PlannedHold::Before(hold.clone()));
    let others = plan_for(due(somebody(), 0, 5_000)).await;
    assert!(matches!(others, Err(Error::Conflict)));
    assert!(ledger.went_back(&hold.key, AT).await.unwrap());
    let next = plan(&ledger, &due(buyer, 0, 5_000)).await;
    assert_ne!(next.preimage, hold.preimage);
}

#[tokio::test]
async fn credit_is_set_aside_once() {
    let (_folder, ledger) = ledger().await;
    let buyer = somebody();
    let paid = held(&ledger, &due(buyer, 0, 10_000)).await;
    let nothing = bill(vec![], 0);
    assert!(ledger.will_claim(&paid.key, &nothing, AT).await.unwrap());
    assert!(settle(&ledger, &paid).await);
    let small = plan(&ledger, &due(buyer, 1, 4_000)).await;
    assert_eq!(
        (small.standing(), small.reserved),
        (Standing::Held, Msat(4_000))
    );
    let large = plan(&ledger, &due(buyer, 2, 7_000)).await;
    assert_eq!(large.intent.as_ref().unwrap().amount, Msat(1_000));
    let none = plan(&ledger, &due(buyer, 3, 7_000)).await;
    assert_eq!(none.reserved, Msat::ZERO);
    let credit = ledger.credit(&buyer).await.unwrap();
    assert_eq!((credit.all, credit.free), (Msat(10_000), Msat::ZERO));
    assert!(ledger.will_cancel(&small.key, &[], AT).await.unwrap());
    assert_eq!(ledger.credit(&buyer).await.unwrap().free, Msat(4_000));
}

#[tokio::test]
async fn no_more_is_paid_to_a_provider_than_it_is_owed() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider) = (somebody(), somebody());
    let hold = held(&ledger, &due(buyer, 0, 50_000)).await;
    let claim = bill(vec![work(1, provider, 30_000)], 0);
    assert!(ledger.will_claim(&hold.key, &claim, AT).await.unwrap());
    assert!(settle(&ledger, &hold).await);
    let (_network, _alice, bob) = wallets();
    let due = Due {
        reason: Reason::Payout,
        counterparty: provider,
        award: Some(award(1)),
    };
    let payout = |pay: u64, bond: u64| Payout {
        rejected: vec![],
        accepted_msat: Msat(pay + bond),
        bond_msat: Msat(bond),
        forfeited_msat: Msat::ZERO,
        paid_msat: Msat::ZERO,
        pay_msat: Msat(pay),
    };
    let first = bob.make_invoice(&ask(20_000)).await.unwrap();
    let too_much = bob.make_invoice(&ask(31_000)).await.unwrap();
    let plan = async |payout: Payout, invoice: &Invoice| {
        ledger
            .plan_payout(&due, &payout, invoice, Msat(1), AT)
            .await
    };
    let refused = plan(payout(31_000, 0), &too_much).await;
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    let wrong = plan(payout(30_000, 0), &first).await;
    assert!(matches!(wrong, Err(Error::Conflict)), "{wrong:?}");
    plan(payout(20_000, 10_000), &first).await.unwrap();
    let dues = ledger.dues(&provider).await.unwrap().unwrap();
    assert!(dues.is_being_paid);
    assert_eq!((dues.bond, dues.paid), (Msat(10_000), Msat::ZERO));
    let second = bob.make_invoice(&ask(20_000)).await.unwrap();
    let twice = plan(payout(20_000, 10_000), &second).await;
    assert!(matches!(twice, Err(Error::Conflict)), "{twice:?}");
    // Nor by the way of an ordinary payment.
    let around = ledger.plan_payment(&due, &second, Msat(1), None, AT).await;
    assert!(matches!(around, Err(Error::NotLeft { .. })), "{around:?}");
}

#[tokio::test]
async fn a_buyer_and_a_provider_keep_the_other_side_of_the_same_books() {
    let (_a, buyers) = ledger().await;
    let (_b, providers) = ledger().await;
    let aggregator = somebody();
    let hash = PaymentHash::from_bytes([1; 32]);
    let amount = Msat(50_000);
    let paid = Posting::HoldPaid {
        hash,
        aggregator,
        amount,
        fee: Msat(7),
    };
    let spent = Posting::GroupSpent {
        group: GroupName::new(&award(200), 0),
        aggregator,
        amount: Msat(30_300),
    };
    let back = Posting::CreditReceived {
        hash: PaymentHash::from_bytes([2; 32]),
        aggregator,
        amount: Msat(19_700),
    };
    for posting in [paid, spent, back] {
        buyers.post(&posting, AT).await.unwrap();
        assert_eq!(buyers.post(&posting, AT).await.unwrap(), Posted::Before);
    }
    let credit = Account::Credit(aggregator);
    assert_eq!(buyers.balance(&credit).await.unwrap(), 0);
    assert_eq!(buyers.balance(&Account::Wallet).await.unwrap(), -30_307);
    for (number, amount) in [(1, 30_000), (2, 5_000)] {
        let done = Posting::WorkDone {
            award: award(number),
            aggregator,
            amount: Msat(amount),
        };
        providers.post(&done, AT).await.unwrap();
    }
    let rejected = Posting::WrittenOff {
        award: award(2),
        aggregator,
        amount: Msat(5_000),
    };
    providers.post(&rejected, AT).await.unwrap();
    let received = Posting::PayoutReceived {
        hash,
        aggregator,
        amount: Msat(20_000),
    };
    providers.post(&received, AT).await.unwrap();
    for (total, new) in [(4_000, 4_000), (4_000, 0), (6_000, 2_000), (5_000, 0)] {
        let lost = providers.lose_bond_to(&aggregator, Msat(total), AT).await;
        assert_eq!(lost.unwrap(), Msat(new));
    }
    let escrow = providers.escrow(&aggregator).await.unwrap();
    assert_eq!(
        (escrow.earned, escrow.rejected),
        (Msat(35_000), Msat(5_000))
    );
    assert_eq!((escrow.forfeited, escrow.paid), (Msat(6_000), Msat(20_000)));
    assert_eq!(escrow.owed, Msat(4_000));
    assert_eq!(providers.escrows().await.unwrap(), [(aggregator, escrow)]);
}

/// What an older version has written is all there.
#[tokio::test]
async fn an_older_ledger_is_brought_up_to_date() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ledger.sqlite");
    let older = folder.path().join("older");
    std::fs::create_dir(&older).unwrap();
    for name in ["0001_ledger.sql", "0002_pairs.sql", "0003_intents.sql"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("migrations")
            .join(name);
        std::fs::copy(from, older.join(name)).unwrap();
    }
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let mut connection = options.foreign_keys(true).connect().await.unwrap();
    let migrator = Migrator::new(older).await.unwrap();
    migrator.run(&mut connection).await.unwrap();
    let provider = somebody();
    let (hash, key) = ("11".repeat(32), provider.to_hex());
    let script = format!(
        "BEGIN;
         INSERT INTO entries VALUES (1, x'{hash}', 'paid', 'wallet', NULL, -1000);
         INSERT INTO entries VALUES (1, x'{hash}', 'credited', 'tab', x'{key}', 1000);
         INSERT INTO postings VALUES (1, 'top-up', 1700000000);
         INSERT INTO intents VALUES (x'{hash}', 'outgoing', 'top-up', x'{key}', NULL, 1000, 10,
             x'{hash}', 'lnbc1', 1700000600, 'settled', 1700000000, 1700000001);
         COMMIT;"
    );
    sqlx::raw_sql(AssertSqlSafe(script))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    let ledger = Ledger::open(&path).await.unwrap();
    assert_eq!(ledger.tabs().await.unwrap(), [(provider, 1_000)]);
    assert_eq!(ledger.balance(&Account::Wallet).await.unwrap(), -1_000);
    let since = Timestamp::from_secs(1_600_000_000);
    assert_eq!(ledger.paid_since(since).await.unwrap(), Msat(1_000));
    // What held before holds now.
    for forbidden in [
        "DELETE FROM entries",
        "UPDATE postings SET at_s = 0",
        "DELETE FROM intents",
        "INSERT INTO postings VALUES (2, 'top-up', 0)",
    ] {
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = options.connect().await.unwrap();
        let refused = sqlx::raw_sql(AssertSqlSafe(forbidden.to_owned()));
        refused.execute(&mut connection).await.unwrap_err();
    }
}
