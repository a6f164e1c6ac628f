//! Buyers who do not pay, or do not agree, and wallets that do not answer.

use std::sync::Arc;
use std::time::Duration;

use infernet_payments::rail::PaymentRail;
use infernet_payments::tab::Totals;
use infernet_protocol::event::Body;
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Decline, News, Wish};
use nostr::{Filter, Keys, Kind};

use super::buyer::{Buyer, Heard, generate};
use super::house::{PURSE, Provider, Relay, play_money, quick};
use super::paid::long;
use super::paying::{DEAR, Market, PRICE, check_receipt, is_paid, paid, pay};

#[tokio::test]
async fn who_never_pays_is_declined_and_nothing_is_published() {
    let mut market = Market::open(PRICE, quick(), |o| o.tab.patience_ms = 300).await;
    let (award, _) = market.award(20).await;
    let invoice = market.buyer.invoice(&award).await;
    let (reason, detail) = market.buyer.said_no(award.id()).await;
    assert_eq!(reason, Decline::Terms);
    assert!(detail.contains("paid in time"), "{detail}");
    let evidence = [8603, 8604, 8607].map(Kind::from);
    let evidence = Filter::new().kinds(evidence).event(award.id());
    assert!(market.buyer.fetch(evidence).await.is_empty());
    let status = market.provider.handle.status().await.unwrap();
    assert_eq!((status.tally.accepted, status.tally.declined), (0, 1));
    // Late, it stays on the tab, and pays for the next job.
    pay(&market.purse, &invoice).await;
    let (next, salt) = market.award(20).await;
    market.buyer.accepted(next.id()).await;
    let lived = market.buyer.live(&next, &market.purse).await;
    assert!(lived.invoices.is_empty());
    let receipt = market.buyer.receipt(next.id()).await;
    check_receipt(&receipt, &next, &salt, Msat(2_030), &[]);
    assert_eq!(receipt.tab.unwrap().paid_msat, Msat(10_000));
}

#[tokio::test]
async fn one_who_leaves_before_paying_leaves_nothing() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.invoice(&award).await;
    market.buyer.wish(&award, Wish::Stop);
    let handle = market.provider.handle.clone();
    until_gone(&handle).await;
    let (next, _) = market.award(20).await;
    market.buyer.live(&next, &market.purse).await;
}

async fn until_gone(handle: &infernet_provider::Handle) {
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    while !handle.status().await.unwrap().attempts.is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "it stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_was_paid_for_an_award_that_came_to_nothing_has_a_receipt() {
    // One payment does not suffice, and there is no second.
    let mut market = Market::open(DEAR, quick(), |o| {
        (o.tab.patience_ms, o.tab.prepaid_output_tokens) = (1_500, 15);
    })
    .await;
    let (award, salt) = market.award(100).await;
    market.buyer.invoice(&award).await;
    let most_msat = Msat(10_000);
    market.buyer.wish(&award, Wish::Invoice { most_msat });
    let part = market.buyer.invoice(&award).await;
    pay(&market.purse, &part).await;
    assert_eq!(
        market.buyer.declined_after_all(award.id()).await,
        Decline::Terms
    );
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, Msat::ZERO, &[part]);
    assert_eq!(market.left(&market.buyer).await, 10_000);
}

#[tokio::test]
async fn who_stops_paying_gets_what_was_paid_for() {
    let mut market = Market::open(DEAR, long(100, 400.0), |o| {
        (o.tab.patience_ms, o.tab.prepaid_output_tokens) = (500, 10);
    })
    .await;
    let (award, salt) = market.award(100).await;
    let first = market.buyer.invoice(&award).await;
    pay(&market.purse, &first).await;
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Failed);
    assert_eq!(result.error.as_deref(), Some("nobody paid in time"));
    assert!(result.due_msat <= first.amount(), "{}", result.due_msat);
    let drawn = result.usage.output_tokens;
    assert!(drawn >= 10, "all that was paid for: {drawn}");
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, result.due_msat, &[first]);
}

#[tokio::test]
async fn a_flood_of_awards_that_nobody_pays_keeps_no_paying_buyer_out() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    // A customer, by now.
    let (first, _) = market.award(20).await;
    market.buyer.live(&first, &market.purse).await;
    market.buyer.receipt(first.id()).await;
    for _ in 0..320 {
        let stranger = Keys::generate();
        let draft = paid(&market.buyer, &market.word, generate("Count", 20)).sealed(&stranger);
        let unsigned = draft
            .body
            .to_unsigned(stranger.public_key, draft.created_at);
        let event = unsigned.sign_with_keys(&stranger).unwrap();
        market.buyer.link.publish(&event).await.unwrap();
    }
    let handle = market.provider.handle.clone();
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    let status = loop {
        let status = handle.status().await.unwrap();
        if status.tally.declined == 64 {
            break status;
        }
        assert!(tokio::time::Instant::now() < deadline, "{:?}", status.tally);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(status.attempts.iter().all(|attempt| attempt.unpaid));
    assert_eq!(status.attempts.len(), 256);
    assert_eq!((status.load.running, status.load.queued), (0, 0));
    // More than is left: it has to pay again, and is served.
    let (next, _) = market.award(100).await;
    let lived = market.buyer.live(&next, &market.purse).await;
    assert_eq!(lived.result.ended, EndReason::Stop);
}

#[tokio::test]
async fn one_stranger_has_few_invoices_at_a_time() {
    let mut market = Market::open(PRICE, quick(), |o| o.tab.patience_ms = 100).await;
    for _ in 0..4 {
        let (award, _) = market.award(20).await;
        market.buyer.invoice(&award).await;
        market.buyer.declined_after_all(award.id()).await;
    }
    let (award, _) = market.award(20).await;
    let (reason, detail) = market.buyer.said_no(award.id()).await;
    assert_eq!(reason, Decline::Busy);
    assert!(detail.contains("too many invoices"), "{detail}");
}

#[tokio::test]
async fn an_invoice_that_has_run_out_is_made_anew() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    let old = market.buyer.invoice(&award).await;
    market.network.advance(Duration::from_secs(181));
    let most_msat = Msat(50_000);
    market.buyer.wish(&award, Wish::Invoice { most_msat });
    let new = market.buyer.invoice(&award).await;
    assert_ne!(old.hash(), new.hash());
    pay(&market.purse, &new).await;
    market.buyer.accepted(award.id()).await;
}

#[tokio::test]
async fn a_payment_whose_notice_is_lost_is_found() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    let invoice = market.buyer.invoice(&award).await;
    market
        .till
        .misbehave(infernet_payments::test_rail::Fault::TellNothing);
    pay(&market.purse, &invoice).await;
    market.buyer.accepted(award.id()).await;
}

#[tokio::test]
async fn a_notice_that_comes_twice_counts_once() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    let invoice = market.buyer.invoice(&award).await;
    market
        .till
        .misbehave(infernet_payments::test_rail::Fault::TellTwice);
    pay(&market.purse, &invoice).await;
    let lived = market.buyer.live(&award, &market.purse).await;
    let last = lived.claims.last().unwrap();
    assert_eq!(last.tab_paid_msat, Msat(10_000));
}

#[tokio::test]
async fn without_its_wallet_it_asks_nobody_for_money() {
    let mut market = Market::open(DEAR, quick(), |o| o.tab.prepaid_output_tokens = 8).await;
    let (first, _) = market.award(20).await;
    market.buyer.live(&first, &market.purse).await;
    market.buyer.receipt(first.id()).await;
    market.till.crash();
    let (award, _) = market.award(20).await;
    let (reason, detail) = market.buyer.said_no(award.id()).await;
    assert_eq!(reason, Decline::Busy);
    assert!(detail.contains("wallet cannot be reached"), "{detail}");
    market.till.restart();
    let (award, _) = market.award(20).await;
    market.buyer.live(&award, &market.purse).await;
}

#[tokio::test]
async fn a_wallet_may_come_later_than_the_provider() {
    let relay = Relay::start().await;
    let (_network, till, purse) = play_money();
    till.crash();
    let wallet = till.clone();
    let provider = Provider::start(&[&relay], quick(), |options| {
        options.price = PRICE;
        options.wallet = Some(Arc::new(wallet));
    })
    .await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let early = buyer
        .place(paid(&buyer, &word, generate("Count", 20)))
        .await;
    assert_eq!(buyer.said_no(early.id()).await.0, Decline::Busy);
    till.restart();
    let award = buyer
        .place(paid(&buyer, &word, generate("Count", 20)))
        .await;
    buyer.live(&award, &purse).await;
}

#[tokio::test]
async fn what_is_paid_for_goes_on_without_the_wallet() {
    let mut market = Market::open(PRICE, long(60, 40.0), |_| {}).await;
    let (award, _) = market.award(60).await;
    let first = |news: &News| matches!(news, News::Piece(_));
    let purse = market.purse.clone();
    market.buyer.live_until(&award, &purse, first).await;
    market.till.crash();
    let lived = market.buyer.live(&award, &purse).await;
    assert_eq!(lived.result.ended, EndReason::Stop);
    assert_eq!(lived.result.due_msat, Msat(6_030));
}

#[tokio::test]
async fn what_runs_dry_without_the_wallet_ends_with_the_reason() {
    let mut market = Market::open(DEAR, long(100, 50.0), |o| {
        (o.tab.patience_ms, o.tab.prepaid_output_tokens) = (1_000, 10);
        o.tab.stretch_output_tokens = 10;
    })
    .await;
    let (award, _) = market.award(100).await;
    let first = |news: &News| matches!(news, News::Piece(_));
    let purse = market.purse.clone();
    market.buyer.live_until(&award, &purse, first).await;
    market.till.crash();
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Failed);
    let error = result.error.clone().unwrap();
    // The next invoice may have been made before the wallet was gone: nobody pays that.
    let named = ["wallet", "nobody paid in time"].map(|reason| error.contains(reason));
    assert!(named.contains(&true), "{error}");
    assert!(result.usage.output_tokens >= 10);
}

#[tokio::test]
async fn a_buyer_that_counts_differently_ends_it() {
    let mut market = Market::open(PRICE, long(100, 20.0), |_| {}).await;
    let (award, _) = market.award(100).await;
    let second = |news: &News| matches!(news, News::Piece(piece) if piece.seq == 2);
    let purse = market.purse.clone();
    market.buyer.live_until(&award, &purse, second).await;
    let wrong = Totals {
        input_tokens: 3,
        output_tokens: 2,
        due_msat: Msat(1),
        tab_due_msat: Msat(1),
        tab_paid_msat: Msat(10_000),
    };
    market.buyer.acknowledge(&award, wrong);
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Failed);
    let error = result.error.clone().unwrap();
    assert!(error.contains("does not agree"), "{error}");
}

#[tokio::test]
async fn a_forged_acknowledgement_counts_for_nothing() {
    let mut market = Market::open(PRICE, long(100, 100.0), |o| {
        o.tab.patience_ms = 500;
        (
            o.tab.prepaid_output_tokens,
            o.tab.unacknowledged_output_tokens,
        ) = (16, 16);
    })
    .await;
    let (award, _) = market.award(100).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    // The provider's own word, sent back to it; and its numbers under another's signature.
    let id = award.id();
    let mut forged = 0;
    let result = loop {
        let heard = market.buyer.wait(|heard| match heard {
            Heard::Progress(about, News::Piece(_), Some(tab)) if *about == id => Some(Ok(*tab)),
            Heard::Result(result) if result.award == id => Some(Err((**result).clone())),
            _ => None,
        });
        match heard.await {
            Ok(tab) => {
                market.buyer.wish(&award, Wish::Acknowledge { tab });
                forged += 1;
            }
            Err(result) => break result,
        }
    };
    assert!(forged > 0);
    assert_eq!(
        result.error.as_deref(),
        Some("the buyer acknowledged nothing in time")
    );
    assert_eq!(
        result.usage.output_tokens, 16,
        "no more than it may be behind"
    );
}

#[tokio::test]
async fn a_silent_buyer_gets_no_more_than_it_may_be_behind() {
    let mut market = Market::open(PRICE, long(100, 100.0), |o| {
        (o.tab.patience_ms, o.tab.unacknowledged_output_tokens) = (500, 64);
    })
    .await;
    let (award, _) = market.award(100).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(result.usage.output_tokens, 64);
    assert_eq!(result.due_msat, Msat(30 + 6_400));
}

#[tokio::test]
async fn what_is_left_is_paid_back_once() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.live(&award, &market.purse).await;
    market.buyer.receipt(award.id()).await;
    let left = Msat(10_000 - 2_030);
    let before = market.purse.balance().await.unwrap();
    // Too much.
    let ask = |amount: u64| refund(amount);
    let much = market.purse.make_invoice(&ask(left.0 + 1)).await.unwrap();
    let detail = market.buyer.refund_refused(&award, &much).await;
    assert!(detail.contains("7.97 sat is left"), "{detail}");
    let good = market.purse.make_invoice(&ask(left.0)).await.unwrap();
    market.buyer.refunding(&award, &good).await;
    until_paid(&market.purse, &good).await;
    // Once more: the same answer, and nothing is paid.
    market.buyer.refunding(&award, &good).await;
    assert_eq!(
        market.purse.balance().await.unwrap(),
        Msat(before.0 + left.0)
    );
    assert_eq!(market.till.tries(&good.hash()), 1);
    let more = market.purse.make_invoice(&ask(1_000)).await.unwrap();
    let detail = market.buyer.refund_refused(&award, &more).await;
    assert!(detail.contains("0 sat is left"), "{detail}");
    let rubbish = "lnbc1rubbish".to_owned();
    market.buyer.wish(&award, Wish::Refund { invoice: rubbish });
    let detail = market.buyer.refund_refusal(award.id()).await;
    assert!(detail.contains("no good"), "{detail}");
    assert_eq!(market.earned().await.refunded_msat, left);
    assert_eq!(market.left(&market.buyer).await, 0);
    // The tab begins anew.
    let (next, _) = market.award(20).await;
    let lived = market.buyer.live(&next, &market.purse).await;
    assert_eq!(lived.invoices.len(), 1);
    let last = lived.claims.last().unwrap();
    assert_eq!(last.tab_paid_msat, Msat(10_000 + 2_030));
}

#[tokio::test]
async fn nothing_is_paid_back_while_a_job_runs_nor_to_strangers() {
    let mut market = Market::open(PRICE, long(100, 20.0), |_| {}).await;
    let (award, _) = market.award(100).await;
    let first = |news: &News| matches!(news, News::Piece(_));
    let purse = market.purse.clone();
    market.buyer.live_until(&award, &purse, first).await;
    let invoice = purse.make_invoice(&refund(1_000)).await.unwrap();
    let detail = market.buyer.refund_refused(&award, &invoice).await;
    assert!(detail.contains("running"), "{detail}");
    let mut stranger = Buyer::connect(&[&market.relay]).await;
    let detail = stranger.refund_refused(&award, &invoice).await;
    assert!(detail.contains("not on a tab"), "{detail}");
    assert!(!is_paid(&purse, &invoice).await);
}

#[tokio::test]
async fn a_refund_that_fails_stays_on_the_tab() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.live(&award, &market.purse).await;
    market.buyer.receipt(award.id()).await;
    let fails = infernet_payments::test_rail::Fault::Fail(Duration::ZERO);
    market.till.misbehave(fails);
    let invoice = market.purse.make_invoice(&refund(5_000)).await.unwrap();
    market.buyer.refunding(&award, &invoice).await;
    let detail = market.buyer.refund_refusal(award.id()).await;
    assert!(detail.contains("new invoice"), "{detail}");
    assert_eq!(market.left(&market.buyer).await, 7_970);
    assert_eq!(market.till.balance().await.unwrap(), Msat(PURSE.0 + 10_000));
    let again = market.purse.make_invoice(&refund(7_970)).await.unwrap();
    market.buyer.refunding(&award, &again).await;
    until_paid(&market.purse, &again).await;
}

#[tokio::test]
async fn what_was_paid_too_late_is_paid_back() {
    let mut market = Market::open(PRICE, quick(), |o| o.tab.patience_ms = 100).await;
    let (award, _) = market.award(20).await;
    let invoice = market.buyer.invoice(&award).await;
    market.buyer.declined_after_all(award.id()).await;
    // Once the next one is declined, the first is forgotten.
    let (next, _) = market.award(20).await;
    market.buyer.invoice(&next).await;
    market.buyer.declined_after_all(next.id()).await;
    pay(&market.purse, &invoice).await;
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    while market.left(&market.buyer).await == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is not booked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let back = market.purse.make_invoice(&refund(10_000)).await.unwrap();
    market.buyer.refunding(&award, &back).await;
    until_paid(&market.purse, &back).await;
}

#[tokio::test]
async fn an_award_that_its_buyer_has_left_is_not_served_after_a_restart() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.invoice(&award).await;
    market.buyer.wish(&award, Wish::Stop);
    until_gone(&market.provider.handle).await;
    // The next one remembers nothing of the last one's, and relays have the award.
    let (home, keys) = market.provider.stop().await;
    let till = market.till.clone();
    let again = Provider::start_in(home, keys, &[&market.relay], quick(), |options| {
        options.price = PRICE;
        options.wallet = Some(Arc::new(till));
    })
    .await;
    let draft = paid(&market.buyer, &market.word, generate("Count", 20));
    let next = market.buyer.place(draft).await;
    market.buyer.invoice(&next).await;
    let status = again.handle.status().await.unwrap();
    let attempts: Vec<_> = status.attempts.iter().map(|one| one.award).collect();
    assert_eq!(attempts, [next.id()]);
}

#[tokio::test]
async fn an_award_that_nobody_pays_leaves_no_statement() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.invoice(&award).await;
    market.buyer.wish(&award, Wish::Stop);
    until_gone(&market.provider.handle).await;
    // Closed, its ledger has all that it ever kept.
    let (home, _) = market.provider.stop().await;
    let path = home.path().join("ledger.sqlite");
    let ledger = infernet_payments::Ledger::open(&path).await.unwrap();
    let kept = ledger.signed(&award.id(), &award.provider).await.unwrap();
    assert_eq!(kept, None);
}

#[tokio::test]
async fn strangers_who_wish_for_refunds_keep_no_customer_from_its_own() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.live(&award, &market.purse).await;
    market.buyer.receipt(award.id()).await;
    let stranger = Buyer::connect(&[&market.relay]).await;
    let flood = async {
        let mut round = tokio::time::interval(Duration::from_millis(10));
        loop {
            round.tick().await;
            for _ in 0..4 {
                let rubbish = "lnbc1rubbish".to_owned();
                stranger.wish(&award, Wish::Refund { invoice: rubbish });
            }
        }
    };
    let back = market.purse.make_invoice(&refund(7_970)).await.unwrap();
    let asking = async {
        // What strangers may wish at once is used up by now.
        tokio::time::sleep(Duration::from_millis(500)).await;
        market.buyer.refunding(&award, &back).await;
    };
    tokio::select! {
        () = flood => {}
        () = asking => {}
    }
    until_paid(&market.purse, &back).await;
}

#[tokio::test]
async fn who_has_used_little_is_told_what_its_refunds_may_cost() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.live(&award, &market.purse).await;
    market.buyer.receipt(award.id()).await;
    let first = market.purse.make_invoice(&refund(1_000)).await.unwrap();
    market.buyer.refunding(&award, &first).await;
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    while market.earned().await.refunded_msat != Msat(1_000) {
        assert!(tokio::time::Instant::now() < deadline, "it is not booked");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let fails = infernet_payments::test_rail::Fault::Fail(Duration::ZERO);
    market.till.misbehave(fails);
    let second = market.purse.make_invoice(&refund(1_000)).await.unwrap();
    market.buyer.refunding(&award, &second).await;
    let detail = market.buyer.refund_refusal(award.id()).await;
    assert!(detail.contains("at most 0 sat for routing"), "{detail}");
    // Where the way is free, it is paid all the same.
    let third = market.purse.make_invoice(&refund(1_000)).await.unwrap();
    market.buyer.refunding(&award, &third).await;
    until_paid(&market.purse, &third).await;
}

fn refund(amount: u64) -> infernet_payments::rail::Ask {
    infernet_payments::rail::Ask {
        amount: Msat(amount),
        description: "what is left".to_owned(),
        expiry: Duration::from_secs(600),
    }
}

async fn until_paid(
    wallet: &infernet_payments::test_rail::Wallet,
    invoice: &infernet_payments::Invoice,
) {
    let deadline = tokio::time::Instant::now() + super::house::PATIENCE;
    while !is_paid(wallet, invoice).await {
        assert!(tokio::time::Instant::now() < deadline, "not paid");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
