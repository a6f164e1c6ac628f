//! Awards that are not taken on.

use std::sync::Arc;

use infernet_engine::ScriptedEngine;
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::{Announcement, Signed, Status};
use infernet_protocol::money::{PaymentKind, Price};
use infernet_protocol::payload::{Decline, Work};
use infernet_provider::run;
use nostr::{Keys, Timestamp};

use super::buyer::{Buyer, Draft, generate, in_seconds};
use super::house::{Provider, Relay, options, play_money, quick};

/// What a provider says to a direct award that was changed in this way.
async fn said_to(change: impl FnOnce(&mut Draft), spoil: impl FnOnce(&mut Draft)) -> Decline {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let mut draft = buyer.draft(&word, generate("Count for me", 100));
    change(&mut draft);
    let mut draft = draft.sealed(&buyer.keys);
    spoil(&mut draft);
    let award = buyer.sign(draft);
    buyer.link.publish(award.event()).await.unwrap();
    buyer.declined(award.id()).await
}

#[tokio::test]
async fn a_prompt_longer_than_the_context() {
    let change = |d: &mut Draft| d.input.work = generate(&vec!["word"; 5_000].join(" "), 10);
    assert_eq!(said_to(change, |_| {}).await, Decline::TooLong);
}

#[tokio::test]
async fn an_answer_that_cannot_fit_in_an_event() {
    let change = |d: &mut Draft| {
        d.generate().max_tokens = 100_000;
        d.body.limits.output_tokens = 100_000;
    };
    assert_eq!(said_to(change, |_| {}).await, Decline::TooLong);
}

#[tokio::test]
async fn but_not_the_most_texts_that_one_award_may_have() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    // Eight numbers each: 47 bytes of JSON.
    let texts = vec!["x".to_owned(); 256];
    let fits = buyer
        .place(buyer.draft(&word, Work::Embedding { texts }))
        .await;
    buyer.accepted(fits.id()).await;
}

#[tokio::test]
async fn an_input_that_is_not_the_one_committed_to() {
    let other = |d: &mut Draft| {
        let mut bytes = *d.input.salt.as_bytes();
        bytes[0] ^= 1;
        d.body.input_hash = infernet_protocol::seal::Digest::from_bytes(bytes);
    };
    assert_eq!(said_to(|_| {}, other).await, Decline::Input);
}

#[tokio::test]
async fn an_input_sealed_to_somebody_else() {
    let other = |d: &mut Draft| {
        let mut rng = nostr::secp256k1::rand::rngs::OsRng;
        let (ours, theirs) = (Keys::generate(), Keys::generate().public_key);
        d.body.input =
            infernet_protocol::seal::Sealed::close(b"{}", ours.secret_key(), &theirs, &mut rng)
                .unwrap();
    };
    assert_eq!(said_to(|_| {}, other).await, Decline::Input);
}

#[tokio::test]
async fn an_input_of_another_task() {
    let texts = vec!["the sea".to_owned()];
    let change = |d: &mut Draft| d.input.work = Work::Embedding { texts };
    assert_eq!(said_to(change, |_| {}).await, Decline::Input);
}

#[tokio::test]
async fn an_input_that_asks_for_more_than_the_award() {
    let change = |d: &mut Draft| d.body.limits.output_tokens = 10;
    assert_eq!(said_to(change, |_| {}).await, Decline::Input);
}

#[tokio::test]
async fn a_deadline_that_cannot_be_met_or_is_too_far() {
    let far = |d: &mut Draft| d.body.deadline = in_seconds(2 * 24 * 3_600);
    assert_eq!(said_to(far, |_| {}).await, Decline::Late);
    let over = |d: &mut Draft| {
        d.created_at = Timestamp::from_secs(d.created_at.as_secs() - 20);
        d.body.deadline = Timestamp::from_secs(d.created_at.as_secs() + 5);
    };
    assert_eq!(said_to(over, |_| {}).await, Decline::Late);
}

#[tokio::test]
async fn terms_that_it_cannot_serve() {
    let relay = Relay::start().await;
    let price = Price {
        input_msat: 1,
        output_msat: 2,
    };
    let (_network, wallet, _) = play_money();
    let provider = Provider::start(&[&relay], quick(), |o| {
        o.price = price;
        o.wallet = Some(Arc::new(wallet));
    })
    .await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let mut draft = buyer.draft(&word, generate("Count", 100));
    draft.body.terms = PaymentKind::Tab;
    let award = buyer.place(draft).await;
    assert_eq!(
        buyer.declined(award.id()).await,
        Decline::Terms,
        "the budget is none"
    );
}

#[tokio::test]
async fn a_provider_with_a_price_needs_a_wallet() {
    let relay = Relay::start().await;
    let home = tempfile::tempdir().unwrap();
    let mut options = options(&Keys::generate(), home.path(), vec![relay.url()]);
    options.price.output_msat = 1;
    let engine = Arc::new(ScriptedEngine::new(quick()));
    let refused = run(options, engine, Shutdown::new()).await;
    assert!(matches!(refused, Err(infernet_provider::Error::NoWallet)));
}

#[tokio::test]
async fn an_award_that_rests_on_an_earlier_price() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let free = buyer.online(provider.handle.public_key()).await;
    let (home, keys) = provider.stop().await;
    let dear = Price {
        input_msat: 1,
        output_msat: 1,
    };
    let (_network, wallet, _) = play_money();
    let provider = Provider::start_in(home, keys, &[&relay], quick(), |o| {
        o.price = dear;
        o.wallet = Some(Arc::new(wallet));
    })
    .await;
    let award = buyer.ask(&free, 100).await;
    assert_eq!(buyer.declined(award.id()).await, Decline::Terms);
    let status = provider.handle.status().await.unwrap();
    assert_eq!((status.tally.accepted, status.tally.declined), (0, 1));
}

/// An award that is dated so many seconds ago.
fn dated(buyer: &Buyer, word: &Signed<Announcement>, seconds_ago: u64) -> Draft {
    let mut draft = buyer.draft(word, generate("Count", 100));
    draft.created_at = Timestamp::from_secs(draft.created_at.as_secs() - seconds_ago);
    draft
}

#[tokio::test]
async fn an_award_that_was_made_while_it_was_away_is_ignored() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let (home, keys) = provider.stop().await;
    let old = buyer.place(dated(&buyer, &word, 40)).await;
    let provider = Provider::start_in(home, keys, &[&relay], quick(), |_| {}).await;
    let new = buyer.ask(&word, 100).await;
    buyer.result(&new).await;
    assert!(buyer.heard_nothing_of(old.id()));
    let status = provider.handle.status().await.unwrap();
    assert_eq!((status.tally.accepted, status.tally.declined), (1, 0));
}

#[tokio::test]
async fn a_buyer_whose_clock_is_minutes_away_is_served() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    // The first shows that the provider has heard all that the relay had stored.
    let now = buyer.ask(&word, 100).await;
    buyer.result(&now).await;
    for seconds_ago in [100, 600] {
        let mut draft = dated(&buyer, &word, seconds_ago);
        draft.body.deadline = in_seconds(20);
        let behind = buyer.place(draft).await;
        buyer.accepted(behind.id()).await;
        buyer.result(&behind).await;
    }
    let mut ahead = buyer.draft(&word, generate("Count", 100));
    ahead.created_at = in_seconds(600);
    ahead.body.deadline = in_seconds(720);
    let ahead = buyer.place(ahead).await;
    buyer.result(&ahead).await;
}

#[tokio::test]
async fn an_award_that_is_not_valid_is_declined() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    assert_eq!(word.status, Status::Online);
    let good = buyer.sign(
        buyer
            .draft(&word, generate("Count", 100))
            .sealed(&buyer.keys),
    );
    // The same tags, but a content that is another model's.
    let content = good
        .event()
        .content
        .replace("\"attempt\":1", "\"attempt\":7");
    let unsigned = nostr::UnsignedEvent::new(
        buyer.keys.public_key,
        good.created_at(),
        good.event().kind,
        good.event().tags.clone(),
        content,
    );
    let bad = unsigned.sign_with_keys(&buyer.keys).unwrap();
    buyer.link.publish(&bad).await.unwrap();
    assert_eq!(buyer.declined(bad.id).await, Decline::Input);
}
