//! Jobs that are paid: over a real relay, with wallets of a test network.

use std::time::Duration;

use infernet_client::purse::{self, Refund};
use infernet_client::{Client, Error, Request, Step};
use infernet_protocol::event::{Experience, Receipt, ReceiptSide, Signed};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use nostr::Timestamp;

use crate::bazaar::{BEGINS_WITH, Bazaar, buy, charges, payments, sats};
use crate::proxy::Proxy;
use crate::seller::{INPUT, Offer, SAT_A_TOKEN, Way, words};
use crate::{DEADLINE, Life, live};

#[tokio::test]
async fn a_job_is_paid_as_it_streams_and_both_sides_agree() {
    // No top-up is under way when the job ends: nothing is lent, and nothing asked for behind the last token.
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.credit_per_mille = 0;
    let bazaar = Bazaar::of([offer]).await;
    let client = bazaar.client().await;
    let life = live(&client, buy().max_tokens(30)).await;
    let summary = life.summary();
    assert_eq!(life.text, words(30));
    let cost = sats(INPUT + 30);
    assert_eq!((summary.charged_msat, summary.due_msat), (cost, cost));
    assert!(payments(&life) >= 3, "{:?}", life.steps);
    assert_eq!(charges(&life).len(), 1);

    let seller = &bazaar.sellers[0];
    let carried = seller.carried(&bazaar.buyer());
    assert_eq!(carried.due, cost);
    assert_eq!(carried.paid, summary.paid_msat);
    let left = i64::try_from(carried.paid.0 - cost.0).unwrap();
    assert_eq!(summary.left_msat, Some(left));

    let receipts = bazaar.receipts(2).await;
    for receipt in &receipts {
        assert_eq!((receipt.due_msat, receipt.paid_msat), (cost, carried.paid));
        assert_eq!(receipt.usage.output_tokens, 30);
        assert_eq!(receipt.payments.len(), seller.books().paid.len());
    }
    let ours = |r: &&Signed<Receipt>| r.side == ReceiptSide::Buyer;
    let ours = receipts.iter().find(ours).unwrap();
    let tab = ours.tab.unwrap();
    assert_eq!((tab.due_msat, tab.paid_msat), (cost, carried.paid));
    let attestation = bazaar.attestation().await;
    assert_eq!(attestation.receipt, Some(ours.id()));
    assert_eq!(attestation.paid_msat, carried.paid);
    assert_eq!(attestation.experience, Experience::Completed);
    client.close().await;
    assert_eq!(bazaar.is_even().await, carried.paid);
}

#[tokio::test]
async fn what_is_left_carries_on_and_is_paid_back() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let client = bazaar.client().await;
    let first = live(&client, buy()).await;
    let left = first.summary().left_msat.unwrap();
    assert!(left > 0);
    let second = live(&client, buy()).await;
    let spent = sats(2 * (INPUT + 30));
    let carried = bazaar.sellers[0].carried(&bazaar.buyer());
    assert_eq!(carried.due, spent);
    let left = second.summary().left_msat.unwrap();
    assert_eq!(left, i64::try_from(carried.paid.0 - spent.0).unwrap());

    bazaar.receipts(4).await;
    let refund = client.refund(bazaar.sellers[0].key()).await.unwrap();
    let amount_msat = Msat(left.unsigned_abs());
    assert_eq!(refund, Refund::Paid { amount_msat });
    let again = client.refund(bazaar.sellers[0].key()).await.unwrap();
    assert_eq!(again, Refund::Nothing { left_msat: 0 });
    client.close().await;
    assert_eq!(bazaar.is_even().await, spent);
    assert_eq!(bazaar.tabs().await, []);

    // The tab is there for the next job.
    let client = bazaar.client().await;
    live(&client, buy()).await.summary();
    client.close().await;
}

#[tokio::test]
async fn a_provider_that_keeps_what_is_left_is_told_so() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::KeepsAll)]).await;
    let client = bazaar.client().await;
    let left = live(&client, buy()).await.summary().left_msat.unwrap();
    bazaar.receipts(2).await;
    let refund = client.refund(bazaar.sellers[0].key()).await.unwrap();
    let refused = Refund::Refused {
        amount_msat: Msat(left.unsigned_abs()),
        detail: "that is not left".into(),
    };
    assert_eq!(refund, refused);
    client.close().await;
    assert_eq!(bazaar.tabs().await[0].left_msat, left);
}

/// A seller of this conduct is asked first, an honest one stands in. What is said of the first one, what it was paid,
/// and how the job went.
async fn is_left(way: Way) -> (Bazaar, Life, Msat) {
    // Whoever breaks off while a payment is on its way to it is not blamed.
    let offers = [
        Offer::new("first", way).speed(500.0).prepaid(24),
        Offer::new("second", Way::Honest),
    ];
    let bazaar = Bazaar::of(offers).await;
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    life.summary();
    assert_eq!(life.awarded(), ["first", "second"], "{way:?}");
    assert_eq!(life.text, words(30), "{way:?}");
    client.close().await;
    bazaar.is_even().await;
    let paid = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
    assert!(paid <= 50_000, "{way:?} was paid {paid} msat");
    (bazaar, life, Msat(paid))
}
#[tokio::test]
async fn who_claims_what_is_not_so_is_invalid() {
    let ways = [
        Way::ClaimsDear,
        Way::ChangesInput,
        Way::Forges,
        Way::AnotherAward,
        Way::AnotherNode,
    ];
    for way in ways {
        let (bazaar, life, paid) = is_left(way).await;
        let said = bazaar.said_of(0).await.expect("nothing was said of it");
        assert_eq!(said.experience, Experience::Invalid, "{way:?}");
        assert_eq!(said.paid_msat, paid, "{way:?}");
        assert_eq!(said.receipt.is_some(), paid > Msat::ZERO, "{way:?}");
        if matches!(way, Way::AnotherNode | Way::AnotherAward) {
            assert_eq!(paid, Msat::ZERO, "{way:?}");
        }
        // What came is paid for, and no more.
        let (charged, ..) = charges(&life)[0];
        assert!(charged <= paid, "{way:?}: {charged}");
    }
}

#[tokio::test]
async fn who_forgets_payments_is_invalid() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::ForgetsPayments)]).await;
    let client = bazaar.client().await;
    // What may still be on its way is missing for good reason: more than that is not.
    let mut paid = Msat::ZERO;
    while paid <= bazaar.limits.risk {
        let first = live(&client, buy()).await;
        paid.0 += first.summary().paid_msat.0;
    }
    let second = live(&client, buy()).await;
    assert!(second.outcome.is_err());
    let failed = |step: &Step| matches!(step, Step::Failed { how, .. } if how.contains("missing"));
    assert!(second.steps.iter().any(failed), "{:?}", second.steps);
    client.close().await;
    bazaar.is_even().await;
}

#[tokio::test]
async fn who_claims_more_than_it_sends_is_not_acknowledged_and_charges_nothing_for_it() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::ClaimsMore(5))]).await;
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    let award = bazaar.sellers[0].books().awards[0].id();
    let acknowledged = bazaar.sellers[0].books().acknowledged[&award];
    assert!(acknowledged.output_tokens <= 30, "{acknowledged:?}");
    let (charged, ..) = charges(&life)[0];
    assert!(charged <= sats(INPUT + 30), "{charged}");
    client.close().await;
}

#[tokio::test]
async fn who_takes_the_money_and_stops_has_one_top_up_and_a_bad_word() {
    let (bazaar, life, paid) = is_left(Way::TakesAndStops).await;
    assert!(paid > Msat::ZERO);
    let (charged, was_paid, left_msat) = charges(&life)[0];
    assert_eq!((charged, was_paid), (Msat::ZERO, paid));
    assert_eq!(left_msat, i64::try_from(paid.0).unwrap());
    let said = bazaar.said_of(0).await.unwrap();
    assert_eq!(
        (said.experience, said.paid_msat),
        (Experience::Silent, paid)
    );
    let receipts = bazaar.receipts(1).await;
    let receipt = receipts.iter().find(|r| Some(r.id()) == said.receipt);
    let receipt = receipt.expect("the attestation names no receipt");
    assert_eq!((receipt.due_msat, receipt.paid_msat), (Msat::ZERO, paid));
    assert_eq!(bazaar.tabs().await.len(), 2);
}

#[tokio::test]
async fn who_breaks_off_is_paid_for_what_came_and_the_next_one_for_the_rest() {
    for (way, experience) in [
        (Way::StopsAfter(6), Experience::Silent),
        (Way::FailsAfter(6), Experience::Failed),
    ] {
        let (bazaar, life, _) = is_left(way).await;
        let charged: Vec<Msat> = charges(&life).iter().map(|charge| charge.0).collect();
        // The prefix is input of the second.
        let rest = sats(INPUT + 6 + 24);
        assert_eq!(charged, [sats(INPUT + 6), rest], "{way:?}");
        assert_eq!(life.summary().charged_msat.0, charged[0].0 + rest.0);
        let said = bazaar.said_of(0).await;
        let said = said.unwrap_or_else(|| panic!("nothing was said of {way:?}"));
        assert_eq!(said.experience, experience, "{way:?}");
    }
}

#[tokio::test]
async fn who_asks_for_too_much_is_asked_for_less() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::AsksFor(sats(51)))]).await;
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    life.summary();
    let books = bazaar.sellers[0].books();
    assert_eq!(books.wished.first(), Some(&sats(50)));
    assert!(books.paid.iter().all(|amount| *amount <= sats(50)));
}

#[tokio::test]
async fn an_invoice_that_has_run_out_is_asked_for_anew_and_one_that_comes_twice_is_paid_once() {
    for way in [Way::RunOut, Way::AsksTwice] {
        let bazaar = Bazaar::of([Offer::new("ada", way)]).await;
        let client = bazaar.client().await;
        let life = live(&client, buy()).await;
        assert_eq!(life.text, words(30), "{way:?}");
        client.close().await;
        let paid: u64 = bazaar.sellers[0].books().paid.iter().map(|p| p.0).sum();
        assert_eq!(bazaar.is_even().await, Msat(paid), "{way:?}");
    }
}

#[tokio::test]
async fn who_waits_for_money_and_never_asks_is_given_up_without_blame() {
    let mut offer = Offer::new("first", Way::NeverAsks).speed(500.0);
    offer.terms.patience_ms = 1_000;
    let bazaar = Bazaar::of([offer, Offer::new("second", Way::Honest)]).await;
    let client = bazaar.client().await;
    let life = live(&client, buy()).await;
    assert_eq!(life.awarded(), ["first", "second"]);
    assert_eq!(life.text, words(30));
    client.close().await;
    assert!(bazaar.said_of(0).await.is_none());
}

#[tokio::test]
async fn who_is_left_in_the_middle_for_our_own_limits_is_not_blamed() {
    let (bazaar, life, _) = is_left(Way::GrowsGreedy(sats(51))).await;
    let left = |step: &Step| matches!(step, Step::Failed { how, .. } if how.contains("risk_sats"));
    assert!(life.steps.iter().any(left), "{:?}", life.steps);
    assert!(bazaar.said_of(0).await.is_none());
    // What had come was paid for.
    assert!(charges(&life)[0].0 > Msat::ZERO);
}

/// The provider begins on what is left, and asks for more before its first piece is read.
#[tokio::test]
async fn a_tab_that_is_nearly_as_full_as_is_risked_is_no_reason_to_leave() {
    let mut bazaar = Bazaar::of([Offer::new("ada", Way::AsksEarly)]).await;
    bazaar.limits.risk = sats(20);
    let client = bazaar.client().await;
    live(&client, buy().max_tokens(2)).await.summary();
    for _ in 0..3 {
        let life = live(&client, buy()).await;
        assert_eq!(life.summary().output_tokens, 30, "{:?}", life.steps);
        let left = |step: &&Step| matches!(step, Step::Failed { .. });
        assert_eq!(
            life.steps.iter().filter(left).count(),
            0,
            "{:?}",
            life.steps
        );
    }
    client.close().await;
    bazaar.is_even().await;
}

/// Its books do not know an award that it never accepted.
#[tokio::test]
async fn a_refund_is_about_the_last_award_that_was_on_the_tab() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 1_000;
    offer.terms.min_top_up = sats(17);
    offer.terms.credit_per_mille = 0;
    let bazaar = Bazaar::of([offer]).await;
    let client = bazaar.client().await;
    let first = live(&client, buy().max_tokens(2)).await;
    let left = first.summary().left_msat;
    assert_eq!(left, Some(5_000));
    bazaar.wallet.crash();
    assert!(live(&client, buy()).await.outcome.is_err());
    bazaar.wallet.restart();
    bazaar.receipts(2).await;
    let refund = client.refund(bazaar.sellers[0].key()).await.unwrap();
    let amount_msat = Msat(left.unwrap().unsigned_abs());
    assert_eq!(refund, Refund::Paid { amount_msat });
    let books = bazaar.sellers[0].books();
    assert_eq!(books.refunded_about, Some(books.awards[0].id()));
}

#[tokio::test]
async fn who_shows_a_paid_invoice_again_and_fails_is_not_waited_for() {
    let (bazaar, ..) = is_left(Way::ShowsAgainAndFails(6)).await;
    let said = bazaar.said_of(0).await.expect("nothing was said of it");
    assert_eq!(said.experience, Experience::Failed);
}

#[tokio::test]
async fn a_refund_that_ran_out_unheard_is_asked_for_anew() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::MissesRefund)]).await;
    let client = bazaar.client().await;
    let left = live(&client, buy()).await.summary().left_msat.unwrap();
    bazaar.receipts(2).await;
    // The user does not wait for an answer.
    let asking = client.refund(bazaar.sellers[0].key());
    let asked = async {
        while bazaar.tabs().await[0].refund_msat == Msat::ZERO {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        refund = asking => panic!("{refund:?}"),
        () = asked => {}
    }
    client.close().await;
    bazaar.network.advance(Duration::from_secs(3_600));
    let client = bazaar.client().await;
    let refund = client.refund(bazaar.sellers[0].key()).await.unwrap();
    let amount_msat = Msat(left.unsigned_abs());
    assert_eq!(refund, Refund::Paid { amount_msat });
    client.close().await;
}

#[tokio::test]
async fn a_failover_keeps_to_the_jobs_limit() {
    let offers = [
        Offer::new("first", Way::StopsAfter(20)).speed(500.0),
        Offer::new("second", Way::Honest),
    ];
    let bazaar = Bazaar::of(offers).await;
    let client = bazaar.client().await;
    // Enough for one answer of thirty, and not for twenty and then the rest with the prefix.
    let request = buy().max_tokens(30).max_cost(sats(45));
    let life = live(&client, request).await;
    assert_eq!(life.awarded(), ["first"]);
    assert!(life.outcome.is_err());
    let charged: u64 = charges(&life).iter().map(|charge| charge.0.0).sum();
    assert!(charged <= 45_000, "{charged}");
    client.close().await;
}

#[tokio::test]
async fn two_clients_over_one_home_take_turns_on_a_tab() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Slow)]).await;
    let (one, other) = (bazaar.client().await, bazaar.client().await);
    let mut answer = one.submit(buy()).await.unwrap();
    while let Some(step) = answer.step().await {
        if matches!(step, Step::Text(_)) {
            break;
        }
    }
    let second = live(&other, buy());
    let first = async {
        while answer.step().await.is_some() {}
        let outcome = answer.finish().await;
        // With its last job over, it gives the tab back.
        outcome
    };
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    second.summary();
    let waited = |step: &Step| matches!(step, Step::TabTaken { .. });
    assert!(second.steps.iter().any(waited), "{:?}", second.steps);
    one.close().await;
    other.close().await;
    let carried = bazaar.sellers[0].carried(&bazaar.buyer());
    assert_eq!(carried.due, sats(2 * (INPUT + 30)));
    assert_eq!(bazaar.is_even().await, carried.paid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_jobs_share_a_tab() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.terms.patience_ms = 30_000;
    offer.tokens = 10;
    offer.terms.top_up = sats(50);
    let mut bazaar = Bazaar::of([offer]).await;
    bazaar.limits.daily = BEGINS_WITH;
    let mut options = bazaar.options();
    // All of them share this machine.
    options.patience.ack_ms = 20_000;
    options.patience.silence_ms = 20_000;
    let client = Client::connect(options).await.unwrap();
    let jobs = (0..100).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { live(&client, buy().max_tokens(10)).await })
    });
    let mut charged = 0;
    for job in jobs.collect::<Vec<_>>() {
        let life = job.await.unwrap();
        life.summary();
        assert_eq!(life.text, words(10));
        charged += life.summary().charged_msat.0;
    }
    assert_eq!(charged, 100 * 1_000 * (INPUT + 10));
    client.close().await;
    let carried = bazaar.sellers[0].carried(&bazaar.buyer());
    assert_eq!(carried.due, Msat(charged));
    assert_eq!(bazaar.is_even().await, carried.paid);
}

#[tokio::test]
async fn a_job_that_is_stopped_pays_for_what_came() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Slow)]).await;
    let client = bazaar.client().await;
    let mut answer = client.submit(buy()).await.unwrap();
    while let Some(step) = answer.step().await {
        if matches!(step, Step::Text(_)) {
            answer.stop();
        }
    }
    assert_eq!(answer.finish().await.unwrap_err(), Error::Stopped);
    client.close().await;
    let receipts = bazaar.receipts(2).await;
    let carried = bazaar.sellers[0].carried(&bazaar.buyer());
    assert!(carried.due >= sats(INPUT + 1));
    for receipt in receipts {
        assert_eq!(receipt.due_msat, carried.due);
    }
    bazaar.is_even().await;
}

#[tokio::test]
async fn vectors_are_paid_for_with_their_result() {
    let mut offer = Offer::new("ada", Way::Honest);
    offer.model.task = infernet_protocol::inference::Task::Embedding;
    let bazaar = Bazaar::of([offer]).await;
    let client = bazaar.client().await;
    let request = Request::embedding(None, ["one and a half", "two and a half"]);
    let life = live(&client, request.max_price(SAT_A_TOKEN)).await;
    assert_eq!(life.summary().charged_msat, sats(INPUT));
    assert_eq!(life.summary().vectors.len(), 2);
    client.close().await;
    bazaar.is_even().await;
}

#[tokio::test]
async fn without_a_wallet_it_is_said_what_to_do() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Honest)]).await;
    let mut options = bazaar.options();
    options.purse = None;
    let client = Client::connect(options).await.unwrap();
    let error = live(&client, buy()).await.outcome.unwrap_err();
    assert!(error.to_string().contains("INFERNET_WALLET"), "{error}");
    client.close().await;
}

#[tokio::test]
async fn what_a_relay_kept_away_is_charged_as_its_result_says() {
    let bazaar = Bazaar::of([Offer::new("ada", Way::Slow)]).await;
    let proxy = Proxy::to(&bazaar.url).await;
    let mut options = bazaar.options();
    options.relays = vec![proxy.url()];
    // A relay that hangs is known for one before its provider counts as silent.
    options.patience.silence_ms = 4_000;
    let client = Client::connect(options).await.unwrap();
    let mut answer = client
        .submit(buy().deadline(Duration::from_secs(8)))
        .await
        .unwrap();
    answer.next().await.unwrap();
    proxy.hold(true);
    let (mut is_unclear, mut seen) = (false, vec![]);
    let lived = async {
        while let Some(step) = answer.step().await {
            is_unclear |= matches!(step, Step::Unclear { .. });
            seen.push(step);
        }
        answer.finish().await.unwrap_err()
    };
    let error = tokio::time::timeout(DEADLINE, lived).await.unwrap();
    assert!(is_unclear, "{seen:?} {error}");
    client.close().await;
    assert_eq!(bazaar.tabs().await[0].unclear, 1);
    // The seller has gone on meanwhile, and its result is on the relay.
    bazaar.eventually(kinds::RESULT, 1).await;

    let client = bazaar.client().await;
    let life = live(&client, buy().max_tokens(2)).await;
    life.summary();
    client.close().await;
    let charged: u64 = bazaar.sellers[0]
        .books()
        .charged
        .values()
        .map(|due| due.0)
        .sum();
    let books = purse::Books::open(&bazaar.folder()).await.unwrap();
    let spending = books.spending(Timestamp::from_secs(0)).await.unwrap();
    assert_eq!(books.unclear().await.unwrap(), 0);
    books.close().await;
    assert_eq!(spending.charged_msat, Msat(charged));
    bazaar.is_even().await;
}
