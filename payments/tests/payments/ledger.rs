//! The ledger: what it keeps, what it refuses, and what it finds in a wallet.

use std::path::Path;
use std::time::Duration;

use infernet_payments::ledger::{
    Account, Budget, Caps, Difference, Due, Error, Ledger, Planned, Posted, Posting, Reason,
    Signed, Standing,
};
use infernet_payments::rail::{Direction, Payment, PaymentRail, State};
use infernet_payments::tab::{Carried, Statement, Totals};
use infernet_payments::{Invoice, PaymentHash};
use infernet_protocol::event::ReceiptSide;
use infernet_protocol::money::Msat;
use nostr::{EventId, Keys, PublicKey, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};

use crate::benches::{ask, wallets};

const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

fn hash(number: u8) -> PaymentHash {
    PaymentHash::from_bytes([number; 32])
}

fn somebody() -> PublicKey {
    Keys::generate().public_key()
}

async fn ledger() -> (tempfile::TempDir, Ledger) {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("ledger.sqlite")).await;
    (folder, ledger.unwrap())
}

fn due(counterparty: PublicKey) -> Due {
    Due {
        reason: Reason::TopUp,
        counterparty,
        award: Some(EventId::all_zeros()),
    }
}

async fn invoice(amount: u64) -> Invoice {
    let (_network, _alice, bob) = wallets();
    bob.make_invoice(&ask(amount)).await.unwrap()
}

async fn planned(
    ledger: &Ledger,
    invoice: &Invoice,
    to: PublicKey,
) -> infernet_payments::ledger::Intent {
    let planned = ledger
        .plan_payment(&due(to), invoice, Msat(1_000), None, AT)
        .await;
    match planned.unwrap() {
        Planned::Now(intent) => intent,
        Planned::Before(_) => panic!("it is new"),
    }
}

#[tokio::test]
async fn both_sides_of_a_tab_say_the_same_with_opposite_signs() {
    let (_a, buyers) = ledger().await;
    let (_b, providers) = ledger().await;
    let (buyer, provider) = (somebody(), somebody());
    let award = EventId::from_byte_array([9; 32]);
    let amount = Msat(10_000);
    let (paid, got) = (
        Posting::TopUpPaid {
            hash: hash(1),
            provider,
            amount,
            fee: Msat(3),
        },
        Posting::TopUpReceived {
            hash: hash(1),
            buyer,
            amount,
        },
    );
    let cost = Msat(4_321);
    let (spent, earned) = (
        Posting::Spent {
            award,
            provider,
            amount: cost,
        },
        Posting::Earned {
            award,
            buyer,
            amount: cost,
        },
    );
    for (ledger, postings) in [(&buyers, [paid, spent]), (&providers, [got, earned])] {
        for posting in postings {
            assert_eq!(ledger.post(&posting, AT).await.unwrap(), Posted::Now);
            assert_eq!(ledger.post(&posting, AT).await.unwrap(), Posted::Before);
        }
    }
    assert_eq!(buyers.tabs().await.unwrap(), [(provider, 5_679)]);
    assert_eq!(providers.tabs().await.unwrap(), [(buyer, -5_679)]);
    assert_eq!(buyers.balance(&Account::Wallet).await.unwrap(), -10_003);
    assert_eq!(buyers.balance(&Account::Fees).await.unwrap(), 3);
    assert_eq!(buyers.balance(&Account::Spending).await.unwrap(), 4_321);
    assert_eq!(providers.balance(&Account::Wallet).await.unwrap(), 10_000);
    assert_eq!(providers.balance(&Account::Income).await.unwrap(), -4_321);
    let carried = Carried {
        paid: Msat(10_000),
        due: cost,
    };
    let ours = buyers.carried(&provider, ReceiptSide::Buyer).await;
    let theirs = providers.carried(&buyer, ReceiptSide::Provider).await;
    assert_eq!((ours.unwrap(), theirs.unwrap()), (carried, carried));
    let as_provider = buyers.carried(&provider, ReceiptSide::Provider).await;
    assert_eq!(as_provider.unwrap(), Carried::default());
    let lines = providers.lines(&Account::Income, AT).await.unwrap();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].counterparty, Some(buyer));
    assert_eq!(lines[0].reference, *award.as_bytes());
    let later = AT + Duration::from_secs(1);
    assert!(
        providers
            .lines(&Account::Income, later)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn the_same_payment_is_not_posted_differently() {
    let (_folder, ledger) = ledger().await;
    let (buyer, other) = (somebody(), somebody());
    let received = |buyer, amount| Posting::TopUpReceived {
        hash: hash(1),
        buyer,
        amount: Msat(amount),
    };
    ledger.post(&received(buyer, 5), AT).await.unwrap();
    for wrong in [received(buyer, 6), received(other, 5)] {
        let refused = ledger.post(&wrong, AT).await;
        assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    }
    assert_eq!(ledger.tabs().await.unwrap(), [(buyer, -5)]);
}

#[tokio::test]
async fn refunds_even_a_tab_out() {
    let (_folder, ledger) = ledger().await;
    let buyer = somebody();
    let top_up = Posting::TopUpReceived {
        hash: hash(1),
        buyer,
        amount: Msat(10_000),
    };
    let refund = Posting::RefundPaid {
        hash: hash(2),
        buyer,
        amount: Msat(10_000),
        fee: Msat(7),
    };
    ledger.post(&top_up, AT).await.unwrap();
    ledger.post(&refund, AT).await.unwrap();
    assert_eq!(ledger.tabs().await.unwrap(), []);
    assert_eq!(ledger.balance(&Account::Wallet).await.unwrap(), -7);
    let carried = ledger.carried(&buyer, ReceiptSide::Provider).await;
    assert_eq!(carried.unwrap(), Carried::default());
}

#[tokio::test]
async fn what_was_signed_last_is_kept() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider) = (Keys::generate(), Keys::generate());
    let award = EventId::from_byte_array([9; 32]);
    let signed = |output_tokens| {
        let statement = Statement {
            buyer: buyer.public_key(),
            provider: provider.public_key(),
            award,
            totals: Totals {
                output_tokens,
                ..Totals::default()
            },
        };
        Signed {
            statement,
            author: buyer.public_key(),
            signature: statement.sign(&buyer),
        }
    };
    // The second comes again after the third.
    for output_tokens in [1, 2, 3, 2] {
        ledger.keep(&signed(output_tokens)).await.unwrap();
    }
    let kept = ledger.signed(&award, &buyer.public_key()).await;
    let kept = kept.unwrap().unwrap();
    assert_eq!(kept.statement.totals.output_tokens, 3);
    let checked = kept.statement.verify(&kept.author, &kept.signature);
    assert_eq!(checked, Ok(()));
    let theirs = ledger.signed(&award, &provider.public_key()).await;
    assert_eq!(theirs.unwrap(), None);
}

/// Runs a statement behind the ledger's back.
async fn behind_its_back(path: &Path, sql: &str) -> Result<(), sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(path);
    let mut connection = options.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() {
    let (folder, ledger) = ledger().await;
    let path = folder.path().join("ledger.sqlite");
    let posting = Posting::CameIn {
        hash: hash(1),
        amount: Msat(5),
    };
    ledger.post(&posting, AT).await.unwrap();
    let invoice = invoice(10_000).await;
    planned(&ledger, &invoice, somebody()).await;
    let unsealed = "BEGIN;
         INSERT INTO entries VALUES (2, zeroblob(32), 'received', 'wallet', NULL, 5);
         COMMIT;";
    let uneven = "BEGIN;
         INSERT INTO entries VALUES (2, zeroblob(32), 'received', 'wallet', NULL, 5);
         INSERT INTO entries VALUES (2, zeroblob(32), 'accepted', 'outside', NULL, -4);
         INSERT INTO postings VALUES (2, 'outside', 1);
         COMMIT;";
    for wrong in [
        unsealed,
        uneven,
        "UPDATE entries SET amount_msat = 6",
        "DELETE FROM entries",
        "UPDATE postings SET at_s = 1",
        "DELETE FROM postings",
        "INSERT OR REPLACE INTO postings VALUES (1, 'charge', 1)",
        "INSERT INTO postings VALUES (2, 'outside', 1)",
        "INSERT INTO entries VALUES (1, zeroblob(32), 'paid', 'wallet', NULL, 1)",
        "INSERT INTO entries VALUES (2, zeroblob(32), 'paid', 'tab', NULL, 1)",
        "DELETE FROM intents",
        "UPDATE intents SET amount_msat = 1",
        "UPDATE intents SET hash = zeroblob(32)",
        "UPDATE intents SET state = 'settled'",
    ] {
        let refused = behind_its_back(&path, wrong).await;
        assert!(refused.is_err(), "{wrong}");
    }
    assert_eq!(ledger.balance(&Account::Wallet).await.unwrap(), 5);
}

#[tokio::test]
async fn the_ledger_survives_its_process() {
    let (folder, ledger) = ledger().await;
    let posting = Posting::CameIn {
        hash: hash(1),
        amount: Msat(5),
    };
    ledger.post(&posting, AT).await.unwrap();
    drop(ledger);
    let again = Ledger::open(&folder.path().join("ledger.sqlite")).await;
    let again = again.unwrap();
    assert_eq!(again.balance(&Account::Wallet).await.unwrap(), 5);
    assert_eq!(again.post(&posting, AT).await.unwrap(), Posted::Before);
}

#[tokio::test]
async fn an_invoice_has_one_intent_that_only_goes_forward() {
    let (_folder, ledger) = ledger().await;
    let provider = somebody();
    let invoice = invoice(10_000).await;
    let intent = planned(&ledger, &invoice, provider).await;
    let due = due(provider);
    let again = ledger.plan_payment(&due, &invoice, Msat(1_000), None, AT);
    assert_eq!(again.await.unwrap(), Planned::Before(intent.clone()));
    let step = |from, to| ledger.change_standing(&intent.key, from, to, AT);
    assert!(step(Standing::Planned, Standing::UnderWay).await.unwrap());
    let not_any_more = step(Standing::Planned, Standing::UnderWay).await;
    assert!(!not_any_more.unwrap());
    assert!(
        ledger
            .settle(&intent, Msat(10_000), Msat(5), AT)
            .await
            .unwrap()
    );
    let once = ledger.settle(&intent, Msat(10_000), Msat(5), AT).await;
    assert!(!once.unwrap());
    let back = step(Standing::Settled, Standing::Planned).await;
    assert!(matches!(back, Err(Error::Sqlite(_))), "{back:?}");
    assert_eq!(ledger.tabs().await.unwrap(), [(provider, 10_000)]);
    assert_eq!(ledger.open_intents().await.unwrap(), []);
}

#[tokio::test]
async fn a_budget_counts_what_is_under_way() {
    let (_folder, ledger) = ledger().await;
    let budget = Budget {
        most: Msat(25_000),
        since: AT,
    };
    let mut last = None;
    for number in 0..3 {
        let invoice = invoice(10_000).await;
        let due = due(somebody());
        let plan = ledger.plan_payment(&due, &invoice, Msat(0), Some(budget), AT);
        match (number, plan.await) {
            (0 | 1, Ok(Planned::Now(intent))) => last = Some(intent),
            (2, Err(Error::OverBudget { spent, .. })) => assert_eq!(spent, Msat(20_000)),
            (_, other) => panic!("{other:?}"),
        }
    }
    let last = last.unwrap();
    let failed = ledger.change_standing(&last.key, Standing::Planned, Standing::Failed, AT);
    assert!(failed.await.unwrap());
    assert_eq!(ledger.paid_since(AT).await.unwrap(), Msat(10_000));
    let tomorrow = AT + Duration::from_secs(86_400);
    assert_eq!(ledger.paid_since(tomorrow).await.unwrap(), Msat::ZERO);
}

#[tokio::test]
async fn unpaid_invoices_are_capped_by_buyer_and_in_all() {
    let (_folder, ledger) = ledger().await;
    let (one, other) = (somebody(), somebody());
    let caps = Caps {
        for_one: 2,
        in_all: 3,
    };
    let mut planned = Vec::new();
    for (buyer, is_planned) in [
        (one, true),
        (one, true),
        (one, false),
        (other, true),
        (other, false),
    ] {
        let due = due(buyer);
        match ledger.plan_invoice(&due, Msat(10_000), caps, AT).await {
            Ok(intent) if is_planned => planned.push(intent),
            Err(Error::TooManyInvoices { .. }) if !is_planned => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ledger.unpaid_invoices(&one).await.unwrap(), (2, 3));
    assert_eq!(ledger.unpaid_invoices(&somebody()).await.unwrap(), (0, 3));
    let first = &planned[0].key;
    let failed = ledger.change_standing(first, Standing::Planned, Standing::Failed, AT);
    assert!(failed.await.unwrap());
    assert_eq!(ledger.unpaid_invoices(&one).await.unwrap(), (1, 2));
}

fn settled(direction: Direction, number: u8, amount: u64, fee: u64) -> Payment {
    Payment {
        direction,
        hash: hash(number),
        amount: Msat(amount),
        state: State::Settled {
            at: AT,
            fee: Msat(fee),
            preimage: None,
        },
        created_at: AT,
    }
}

#[tokio::test]
async fn reconciling_names_every_difference() {
    let (_folder, ledger) = ledger().await;
    let other = somebody();
    for posting in [
        Posting::TopUpReceived {
            hash: hash(1),
            buyer: other,
            amount: Msat(10_000),
        },
        Posting::TopUpPaid {
            hash: hash(2),
            provider: other,
            amount: Msat(4_000),
            fee: Msat(10),
        },
        Posting::TopUpReceived {
            hash: hash(3),
            buyer: other,
            amount: Msat(500),
        },
    ] {
        ledger.post(&posting, AT).await.unwrap();
    }
    let going = invoice(7_000).await;
    let intent = planned(&ledger, &going, other).await;
    let under_way = ledger.change_standing(&intent.key, Standing::Planned, Standing::UnderWay, AT);
    assert!(under_way.await.unwrap());
    let foreign = settled(Direction::Incoming, 4, 90_000, 0);
    let payments = [
        settled(Direction::Incoming, 1, 10_000, 0),
        settled(Direction::Outgoing, 2, 4_000, 12),
        foreign.clone(),
    ];
    // 10,000 − 4,012 + 90,000 − 7,000 on its way with a fee of 5.
    let report = ledger.reconcile(&payments, Msat(88_983)).await.unwrap();
    assert_eq!(report.ledger_msat, 6_490);
    assert_eq!(report.unexplained_msat, 0, "{report:?}");
    let [amount, strange, missing, going] = &report.differences[..] else {
        panic!("{:?}", report.differences);
    };
    assert!(matches!(
        amount,
        Difference::Amount {
            posted_msat: -4_010,
            wallet_msat: -4_012,
            ..
        }
    ));
    assert_eq!(*strange, Difference::Foreign(foreign.clone()));
    assert!(matches!(
        missing,
        Difference::Missing {
            posted_msat: 500,
            ..
        }
    ));
    assert!(matches!(going, Difference::UnderWay(_)));
    ledger.adopt(&foreign).await.unwrap();
    ledger.adopt(&foreign).await.unwrap();
    let report = ledger.reconcile(&payments, Msat(88_983)).await.unwrap();
    assert_eq!((report.differences.len(), report.unexplained_msat), (3, 0));
    let report = ledger.reconcile(&payments, Msat(100_000)).await.unwrap();
    assert_eq!(report.unexplained_msat, 4_012, "that much is nobody's");
}
