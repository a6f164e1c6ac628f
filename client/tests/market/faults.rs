//! Jobs that meet trouble: what each fault leads to.

use std::time::{Duration, Instant};

use infernet_client::{Client, Error, Request, Route, Step};
use infernet_node::clock;
use infernet_protocol::event::{
    Attestation, Award, Basis, Cancel, CancelReason, Experience, Signed, Status,
};
use infernet_protocol::job::buyer::Failure;
use infernet_protocol::kinds;
use infernet_protocol::money::Price;
use infernet_protocol::payload::Decline;

use crate::fake::{Conduct, Fake, Script, answer, text_model};
use crate::proxy::Proxy;
use crate::{DEADLINE, Market, ask, live, relay_on};

/// A provider of this conduct is asked first, an honest one stands in: the text is the same as from one provider,
/// nothing is shown twice, and the first one is attested to be as it was.
async fn is_replaced(conduct: Conduct, experience: Option<Experience>) {
    let scripts = [
        Script::new("first", conduct).speed(500.0),
        Script::new("second", Conduct::Honest),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    let life = live(&client, ask()).await;
    assert_eq!(life.awarded(), ["first", "second"], "{conduct:?}");
    assert_eq!(life.text, answer(), "{conduct:?}");
    let summary = life.outcome.unwrap();
    assert_eq!(
        (summary.attempts, summary.provider_name.as_str()),
        (2, "second")
    );
    let expected = usize::from(experience.is_some()) + 1;
    let attestations = market.eventually(kinds::ATTESTATION, expected).await;
    let about_first: Vec<_> = attestations
        .into_iter()
        .map(|event| Signed::<Attestation>::verify(event).unwrap())
        .filter(|attestation| attestation.provider == market.providers[0].key())
        .map(|attestation| attestation.experience)
        .collect();
    assert_eq!(
        about_first,
        experience.into_iter().collect::<Vec<_>>(),
        "{conduct:?}"
    );
}

#[tokio::test]
async fn one_who_is_mute_is_replaced() {
    is_replaced(Conduct::Mute, Some(Experience::Silent)).await;
}

#[tokio::test]
async fn one_who_declines_is_replaced_and_not_blamed() {
    is_replaced(Conduct::Declines(Decline::Busy), None).await;
}

#[tokio::test]
async fn one_who_dies_is_replaced_and_the_answer_goes_on() {
    is_replaced(Conduct::Dies(5), Some(Experience::Silent)).await;
}

#[tokio::test]
async fn one_who_dies_at_the_last_token_is_replaced() {
    is_replaced(Conduct::Dies(12), Some(Experience::Silent)).await;
}

#[tokio::test]
async fn one_who_gives_up_is_replaced() {
    is_replaced(Conduct::GivesUp(4), Some(Experience::Failed)).await;
}

#[tokio::test]
async fn one_who_fails_is_replaced() {
    is_replaced(Conduct::Fails(4), Some(Experience::Failed)).await;
}

#[tokio::test]
async fn a_wrong_hash_is_invalid() {
    is_replaced(Conduct::WrongHash, Some(Experience::Invalid)).await;
}

#[tokio::test]
async fn a_wrong_running_hash_is_invalid() {
    is_replaced(Conduct::WrongDigest, Some(Experience::Invalid)).await;
}

#[tokio::test]
async fn another_model_is_invalid() {
    is_replaced(Conduct::AnotherModel, Some(Experience::Invalid)).await;
}

/// A provider of this conduct brings the whole answer, once and in order.
async fn is_no_trouble(conduct: Conduct) -> Market {
    let market = Market::of([Script::new("only", conduct)]).await;
    let client = market.client().await;
    let life = live(&client, ask()).await;
    assert_eq!(life.text, answer(), "{conduct:?}");
    assert_eq!(life.outcome.unwrap().attempts, 1);
    market
}

#[tokio::test]
async fn pieces_out_of_order_are_put_in_order() {
    is_no_trouble(Conduct::Shuffled).await;
}

#[tokio::test]
async fn missing_pieces_are_asked_for_again() {
    let market = is_no_trouble(Conduct::Lossy).await;
    assert!(market.providers[0].seen.lock().unwrap().resends > 0);
}

#[tokio::test]
async fn without_pieces_the_result_brings_everything() {
    is_no_trouble(Conduct::ResultOnly).await;
}

#[tokio::test]
async fn what_comes_twice_is_shown_once() {
    is_no_trouble(Conduct::Stutters).await;
}

#[tokio::test]
async fn what_comes_from_somebody_else_is_dropped() {
    is_no_trouble(Conduct::Impersonated).await;
}

#[tokio::test]
async fn a_bid_after_the_award_changes_nothing() {
    let scripts = [
        Script::new("prompt", Conduct::Slow).speed(10.0),
        Script::new("late", Conduct::BidsLate(2_500)).speed(500.0),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    let life = live(&client, ask().route(Route::Auction)).await;
    assert_eq!(life.awarded(), ["prompt"]);
    assert_eq!(life.text, answer());
    assert!(
        market.providers[1].seen.lock().unwrap().bid,
        "the late bid never came"
    );
    assert!(market.providers[1].seen.lock().unwrap().awards.is_empty());
}

#[tokio::test]
async fn after_an_auction_an_announcement_stands_in_for_the_same_job() {
    let scripts = [
        Script::new("bidder", Conduct::Dies(5)).speed(500.0),
        Script::new("late", Conduct::BidsLate(60_000)),
    ];
    let market = Market::of(scripts).await;
    let client = market.client().await;
    let life = live(&client, ask().route(Route::Auction)).await;
    assert_eq!(life.awarded(), ["bidder", "late"]);
    assert_eq!(life.text, answer());
    let awards = market.stored(kinds::AWARD).await;
    let awards: Vec<_> = awards
        .into_iter()
        .map(|e| Signed::<Award>::verify(e).unwrap())
        .collect();
    let second = awards.iter().find(|a| a.attempt == 2).unwrap();
    assert!(matches!(second.basis, Basis::Direct { .. }));
    assert_eq!(second.job_id(), life.outcome.unwrap().job);
}

#[tokio::test]
async fn another_manifest_of_the_same_name_does_not_go_on_behind_shown_tokens() {
    let mut other = Script::new("other", Conduct::Honest);
    other.model = text_model("tiny", 2);
    let market = Market::of([Script::new("first", Conduct::Dies(5)).speed(500.0), other]).await;
    let client = market.client().await;
    let life = live(&client, ask()).await;
    assert_eq!(life.awarded(), ["first"]);
    assert_eq!(
        life.outcome.unwrap_err(),
        Error::Failed(Failure::NobodyLeft)
    );
    assert!(market.providers[1].seen.lock().unwrap().awards.is_empty());
}

#[tokio::test]
async fn a_model_that_nobody_has_is_answered_with_what_there_is() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    for route in [Route::Direct, Route::Auction] {
        let began = Instant::now();
        let life = live(&client, Request::chat("gpt-9", "Hello").route(route)).await;
        let error = life.outcome.unwrap_err();
        assert!(matches!(&error, Error::NoSuchModel { on_sale, .. } if on_sale == &["tiny"]));
        assert_eq!(
            error.to_string(),
            "nobody sells gpt-9; on sale for text-generation: tiny"
        );
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it was waited for"
        );
    }
    // An offer that led to nothing is withdrawn.
    let cancel =
        Signed::<Cancel>::verify(market.eventually(kinds::CANCEL, 1).await.remove(0)).unwrap();
    assert_eq!(
        (cancel.award, cancel.reason),
        (None, CancelReason::NoProvider)
    );
}

#[tokio::test]
async fn an_empty_market_says_so() {
    let market = Market::of([]).await;
    let client = market.client().await;
    let error = live(&client, ask()).await.outcome.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("no text-generation model is on sale"),
        "{error}"
    );
}

#[tokio::test]
async fn a_price_that_cannot_be_paid_is_named() {
    let mut dear = Script::new("dear", Conduct::Honest);
    dear.model.price = Price {
        input_msat: 100,
        output_msat: 400,
    };
    let market = Market::of([dear]).await;
    let client = market.client().await;
    let error = live(&client, ask()).await.outcome.unwrap_err();
    assert!(matches!(error, Error::NotFree { cheapest, .. } if cheapest.output_msat == 400));
}

#[tokio::test]
async fn a_provider_that_is_not_there_or_does_not_sell_it_is_named() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let to = |provider: &str| Route::To {
        provider: provider.into(),
        only: false,
    };
    let error = live(&client, ask().route(to("bob")))
        .await
        .outcome
        .unwrap_err();
    assert!(
        error.to_string().contains("\"bob\"") && error.to_string().contains("ada"),
        "{error}"
    );
    let request = Request::chat("gpt-9", "Hello").route(to("ada"));
    let error = live(&client, request).await.outcome.unwrap_err();
    assert_eq!(error.to_string(), "ada does not sell gpt-9; it sells: tiny");
}

#[tokio::test]
async fn an_input_over_the_bound_is_refused_before_anything_is_published() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let most = infernet_protocol::bounds::MAX_BLOB_PAYLOAD_BYTES;
    let request = Request::chat("tiny", "x".repeat(most)).route(Route::Auction);
    let error = live(&client, request).await.outcome.unwrap_err();
    assert!(matches!(error, Error::TooLarge { bytes, .. } if bytes > most));
    assert!(market.stored(kinds::OFFER).await.is_empty());
    assert!(market.stored(kinds::AWARD).await.is_empty());
}

#[tokio::test]
async fn an_input_that_needs_a_blob_server_says_so() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let life = live(&client, Request::chat("tiny", "x".repeat(41_000))).await;
    let said = life.steps.iter().find_map(|step| match step {
        Step::Failed { how, .. } => Some(how.clone()),
        _ => None,
    });
    let said = said.unwrap();
    assert!(said.contains("no blob server took it"), "{said}");
    assert!(market.stored(kinds::AWARD).await.is_empty());
}

#[tokio::test]
async fn the_largest_input_reaches_the_provider() {
    let market = Market::of([Script::new("ada", Conduct::Honest)]).await;
    let client = market.client().await;
    let life = live(&client, Request::chat("tiny", "x".repeat(40_000))).await;
    assert_eq!(life.text, answer());
}

#[tokio::test]
async fn the_deadline_ends_the_job() {
    let market = Market::of([Script::new("slow", Conduct::Slow)]).await;
    let client = market.client().await;
    let life = live(&client, ask().deadline(Duration::from_secs(1))).await;
    assert_eq!(life.outcome.unwrap_err(), Error::Failed(Failure::Deadline));
    assert!(!life.text.is_empty() && life.text != answer());
    let cancel =
        Signed::<Cancel>::verify(market.eventually(kinds::CANCEL, 1).await.remove(0)).unwrap();
    assert_eq!(cancel.reason, CancelReason::Deadline);
}

#[tokio::test]
async fn no_relay_is_an_error_that_names_it() {
    let mut options = infernet_client::Options::new(["ws://127.0.0.1:1"]);
    options.connect_timeout = Duration::from_millis(300);
    let error = Client::connect(options).await.unwrap_err();
    assert!(error.to_string().contains("ws://127.0.0.1:1"), "{error}");
    let error = Client::connect(infernet_client::Options::new(["here"]))
        .await
        .unwrap_err();
    assert_eq!(error, Error::RelayAddress("here".into()));
}

#[tokio::test]
async fn a_relay_that_stops_and_comes_back_does_not_end_the_job() {
    let relay = relay_on(None).await;
    let url = relay.url().await;
    let port = nostr::Url::parse(url.as_str()).unwrap().port();
    let fake = Fake::start(
        std::slice::from_ref(&url),
        Script::new("slow", Conduct::Slow),
    )
    .await;
    let mut options = infernet_client::Options::new([url.to_string()]);
    // The relay is away for longer than a provider may be silent.
    options.patience.silence_ms = 3_000;
    let client = Client::connect(options).await.unwrap();
    let mut answer_ = client.submit(ask()).await.unwrap();
    let lived = async {
        let mut text = answer_.next().await.unwrap().unwrap();
        relay.shutdown();
        while !matches!(answer_.step().await.unwrap(), Step::Adrift) {}
        tokio::time::sleep(Duration::from_millis(3_500)).await;
        let _relay = relay_on(port).await;
        while let Some(more) = answer_.next().await.unwrap() {
            text.push_str(&more);
        }
        answer_.finish().await.unwrap()
    };
    let summary = tokio::time::timeout(DEADLINE, lived).await.unwrap();
    assert_eq!(summary.text, answer());
    assert_eq!(summary.attempts, 1);
    assert_eq!(fake.seen.lock().unwrap().awards.len(), 1);
}

#[tokio::test]
async fn one_relay_of_two_that_stops_is_no_trouble() {
    let (first, second) = (relay_on(None).await, relay_on(None).await);
    let urls = [first.url().await, second.url().await];
    let _fake = Fake::start(&urls, Script::new("slow", Conduct::Slow)).await;
    let options = infernet_client::Options::new(urls.map(|url| url.to_string()));
    let client = Client::connect(options).await.unwrap();
    let mut answer_ = client.submit(ask()).await.unwrap();
    let lived = async {
        answer_.next().await.unwrap().unwrap();
        first.shutdown();
        answer_.finish().await.unwrap()
    };
    let summary = tokio::time::timeout(DEADLINE, lived).await.unwrap();
    assert_eq!((summary.text, summary.attempts), (answer(), 1));
}

#[tokio::test]
async fn a_failover_rests_on_the_newest_announcement() {
    let mut second = Script::new("second", Conduct::Honest);
    second.stands_s = 3;
    let first = Script::new("first", Conduct::Dies(3)).speed(500.0);
    let market = Market::of([first, second]).await;
    let client = market.client().await;
    let answer_coming = client.submit(ask()).await.unwrap();
    // The first one is dead, and the second one's word from the beginning is about to run out. It renews it: in a
    // later second, as relays keep only one of a second.
    let begun = clock::now();
    while clock::now() <= begun {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    market.providers[1].announce_for(Status::Online, 90).await;
    let summary = tokio::time::timeout(DEADLINE, answer_coming.finish()).await;
    assert_eq!(summary.unwrap().unwrap().text, answer());
    let newest = &market.stored(kinds::ANNOUNCEMENT).await;
    let newest = newest
        .iter()
        .find(|a| a.pubkey == market.providers[1].key());
    let award = market.providers[1].seen.lock().unwrap().awards[0].clone();
    assert_eq!(award.basis.word().id, newest.unwrap().id);
}

#[tokio::test]
async fn an_auctions_late_failover_rests_on_an_announcement() {
    let first = Script::new("first", Conduct::Dies(3)).speed(500.0);
    let mut second = Script::new("second", Conduct::Honest);
    second.bid_stands_s = 2;
    let market = Market::of([first, second]).await;
    let client = market.client().await;
    let life = live(&client, ask().route(Route::Auction)).await;
    assert_eq!(life.awarded(), ["first", "second"]);
    assert_eq!(life.text, answer());
    let award = market.providers[1].seen.lock().unwrap().awards[0].clone();
    assert!(
        matches!(award.basis, Basis::Direct { .. }),
        "its bid had run out"
    );
}

#[tokio::test]
async fn a_provider_whose_clock_is_behind_is_heard() {
    let mut script = Script::new("late", Conduct::Honest);
    script.behind_s = 75;
    script.bid_stands_s = 120;
    let market = Market::of([script]).await;
    let client = market.client().await;
    for route in [Route::Direct, Route::Auction] {
        let life = live(&client, ask().route(route.clone())).await;
        assert_eq!(life.text, answer(), "{route:?}: {:?}", life.outcome);
        // What is not stored was heard too: nobody had to look the result up.
        let accepted = |step: &Step| matches!(step, Step::Accepted { .. });
        assert!(life.steps.iter().any(accepted), "{route:?}");
        let bid = life
            .steps
            .iter()
            .any(|step| matches!(step, Step::Bid { .. }));
        assert_eq!(bid, route == Route::Auction);
    }
}

#[tokio::test]
async fn a_relay_that_hangs_is_not_the_providers_silence() {
    let market = Market::of([Script::new("only", Conduct::Slow)]).await;
    let proxy = Proxy::to(&market.url).await;
    let mut options = market.options();
    options.relays = vec![proxy.url()];
    options.patience.silence_ms = 4_000;
    let client = Client::connect(options).await.unwrap();
    let mut answer_coming = client.submit(ask()).await.unwrap();
    answer_coming.next().await.unwrap();
    proxy.hold(true);
    let adrift = async {
        while let Some(step) = answer_coming.step().await {
            if step == Step::Adrift {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, adrift).await.unwrap();
    proxy.hold(false);
    let summary = tokio::time::timeout(DEADLINE, answer_coming.finish()).await;
    let summary = summary.unwrap().unwrap();
    assert_eq!((summary.text, summary.attempts), (answer(), 1));
}
