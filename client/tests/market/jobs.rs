//! Jobs that go well, by every route.

use infernet_client::{Client, Error, Request, Route, Step};
use infernet_protocol::event::{Attestation, Award, Basis, Experience, JobResult, Offer, Signed};
use infernet_protocol::inference::EndReason;
use infernet_protocol::kinds;
use infernet_protocol::payload::{Decline, Work};
use nostr::{Event, ToBech32};

use crate::fake::{Conduct, Script, answer, embedding_model, text_model};
use crate::{Market, ask, live};

fn parse<B: infernet_protocol::event::Body>(events: Vec<Event>) -> Vec<Signed<B>> {
    events
        .into_iter()
        .map(|e| Signed::verify(e).unwrap())
        .collect()
}

#[tokio::test]
async fn an_answer_streams_and_is_attested() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let life = live(&client, ask()).await;
    let summary = life.outcome.unwrap();
    assert_eq!(life.text, answer());
    assert_eq!(summary.text, answer());
    assert_eq!((summary.attempts, summary.output_tokens), (1, 12));
    assert_eq!(
        (summary.provider_name.as_str(), summary.ended),
        ("ada", EndReason::Stop)
    );
    let texts = life
        .steps
        .iter()
        .filter(|s| matches!(s, Step::Text(_)))
        .count();
    assert!(texts > 3, "it did not stream: {texts} parts");

    let attestations = parse::<Attestation>(market.eventually(kinds::ATTESTATION, 1).await);
    let results = parse::<JobResult>(market.stored(kinds::RESULT).await);
    assert_eq!(attestations[0].experience, Experience::Completed);
    assert_eq!(attestations[0].result, Some(results[0].id()));
    assert_eq!(attestations[0].job, summary.job);
    assert!(attestations[0].measured.is_some());
    client.close().await;
}

/// A list of bans (NIP-51) by a followed aggregator counts more than any promise.
#[tokio::test]
async fn whom_a_followed_aggregator_bans_is_not_asked() {
    let scripts = [
        Script::new("banned", Conduct::Honest).speed(200.0),
        Script::new("ada", Conduct::Honest),
    ];
    let market = Market::of(scripts).await;
    let judge = nostr::Keys::generate();
    let banned = nostr::Tag::public_key(market.providers[0].script.keys.public_key());
    let list = nostr::EventBuilder::new(nostr::Kind::MuteList, "").tag(banned);
    let list = list.sign_with_keys(&judge).unwrap();
    market.providers[1].link.publish(&list).await.unwrap();
    let mut options = market.options();
    options.follow_bans = vec![judge.public_key()];
    let client = Client::connect(options).await.unwrap();
    assert_eq!(live(&client, ask()).await.awarded(), ["ada"]);
    let careless = market.client().await;
    assert_eq!(live(&careless, ask()).await.awarded(), ["banned"]);
}

#[tokio::test]
async fn a_second_job_ranks_by_what_the_first_one_showed() {
    let scripts = [
        Script::new("liar", Conduct::WrongHash).speed(200.0),
        Script::new("ada", Conduct::Honest),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    assert_eq!(live(&client, ask()).await.awarded(), ["liar", "ada"]);
    market.eventually(kinds::ATTESTATION, 2).await;
    let scores = || async {
        let providers = client.providers().await.unwrap();
        providers
            .iter()
            .map(|p| (p.announcement.name.clone(), p.standing.counted))
            .collect::<Vec<_>>()
    };
    assert_eq!(scores().await, [("ada".into(), 1), ("liar".into(), 1)]);
    assert_eq!(live(&client, ask()).await.awarded(), ["ada"]);
}

#[tokio::test]
async fn an_auction_goes_to_the_best_bid() {
    let scripts = [
        Script::new("slow", Conduct::Honest).speed(10.0),
        Script::new("fast", Conduct::Honest).speed(500.0),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    let life = live(&client, ask().route(Route::Auction)).await;
    assert_eq!(life.text, answer());
    assert_eq!(life.awarded(), ["fast"]);
    let offers = parse::<Offer>(market.stored(kinds::OFFER).await);
    let awards = parse::<Award>(market.stored(kinds::AWARD).await);
    assert_eq!(awards[0].job, Some(offers[0].id()));
    assert!(matches!(awards[0].basis, Basis::Auction { .. }));
    assert_eq!(life.outcome.unwrap().job, offers[0].id());
    let prompt = "Say words";
    assert!(
        !offers[0].event().content.contains(prompt),
        "the offer tells the prompt"
    );
}

#[tokio::test]
async fn a_bidder_who_takes_no_direct_awards_is_waited_for() {
    let mut script = Script::new("shy", Conduct::Honest);
    script.direct = false;
    let market = Market::of([script]).await;
    let client = market.client().await;
    let life = live(&client, ask().route(Route::Auction)).await;
    assert_eq!(life.awarded(), ["shy"]);
    assert_eq!(life.text, answer());
}

#[tokio::test]
async fn the_chosen_provider_is_asked_first_and_others_stand_in() {
    let scripts = [
        Script::new("fast", Conduct::Honest).speed(500.0),
        Script::new("bob", Conduct::Declines(Decline::Busy)),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    let to = |provider: &str, only| Route::To {
        provider: provider.into(),
        only,
    };
    let life = live(&client, ask().route(to("Bob", false))).await;
    assert_eq!(life.awarded(), ["bob", "fast"]);
    assert_eq!(life.text, answer());
    let npub = market.providers[1].key().to_bech32().unwrap();
    let life = live(&client, ask().route(to(&npub, true))).await;
    assert_eq!(life.awarded(), ["bob"]);
    assert!(life.outcome.unwrap_err().to_string().contains("busy"));
}

#[tokio::test]
async fn texts_become_vectors() {
    let mut script = Script::new("ada", Conduct::Honest);
    script.model = embedding_model();
    let market = Market::of([script]).await;
    let client = market.client().await;
    let life = live(&client, Request::embedding(None, ["one", "two"])).await;
    let vectors = life.outcome.unwrap().vectors;
    assert_eq!(vectors.len(), 2);
    assert_eq!(vectors[0].0, [0.6, 0.8]);
}

#[tokio::test]
async fn without_a_model_the_best_ranked_one_does() {
    let mut other = Script::new("bob", Conduct::Honest);
    other.model = text_model("other", 2);
    let other = other.speed(1.0);
    let market = Market::of([other, Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let prompt = infernet_protocol::inference::Prompt::Text("Say words".into());
    let life = live(&client, Request::generate(None, prompt)).await;
    assert_eq!(life.outcome.unwrap().model_name, "tiny");
}

#[tokio::test]
async fn the_answer_is_as_long_as_allowed() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let life = live(&client, ask().max_tokens(4)).await;
    let summary = life.outcome.unwrap();
    assert_eq!(
        (summary.ended, summary.output_tokens),
        (EndReason::Length, 4)
    );
    assert_eq!(life.text, "w0 w1 w2 w3 ");
}

#[tokio::test]
async fn many_jobs_run_side_by_side() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let jobs = (0..8).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { live(&client, ask()).await.text })
    });
    for job in jobs.collect::<Vec<_>>() {
        assert_eq!(job.await.unwrap(), answer());
    }
}

#[tokio::test]
async fn a_seed_travels_and_the_salt_is_fresh() {
    let scripts = [
        Script::new("dies", Conduct::Dies(3)).speed(500.0),
        Script::new("ada", Conduct::Honest),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    live(&client, ask().seed(42)).await.outcome.unwrap();
    let input = |provider: usize| market.providers[provider].seen.lock().unwrap().inputs[0].clone();
    let (first, second) = (input(0), input(1));
    assert!(first.salt != second.salt, "a salt was used twice");
    for (input, prefix) in [(first, 0), (second, 3)] {
        match input.work {
            Work::TextGeneration(generate) => {
                assert_eq!(
                    (generate.sampling.seed, generate.prefix.len()),
                    (42, prefix)
                );
            }
            _ => panic!("it was a chat"),
        }
    }
}

#[tokio::test]
async fn dropping_the_answer_stops_the_job_and_tells_the_provider() {
    let market = Market::of([Script::new("slow", Conduct::Slow)]).await;
    let client = market.client().await;
    let mut answer = client.submit(ask()).await.unwrap();
    assert!(answer.next().await.unwrap().is_some());
    drop(answer);
    market.eventually(kinds::CANCEL, 1).await;
    client.close().await;
}

#[tokio::test]
async fn a_stopped_job_says_so() {
    let market = Market::of([Script::new("slow", Conduct::Slow)]).await;
    let client: Client = market.client().await;
    let mut answer = client.submit(ask()).await.unwrap();
    assert!(answer.next().await.unwrap().is_some());
    answer.stop();
    assert_eq!(answer.finish().await.unwrap_err(), Error::Stopped);
    market.eventually(kinds::CANCEL, 1).await;
}
