//! What a provider is for.

use infernet_engine::Fault;
use infernet_protocol::event::{Basis, Signed};
use infernet_protocol::inference::{Dtype, EndReason};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Product, Wish, Work};
use nostr::EventId;

use super::buyer::{Buyer, Draft, generate, text_of};
use super::house::{Provider, Relay, TEXT, quick, slow};

#[tokio::test]
async fn a_direct_award_is_streamed_and_delivered() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    assert_eq!(buyer.accepted(award.id()).await, 0);
    let (streamed, said) = buyer.stream(award.id(), 20).await;
    let (result, product) = buyer.result(&award).await;
    let (text, tokens) = text_of(product);
    assert_eq!((text.as_str(), said.as_str()), (TEXT, TEXT));
    assert_eq!(tokens, streamed);
    assert_eq!(
        (result.ended, result.dtype),
        (EndReason::Stop, Dtype::Scripted)
    );
    assert_eq!(
        (result.usage.input_tokens, result.usage.output_tokens),
        (3, 20)
    );
    assert_eq!(result.due_msat, Msat::ZERO);
    assert!(result.timing.first_token_ms <= result.timing.total_ms);
    let status = provider.handle.status().await.unwrap();
    assert_eq!((status.tally.accepted, status.tally.completed), (1, 1));
}

#[tokio::test]
async fn an_offer_gets_a_bid_and_the_bid_an_award() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |o| o.direct = false).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    assert!(!word.direct);
    let offer = buyer.offer(|_| {}).await;
    let bid = buyer.bid(offer.id()).await;
    assert_eq!(bid.author(), provider.handle.public_key());
    let mut draft = buyer.draft(&word, generate("Count", 100));
    draft.body.job = Some(offer.id());
    draft.body.basis = Basis::Auction {
        offer: Box::new(offer.event().clone()),
        bid: Box::new(bid.event().clone()),
    };
    let award = buyer.place(draft).await;
    buyer.accepted(award.id()).await;
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.job, offer.id());
    assert_eq!(text_of(product).0, TEXT);
}

#[tokio::test]
async fn an_offer_for_another_model_gets_no_bid() {
    let relay = Relay::start().await;
    let _provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let other = buyer
        .offer(|o| o.accepts = vec![infernet_protocol::event::Accepts::Name("other".into())])
        .await;
    let ours = buyer.offer(|_| {}).await;
    // Offers are heard in order: the second one's bid says the first has none.
    let first = buyer
        .wait(|heard| match heard {
            super::buyer::Heard::Bid(bid) => Some(bid.offer),
            _ => None,
        })
        .await;
    assert_eq!(first, ours.id());
    assert_ne!(first, other.id());
}

#[tokio::test]
async fn texts_are_embedded() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let texts = vec!["the sea".to_owned(), "the sky is high".to_owned()];
    let award = buyer
        .place(buyer.draft(&word, Work::Embedding { texts }))
        .await;
    let (result, product) = buyer.result(&award).await;
    let Product::Embedding { vectors } = product else {
        panic!("no vectors");
    };
    assert_eq!(vectors.len(), 2);
    assert_ne!(vectors[0], vectors[1]);
    assert_eq!(
        (result.usage.input_tokens, result.usage.output_tokens),
        (6, 0)
    );
    assert_eq!(result.ended, EndReason::Stop);
}

#[tokio::test]
async fn an_answer_goes_on_behind_a_prefix() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let whole = buyer.ask(&word, 100).await;
    let (_, tokens) = text_of(buyer.result(&whole).await.1);
    let mut draft = buyer.draft(&word, generate("Count for me", 100));
    draft.generate().prefix = tokens[..4].to_vec();
    let award = buyer.place(draft).await;
    let (result, product) = buyer.result(&award).await;
    let (text, rest) = text_of(product);
    assert_eq!(rest, tokens[4..]);
    assert_eq!(format!("one two three four{text}"), TEXT);
    assert_eq!(
        (result.usage.prefix_tokens, result.usage.output_tokens),
        (4, 16)
    );
}

#[tokio::test]
async fn a_failing_engine_is_a_failed_result_with_what_there_is() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    provider.engine.set_fault(Fault::FailAfter(3));
    let award = buyer.ask(&word, 100).await;
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Failed);
    assert_eq!(result.error.as_deref(), Some("the computation failed"));
    assert_eq!(text_of(product).1.len(), 3);
    provider.engine.set_fault(Fault::None);
    let next = buyer.ask(&word, 100).await;
    assert_eq!(buyer.result(&next).await.0.ended, EndReason::Stop);
}

#[tokio::test]
async fn a_buyer_stops_what_runs_and_gets_what_was_drawn() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    buyer.piece(award.id(), 1).await;
    buyer.wish(&award, Wish::Stop);
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Cancelled);
    let drawn = text_of(product).1.len();
    assert!((2..20).contains(&drawn), "{drawn}");

    let other = buyer.ask(&word, 100).await;
    buyer.piece(other.id(), 0).await;
    buyer.cancel(&other).await;
    let (result, _) = buyer.result(&other).await;
    assert_eq!(
        result.ended,
        EndReason::Cancelled,
        "a published cancel stops it too"
    );
}

#[tokio::test]
async fn a_stranger_stops_nothing() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let stranger = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 5).await;
    buyer.piece(award.id(), 0).await;
    stranger.cancel(&award).await;
    stranger.wish(&award, Wish::Stop);
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Length);
    assert_eq!(text_of(product).1.len(), 5);
}

#[tokio::test]
async fn missed_pieces_are_sent_again() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    let first = buyer.piece(award.id(), 0).await;
    let second = buyer.piece(award.id(), 1).await;
    buyer.wish(&award, Wish::Resend { from: 0 });
    assert_eq!(buyer.piece(award.id(), 0).await, first);
    assert_eq!(buyer.piece(award.id(), 1).await, second);
    buyer.wish(&award, Wish::Stop);
    buyer.result(&award).await;
}

#[tokio::test]
async fn a_speed_that_is_sold_is_kept_to() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |o| o.max_speed = Some(40.0)).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let award = buyer.ask(&word, 100).await;
    let (result, _) = buyer.result(&award).await;
    // Nineteen tokens after the first, 25 ms each.
    let took = result.timing.total_ms - result.timing.first_token_ms;
    assert!((400..1_500).contains(&took), "{took} ms");
}

#[tokio::test]
async fn an_answer_too_long_for_an_event_fails_with_the_part_that_fits() {
    let relay = Relay::start().await;
    let mut script = quick();
    script.text = vec!["word"; 9_000].join(" ");
    script.tokens_per_second = 1e6;
    script.context = 20_000;
    let provider = Provider::start(&[&relay], script, |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let mut draft = buyer.draft(&word, generate("Go on", 9_500));
    draft.body.limits.output_tokens = 9_500;
    let award = buyer.place(draft).await;
    let (result, product) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Failed);
    assert!(result.error.as_deref().unwrap().contains("does not fit"));
    let (text, tokens) = text_of(product);
    assert!(
        tokens.len() > 2_000 && text.starts_with("word word"),
        "{}",
        tokens.len()
    );
}

/// A second attempt of a job, given to the same provider.
fn second(buyer: &Buyer, draft: Draft, job: EventId, attempt: u32) -> Draft {
    let mut draft = draft.sealed(&buyer.keys);
    draft.body.job = Some(job);
    draft.body.attempt = attempt;
    draft
}

#[tokio::test]
async fn a_higher_attempt_supersedes_and_a_lower_one_is_ignored() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |o| o.slots = 2).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let first = buyer.ask(&word, 100).await;
    buyer.piece(first.id(), 0).await;
    let draft = || buyer.draft(&word, generate("Count", 2));
    let third = second(&buyer, draft(), first.id(), 3);
    let stale = second(&buyer, draft(), first.id(), 2);
    let third = buyer.place(third).await;
    buyer.accepted(third.id()).await;
    let (result, _) = buyer.result(&first).await;
    assert_eq!(result.ended, EndReason::Cancelled);
    let stale: Signed<_> = buyer.place(stale).await;
    assert_eq!(buyer.result(&third).await.0.ended, EndReason::Length);
    assert!(buyer.heard_nothing_of(stale.id()));
}
