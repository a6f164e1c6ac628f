//! Several texts in one award.

use infernet_engine::{Fault, Script};
use infernet_protocol::event::{Announcement, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::money::{Msat, PaymentKind};
use infernet_protocol::payload::{Decline, Generate, Generated, Input, Product, Wish, Work};

use super::buyer::{Buyer, Draft, generate};
use super::house::{Provider, Relay, TEXT, quick, slow};
use super::paying::{Market, PRICE, paid};

/// One text of so many tokens.
pub fn request(prompt: &str, max_tokens: u32) -> Generate {
    match generate(prompt, max_tokens) {
        Work::TextGeneration(generate) => generate,
        _ => unreachable!("it generates"),
    }
}

/// So many texts of up to 20 tokens.
pub fn shard(texts: usize) -> Work {
    let requests = (0..texts).map(|n| request(&format!("Count {n}"), 20));
    Work::Shard {
        requests: requests.collect(),
    }
}

pub fn answers_of(product: Product) -> Vec<Generated> {
    match product {
        Product::Shard { answers } => answers,
        _ => panic!("this is no shard"),
    }
}

struct Shop {
    _relay: Relay,
    provider: Provider,
    buyer: Buyer,
    word: Signed<Announcement>,
}

async fn open(script: Script) -> Shop {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], script, |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    Shop {
        _relay: relay,
        provider,
        buyer,
        word,
    }
}

impl Shop {
    fn draft(&self, requests: Vec<Generate>) -> Draft {
        let mut draft = self.buyer.draft(&self.word, Work::Shard { requests });
        draft.body.limits.output_tokens = 10_000;
        draft
    }
}

#[tokio::test]
async fn all_texts_come_in_their_order() {
    let mut shop = open(quick()).await;
    let lengths = [5, 20, 1, 30, 7];
    let requests = lengths.map(|most| request("Count for me", most)).to_vec();
    let mut draft = shop.draft(requests);
    draft.input.prove = true;
    let award = shop.buyer.place(draft).await;
    shop.buyer.accepted(award.id()).await;
    let (result, output) = shop.buyer.output(&award).await;
    assert_eq!(output.proofs.len(), 5);
    assert!(output.proofs.iter().all(|proof| !proof.0.is_empty()));
    let answers = answers_of(output.product);
    let tokens: Vec<_> = answers.iter().map(|answer| answer.tokens.len()).collect();
    assert_eq!(tokens, [5, 20, 1, 20, 7]);
    assert_eq!(answers[0].text, "one two three four five");
    assert_eq!(
        (answers[3].text.as_str(), answers[3].ended),
        (TEXT, EndReason::Stop)
    );
    assert_eq!(answers[0].ended, EndReason::Length);
    assert!(answers.iter().all(|answer| answer.input_tokens == 3));
    assert_eq!(
        (result.usage.input_tokens, result.usage.output_tokens),
        (15, 53)
    );
    assert_eq!(
        (result.ended, result.due_msat),
        (EndReason::Stop, Msat::ZERO)
    );
}

#[tokio::test]
async fn there_may_be_more_texts_than_places() {
    let mut shop = open(Script {
        capacity: 2,
        ..quick()
    })
    .await;
    let requests = (0..20).map(|n| request(&format!("Count {n}"), 8)).collect();
    let award = shop.buyer.place(shop.draft(requests)).await;
    let (result, product) = shop.buyer.result(&award).await;
    assert_eq!(result.usage.output_tokens, 160);
    assert!(
        answers_of(product)
            .iter()
            .all(|answer| answer.error.is_none())
    );
}

#[tokio::test]
async fn a_text_that_cannot_be_done_fails_alone() {
    let mut shop = open(quick()).await;
    let long = vec!["word"; 4_500].join(" ");
    let requests = vec![request("Count", 5), request(&long, 5), request("Count", 5)];
    let award = shop.buyer.place(shop.draft(requests)).await;
    let (result, product) = shop.buyer.result(&award).await;
    let answers = answers_of(product);
    let error = answers[1].error.clone().unwrap();
    assert!(error.contains("4500"), "{error}");
    assert!(answers[1].tokens.is_empty() && answers[0].error.is_none());
    assert_eq!(result.usage.output_tokens, 10);
}

#[tokio::test]
async fn what_the_engine_fails_on_altogether_has_failed() {
    let mut shop = open(quick()).await;
    shop.provider.engine.set_fault(Fault::FailAfter(3));
    let requests = vec![request("Count", 5), request("Count", 9)];
    let award = shop.buyer.place(shop.draft(requests)).await;
    let (result, product) = shop.buyer.result(&award).await;
    assert_eq!(
        (result.ended, result.usage.output_tokens),
        (EndReason::Failed, 0)
    );
    assert!(answers_of(product).is_empty());
}

#[tokio::test]
async fn one_that_is_stopped_brings_nothing() {
    let mut shop = open(slow()).await;
    let award = shop
        .buyer
        .place(shop.draft(vec![request("Count", 20); 3]))
        .await;
    shop.buyer.accepted(award.id()).await;
    // It says that it is alive while it works.
    shop.buyer.alive(award.id(), 0).await;
    shop.buyer.wish(&award, Wish::Stop);
    let (result, product) = shop.buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Cancelled);
    assert!(answers_of(product).is_empty());
}

#[tokio::test]
async fn what_no_shard_may_be_is_declined() {
    let mut shop = open(quick()).await;
    let long = vec!["word"; 4_500].join(" ");
    let all_too_long = shop.draft(vec![request(&long, 5)]);
    let award = shop.buyer.place(all_too_long).await;
    assert_eq!(shop.buyer.declined(award.id()).await, Decline::TooLong);
    let mut too_many = shop.draft(vec![request("Count", 20); 3]);
    too_many.body.limits.output_tokens = 59;
    let award = shop.buyer.place(too_many).await;
    assert_eq!(shop.buyer.declined(award.id()).await, Decline::Input);
    let prefixed = Generate {
        prefix: vec![1],
        ..request("Count", 20)
    };
    let award = shop.buyer.place(shop.draft(vec![prefixed])).await;
    assert_eq!(shop.buyer.declined(award.id()).await, Decline::Input);
}

#[tokio::test]
async fn a_tab_does_not_pay_for_one() {
    let mut market = Market::open(PRICE, quick(), |_| {}).await;
    let mut draft = paid(&market.buyer, &market.word, shard(2));
    assert_eq!(draft.body.terms, PaymentKind::Tab);
    draft.input = Input {
        work: shard(2),
        ..draft.input
    };
    let award = market.buyer.place(draft).await;
    assert_eq!(market.buyer.declined(award.id()).await, Decline::Terms);
}
