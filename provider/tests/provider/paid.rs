//! Work that is paid for.

use infernet_engine::Script;
use infernet_protocol::event::Status;
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::{Msat, PaymentTerms, Price};
use infernet_protocol::payload::{News, Product, Wish, Work};

use super::buyer::{generate, text_of};
use super::house::{PURSE, TEXT, quick};
use super::paying::{DEAR, Market, PRICE, check_receipt, conditions, paid, pay};
use infernet_payments::rail::PaymentRail;
use infernet_payments::tab::Totals;

/// Says so many words.
pub fn long(tokens: usize, tokens_per_second: f64) -> Script {
    Script {
        text: vec!["word"; tokens - 1].join(" "),
        tokens_per_second,
        ..quick()
    }
}

#[tokio::test]
async fn a_stranger_pays_first_and_is_then_served() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let node = market.till.node();
    let expected = PaymentTerms::Tab {
        min_payment_msat: Msat(10_000),
        prepaid_output_tokens: 64,
        payee: Some(node),
    };
    assert_eq!(conditions(&market.word), expected);
    let (award, salt) = market.award(90).await;
    let buyer = &mut market.buyer;
    let invoice = buyer.invoice(&award).await;
    assert_eq!((invoice.amount(), invoice.payee()), (Msat(10_000), node));
    // It waits, and says so, and nothing of it is promised.
    buyer.alive(award.id(), 0).await;
    let status = market.provider.handle.status().await.unwrap();
    assert_eq!((status.load.running, status.load.queued), (0, 0));
    assert!(status.attempts[0].unpaid);
    assert_eq!(status.wallet.unwrap().balance_msat, Some(PURSE));
    pay(&market.purse, &invoice).await;
    buyer.accepted(award.id()).await;
    let lived = buyer.live(&award, &market.purse).await;
    let (text, tokens) = text_of(buyer.open(&award, &lived.result));
    assert_eq!((text.as_str(), tokens.len()), (TEXT, 20));
    assert!(lived.invoices.is_empty(), "it is all paid for");
    // 3 tokens of input, 20 of output.
    let due = Msat(30 + 2_000);
    assert_eq!(lived.result.due_msat, due);
    let last = lived.claims.last().unwrap();
    let totals = Totals {
        input_tokens: 3,
        output_tokens: 20,
        due_msat: due,
        tab_due_msat: due,
        tab_paid_msat: Msat(10_000),
    };
    assert_eq!(*last, totals);
    let receipt = buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, due, &[invoice]);
    assert_eq!(receipt.result, Some(lived.result.id()));
    let tab = receipt.tab.unwrap();
    assert_eq!((tab.due_msat, tab.paid_msat), (due, Msat(10_000)));
    let earned = market.earned().await;
    assert_eq!((earned.earned_msat, earned.jobs), (due, 1));
    assert_eq!(earned.models[0].name, "scripted");
    assert_eq!(market.left(&market.buyer).await, 10_000 - 2_030);
}

#[tokio::test]
async fn what_is_left_pays_for_the_next_job() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (first, _) = market.award(20).await;
    market.buyer.live(&first, &market.purse).await;
    market.buyer.receipt(first.id()).await;
    let (second, salt) = market.award(20).await;
    market.buyer.accepted(second.id()).await;
    let lived = market.buyer.live(&second, &market.purse).await;
    assert!(lived.invoices.is_empty());
    let receipt = market.buyer.receipt(second.id()).await;
    check_receipt(&receipt, &second, &salt, Msat(2_030), &[]);
    let tab = receipt.tab.unwrap();
    assert_eq!((tab.due_msat, tab.paid_msat), (Msat(4_060), Msat(10_000)));
}

#[tokio::test]
async fn who_has_paid_before_has_credit() {
    let price = Price {
        input_msat: 0,
        output_msat: 500_000_000,
    };
    let mut market = Market::open(price, quick(), |o| o.tab.credit_per_mille = 1_000).await;
    // 20 tokens at half a satoshi: all of the top-up.
    let (first, _) = market.award(20).await;
    let lived = market.buyer.live(&first, &market.purse).await;
    assert_eq!(lived.invoices.len(), 1);
    market.buyer.receipt(first.id()).await;
    assert_eq!(market.left(&market.buyer).await, 0);
    let (second, _) = market.award(20).await;
    market.buyer.accepted(second.id()).await;
    let lived = market.buyer.live(&second, &market.purse).await;
    assert!(lived.invoices.is_empty(), "it is on credit");
    market.buyer.receipt(second.id()).await;
    assert_eq!(market.left(&market.buyer).await, -10_000);
    // The credit is used up: the debt comes first.
    let (third, _) = market.award(20).await;
    let invoice = market.buyer.invoice(&third).await;
    assert_eq!(invoice.amount(), Msat(10_000));
    pay(&market.purse, &invoice).await;
    market.buyer.live(&third, &market.purse).await;
}

#[tokio::test]
async fn top_ups_come_while_the_answer_streams() {
    let mut market =
        Market::open(DEAR, long(300, 400.0), |o| o.tab.stretch_output_tokens = 32).await;
    let (award, salt) = market.award(300).await;
    let lived = market.buyer.live(&award, &market.purse).await;
    assert_eq!(lived.result.ended, EndReason::Stop);
    let due = Msat(300_000 + 30);
    assert_eq!(lived.result.due_msat, due);
    assert!(lived.invoices.len() >= 3, "{}", lived.invoices.len());
    for claim in &lived.claims {
        assert!(
            claim.tab_due_msat <= claim.tab_paid_msat,
            "a stranger has no credit: {claim:?}"
        );
    }
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, due, &lived.invoices);
    let paid: u64 = lived
        .invoices
        .iter()
        .map(|invoice| invoice.amount().0)
        .sum();
    let balance = market.till.balance().await.unwrap();
    assert_eq!(balance, Msat(PURSE.0 + paid));
}

#[tokio::test]
async fn an_answer_that_ends_where_the_money_does_needs_no_more() {
    let mut market = Market::open(DEAR, quick(), |o| o.tab.prepaid_output_tokens = 20).await;
    let (award, _) = market.award(100).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    // The next top-up is asked for, and not paid.
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Stop);
    assert_eq!(result.due_msat, Msat(20_030));
}

#[tokio::test]
async fn a_smaller_invoice_for_who_risks_less() {
    let mut market = Market::open(DEAR, quick(), |o| {
        (o.tab.prepaid_output_tokens, o.tab.top_up) = (8, Msat(40_000));
    })
    .await;
    let (award, _) = market.award(20).await;
    let large = market.buyer.invoice(&award).await;
    assert!(large.amount() > Msat(15_000), "{}", large.amount());
    let most_msat = Msat(15_000);
    market.buyer.wish(&award, Wish::Invoice { most_msat });
    let small = market.buyer.invoice(&award).await;
    assert_eq!(small.amount(), most_msat);
    pay(&market.purse, &small).await;
    market.buyer.accepted(award.id()).await;
    let next = market.buyer.live(&award, &market.purse).await;
    assert!(
        next.invoices
            .iter()
            .all(|invoice| invoice.amount() <= most_msat)
    );
    assert_eq!(next.result.due_msat, Msat(20_030));
}

#[tokio::test]
async fn a_buyer_who_pays_less_than_the_smallest_top_up_is_told() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let (award, _) = market.award(20).await;
    market.buyer.invoice(&award).await;
    let most_msat = Msat(9_999);
    market.buyer.wish(&award, Wish::Invoice { most_msat });
    let detail = market.buyer.why_declined(award.id()).await;
    assert!(detail.contains("at least 10 sat"), "{detail}");
}

#[tokio::test]
async fn embeddings_are_charged_with_their_result() {
    let mut market = Market::open(DEAR, quick(), |_| {}).await;
    let texts = vec!["the sea is wide".to_owned(), "the sky".to_owned()];
    let draft = paid(&market.buyer, &market.word, Work::Embedding { texts });
    let salt = draft.input.salt;
    let award = market.buyer.place(draft).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    let (result, product) = market.buyer.result(&award).await;
    assert!(matches!(product, Product::Embedding { vectors } if vectors.len() == 2));
    assert_eq!((result.usage.input_tokens, result.due_msat), (6, Msat(60)));
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, Msat(60), &[invoice]);
}

#[tokio::test]
async fn an_embedding_that_fails_costs_nothing() {
    let mut market = Market::open(DEAR, quick(), |_| {}).await;
    market
        .provider
        .engine
        .set_fault(infernet_engine::Fault::FailAfter(0));
    let texts = vec!["the sea is wide".to_owned()];
    let draft = paid(&market.buyer, &market.word, Work::Embedding { texts });
    let salt = draft.input.salt;
    let award = market.buyer.place(draft).await;
    let invoice = market.buyer.invoice(&award).await;
    pay(&market.purse, &invoice).await;
    let (result, _) = market.buyer.result(&award).await;
    assert_eq!(
        (result.ended, result.due_msat),
        (EndReason::Failed, Msat::ZERO)
    );
    let receipt = market.buyer.receipt(award.id()).await;
    check_receipt(&receipt, &award, &salt, Msat::ZERO, &[invoice]);
    assert_eq!(market.left(&market.buyer).await, 10_000);
}

#[tokio::test]
async fn what_was_drawn_is_charged_when_the_buyer_stops() {
    let mut market = Market::open(PRICE, long(100, 20.0), |_| {}).await;
    let (award, _) = market.award(100).await;
    let at_third = |news: &News| matches!(news, News::Piece(piece) if piece.seq == 3);
    let purse = market.purse.clone();
    let lived = market.buyer.live_until(&award, &purse, at_third).await;
    assert!(lived.is_none());
    market.buyer.wish(&award, Wish::Stop);
    let lived = market.buyer.live(&award, &purse).await;
    assert_eq!(lived.result.ended, EndReason::Cancelled);
    let drawn = lived.result.usage.output_tokens;
    assert!((4..100).contains(&drawn), "{drawn}");
    assert_eq!(lived.result.due_msat, Msat(30 + 100 * drawn));
    let receipt = market.buyer.receipt(award.id()).await;
    assert_eq!(receipt.due_msat, lived.result.due_msat);
}

#[tokio::test]
async fn free_models_are_sold_beside_priced_ones() {
    let mut market = Market::open(PRICE, quick(), |o| {
        o.prices.insert("scripted-embed".into(), Price::FREE);
    })
    .await;
    assert_eq!(market.word.terms.len(), 2);
    let texts = vec!["the sea".to_owned()];
    let free = market.buyer.draft(&market.word, Work::Embedding { texts });
    let free = market.buyer.place(free).await;
    let (result, _) = market.buyer.result(&free).await;
    assert_eq!(result.due_msat, Msat::ZERO);
    let (award, _) = market.award(10).await;
    market.buyer.live(&award, &market.purse).await;
}

#[tokio::test]
async fn an_offer_with_a_budget_gets_a_bid_that_is_paid_by_tab() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let tab = conditions(&market.word);
    let offer = market
        .buyer
        .offer(|offer| {
            (offer.max_price, offer.budget_msat) = (PRICE, Msat(1_000_000));
            offer.terms = vec![tab.kind()];
        })
        .await;
    let bid = market.buyer.bid(offer.id()).await;
    assert_eq!((bid.price, bid.terms), (PRICE, tab));
}

#[tokio::test]
async fn an_input_longer_than_the_award_pays_for_is_declined() {
    let market = Market::open(PRICE, quick(), |_| {}).await;
    let mut buyer = market.buyer;
    let mut draft = paid(&buyer, &market.word, generate("one two three four", 10));
    draft.body.limits.input_tokens = 3;
    let award = buyer.place(draft).await;
    let detail = buyer.why_declined(award.id()).await;
    assert!(detail.contains("4 tokens"), "{detail}");
}

#[tokio::test]
async fn many_jobs_of_one_buyer_share_its_tab() {
    // One buyer may hold half of the places, and all of these may wait at once.
    let mut market = Market::open(PRICE, quick(), |o| {
        (o.slots, o.queue, o.tab.patience_ms) = (8, 200, 300_000);
    })
    .await;
    let mut awards = vec![];
    for _ in 0..100 {
        awards.push(market.award(20).await.0);
    }
    let invoices = market.buyer.live_all(&awards, &market.purse).await;
    let paid = invoices.iter().map(|invoice| invoice.amount().0).sum();
    for award in &awards {
        market.buyer.receipt(award.id()).await;
    }
    let earned = market.earned().await;
    assert_eq!(earned.earned_msat, Msat(100 * 2_030));
    assert_eq!(earned.received_msat, Msat(paid));
    assert_eq!(
        market.left(&market.buyer).await,
        i64::try_from(paid).unwrap() - 203_000
    );
    let word = |word: &infernet_protocol::event::Announcement| word.status == Status::Online;
    let key = market.provider.handle.public_key();
    market.buyer.announcement(key, word).await;
}
