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
async fn a_budget_counts_what_routing_has_cost() {
    let (_folder, ledger) = ledger().await;
    let (due, invoice) = (due(somebody()), invoice(10_000).await);
    let plan = ledger.plan_payment(&due, &invoice, Msat(2_000), None, AT);
    let Planned::Now(intent) = plan.await.unwrap() else {
        panic!("it is new");
    };
    let sent = ledger.change_standing(&intent.key, Standing::Planned, Standing::UnderWay, AT);
    assert!(sent.await.unwrap());
    let settled = ledger.settle(&intent, Msat(10_000), Msat(1_500), AT);
    assert!(settled.await.unwrap());
    assert_eq!(ledger.paid_since(AT).await.unwrap(), Msat(11_500));
    let tomorrow = AT + Duration::from_secs(86_400);
    assert_eq!(ledger.paid_since(tomorrow).await.unwrap(), Msat::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_share_a_ledger_share_its_budget() {
    let (folder, one) = ledger().await;
    let path = folder.path().join("ledger.sqlite");
    let other = Ledger::open(&path).await.unwrap();
    let budget = Budget {
        most: Msat(50_000),
        since: AT,
    };
    let mut plans = Vec::new();
    for number in 0..20 {
        let ledger = [&one, &other][number % 2].clone();
        let invoice = invoice(10_000).await;
        plans.push(tokio::spawn(async move {
            let due = due(somebody());
            let plan = ledger.plan_payment(&due, &invoice, Msat(0), Some(budget), AT);
            plan.await
        }));
    }
    let mut planned = 0;
    for plan in plans {
        match plan.await.unwrap() {
            Ok(_) => planned += 1,
            Err(Error::OverBudget { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(planned, 5);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_begin_together_share_a_ledger() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        let opened = (0..8).map(|_| {
            let path = path.clone();
            tokio::spawn(async move { Ledger::open(&path).await })
        });
        for one in opened.collect::<Vec<_>>() {
            one.await.unwrap().unwrap();
        }
    }
}

#[tokio::test]
async fn nobody_but_its_owner_reads_the_ledger() {
    use std::os::unix::fs::PermissionsExt;
    let (folder, ledger) = ledger().await;
    let posting = Posting::CameIn {
        hash: hash(1),
        amount: Msat(5),
    };
    ledger.post(&posting, AT).await.unwrap();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.file_name());
    }
}

#[tokio::test]
async fn an_invoice_is_paid_for_one_counterparty_alone() {
    let (_folder, ledger) = ledger().await;
    let invoice = invoice(10_000).await;
    planned(&ledger, &invoice, somebody()).await;
    let other = due(somebody());
    let refused = ledger.plan_payment(&other, &invoice, Msat(0), None, AT);
    let refused = refused.await;
    assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
}

#[tokio::test]
async fn an_invoice_that_a_wallet_makes_twice_is_asked_for_once() {
    let (_folder, ledger) = ledger().await;
    let invoice = invoice(10_000).await;
    for is_new in [true, false] {
        let due = due(somebody());
        let planned = ledger.plan_invoice(&due, Msat(10_000), Caps::default(), AT);
        let intent = planned.await.unwrap();
        let done = ledger.invoiced(&intent.key, &invoice, AT).await;
        assert_eq!(done.unwrap(), is_new);
    }
}

#[tokio::test]
async fn a_refund_under_way_is_not_left_on_the_tab() {
    let (_folder, ledger) = ledger().await;
    let buyer = somebody();
    let top_up = Posting::TopUpReceived {
        hash: hash(1),
        buyer,
        amount: Msat(15_000),
    };
    ledger.post(&top_up, AT).await.unwrap();
    let refund = Due {
        reason: Reason::Refund,
        ..due(buyer)
    };
    let first = invoice(10_000).await;
    let plan = |invoice: Invoice| {
        let (ledger, refund) = (ledger.clone(), refund.clone());
        async move {
            ledger
                .plan_payment(&refund, &invoice, Msat(0), None, AT)
                .await
        }
    };
    let Ok(Planned::Now(intent)) = plan(first).await else {
        panic!("it is there");
    };
    let carried = || ledger.carried(&buyer, ReceiptSide::Provider);
    assert_eq!(carried().await.unwrap().paid, Msat(5_000));
    let again = plan(invoice(10_000).await).await;
    let Err(Error::NotLeft { left }) = again else {
        panic!("paid back twice: {again:?}");
    };
    assert_eq!(left, Msat(5_000));
    let failed = ledger.change_standing(&intent.key, Standing::Planned, Standing::Failed, AT);
    assert!(failed.await.unwrap());
    assert_eq!(carried().await.unwrap().paid, Msat(15_000));
}

#[tokio::test]
async fn more_paid_back_than_was_paid_is_a_present() {
    let (_folder, ledger) = ledger().await;
    let provider = somebody();
    let refund = Posting::RefundReceived {
        hash: hash(1),
        provider,
        amount: Msat(15_000),
    };
    ledger.post(&refund, AT).await.unwrap();
    let carried = ledger.carried(&provider, ReceiptSide::Buyer).await;
    assert_eq!(carried.unwrap(), Carried::default());
}

#[tokio::test]
async fn a_wallet_that_claims_all_the_money_overflows_nothing() {
    let (_folder, ledger) = ledger().await;
    let claims: Vec<Payment> = (1..=9)
        .map(|number| settled(Direction::Incoming, number, Msat::MAX.0, 0))
        .collect();
    let report = ledger.reconcile(&claims, Msat::ZERO).await.unwrap();
    assert_eq!(report.differences.len(), 9);
}

/// A buyer's word on a job, as a stream goes on.
fn said(buyer: &Keys, provider: PublicKey, award: u8, output_tokens: u64) -> Signed {
    let statement = Statement {
        buyer: buyer.public_key(),
        provider,
        award: EventId::from_byte_array([award; 32]),
        totals: Totals {
            input_tokens: 10,
            output_tokens,
            due_msat: Msat(100 + output_tokens),
            ..Totals::default()
        },
    };
    Signed {
        statement,
        author: buyer.public_key(),
        signature: statement.sign(buyer),
    }
}

#[tokio::test]
async fn a_stream_does_not_wait_for_the_disk() {
    let (folder, ledger) = ledger().await;
    let path = folder.path().join("ledger.sqlite");
    let (buyer, provider) = (Keys::generate(), somebody());
    // Another process writes: whoever waits for the disk waits for that one.
    let options = SqliteConnectOptions::new().filename(&path);
    let mut other = options.connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();
    for output_tokens in [1, 2, 3, 2] {
        let one = said(&buyer, provider, 1, output_tokens);
        ledger.keep_soon(&one).unwrap();
    }
    let mut too_much = said(&buyer, provider, 2, 1);
    too_much.statement.totals.tab_due_msat = Msat(u64::MAX);
    let refused = ledger.keep_soon(&too_much);
    assert!(matches!(refused, Err(Error::OutOfBounds)), "{refused:?}");
    let mut strange = said(&buyer, provider, 2, 1);
    strange.author = somebody();
    let refused = ledger.keep_soon(&strange);
    assert!(matches!(refused, Err(Error::Stranger)), "{refused:?}");
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    // Written without being told to: a process that dies now leaves the newest.
    let award = EventId::from_byte_array([1; 32]);
    let again = Ledger::open(&path).await.unwrap();
    let kept = tokio::time::timeout(crate::benches::DEADLINE, async {
        loop {
            let kept = again.signed(&award, &buyer.public_key()).await.unwrap();
            match kept {
                Some(kept) => return kept,
                None => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(kept.await.unwrap().statement.totals.output_tokens, 3);
    ledger.keep_soon(&said(&buyer, provider, 1, 4)).unwrap();
    ledger.close().await;
    let kept = again.signed(&award, &buyer.public_key()).await.unwrap();
    assert_eq!(kept.unwrap().statement.totals.output_tokens, 4);
}

#[tokio::test]
async fn the_newest_word_stays_whatever_comes_again() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider) = (Keys::generate(), somebody());
    let with_paid = |paid| {
        let mut one = said(&buyer, provider, 1, 5);
        one.statement.totals.tab_paid_msat = Msat(paid);
        one
    };
    for paid in [10_000, 20_000, 10_000] {
        ledger.keep(&with_paid(paid)).await.unwrap();
    }
    let award = EventId::from_byte_array([1; 32]);
    let kept = ledger.signed(&award, &buyer.public_key()).await.unwrap();
    let totals = kept.unwrap().statement.totals;
    assert_eq!(totals.tab_paid_msat, Msat(20_000));
}

#[tokio::test]
async fn what_a_dead_process_had_agreed_to_is_charged_once() {
    let (_folder, ledger) = ledger().await;
    let (buyer, provider, other) = (Keys::generate(), somebody(), somebody());
    let us = buyer.public_key();
    ledger.keep_soon(&said(&buyer, provider, 1, 7)).unwrap();
    // Nothing has come of the second, the third is charged, the fourth is another's.
    ledger.keep_soon(&said(&buyer, provider, 2, 0)).unwrap();
    ledger.keep_soon(&said(&buyer, provider, 3, 9)).unwrap();
    ledger.keep_soon(&said(&buyer, other, 4, 9)).unwrap();
    let third = Posting::Spent {
        award: EventId::from_byte_array([3; 32]),
        provider,
        amount: Msat(109),
    };
    ledger.post(&third, AT).await.unwrap();
    let charge = || ledger.charge_what_was_left(&us, &provider, ReceiptSide::Buyer, AT);
    let first = Posting::Spent {
        award: EventId::from_byte_array([1; 32]),
        provider,
        amount: Msat(107),
    };
    assert_eq!(charge().await.unwrap(), [first]);
    assert_eq!(charge().await.unwrap(), []);
    let carried = ledger.carried(&provider, ReceiptSide::Buyer).await;
    assert_eq!(carried.unwrap().due, Msat(107 + 109));
    assert_eq!(ledger.tabs().await.unwrap(), [(provider, -216)]);
}

#[tokio::test]
async fn a_tab_has_one_keeper() {
    let (folder, ledger) = ledger().await;
    let again = Ledger::open(&folder.path().join("ledger.sqlite")).await;
    let again = again.unwrap();
    let (one, other) = (somebody(), somebody());
    let lock = ledger.lock_tab(&one).unwrap().unwrap();
    assert!(again.lock_tab(&one).unwrap().is_none());
    assert!(ledger.lock_tab(&one).unwrap().is_none());
    assert!(again.lock_tab(&other).unwrap().is_some());
    drop(lock);
    assert!(again.lock_tab(&one).unwrap().is_some());
}
