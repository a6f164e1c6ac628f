//! How a provider ends.

use infernet_engine::ScriptedEngine;
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::Status;
use infernet_protocol::inference::EndReason;
use infernet_protocol::payload::Decline;
use infernet_provider::socket::{Error as SocketError, Visitor};
use infernet_provider::{Error, Home, run};
use nostr::Keys;
use std::sync::Arc;

use super::buyer::Buyer;
use super::house::{Provider, Relay, options, quick, slow};

#[tokio::test]
async fn a_graceful_stop_finishes_what_runs_and_says_goodbye() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let key = provider.handle.public_key();
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(key).await;
    let running = buyer.ask(&word, 8).await;
    buyer.piece(running.id(), 0).await;
    provider.shutdown.stop_soon();
    buyer
        .announcement(key, |word| word.status == Status::Busy)
        .await;
    let late = buyer.ask(&word, 2).await;
    assert_eq!(buyer.declined(late.id()).await, Decline::Closing);
    assert_eq!(buyer.result(&running).await.0.ended, EndReason::Length);
    let goodbye = buyer
        .announcement(key, |word| word.status == Status::Offline)
        .await;
    let stands_s = goodbye.expires_at.as_secs() - goodbye.created_at().as_secs();
    assert!(stands_s <= 60, "it expires soon");
    assert!(goodbye.event().tags.expiration().is_some());
    provider.has_ended().await;
    assert!(provider.handle.status().await.is_none());
}

#[tokio::test]
async fn a_stop_at_once_fails_what_runs_and_waits() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], slow(), |_| {}).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(provider.handle.public_key()).await;
    let running = buyer.ask(&word, 100).await;
    buyer.piece(running.id(), 0).await;
    let waiting = buyer.ask(&word, 100).await;
    buyer.accepted(waiting.id()).await;
    provider.shutdown.stop_now();
    for award in [&running, &waiting] {
        let (result, _) = buyer.result(award).await;
        assert_eq!(result.ended, EndReason::Failed);
        assert_eq!(result.error.as_deref(), Some("the provider was stopped"));
    }
    provider.has_ended().await;
}

#[tokio::test]
async fn two_providers_cannot_share_a_home() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let options = options(&Keys::generate(), provider.home.path(), vec![relay.url()]);
    let engine = Arc::new(ScriptedEngine::new(quick()));
    let second = run(options, engine, Shutdown::new()).await;
    let Err(error @ Error::Home(_)) = second else {
        panic!("the home is taken");
    };
    assert!(
        error.to_string().contains("another provider is using"),
        "{error}"
    );
}

#[tokio::test]
async fn the_owner_asks_over_the_socket_and_stops_it() {
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let path = Home::socket(provider.home.path());
    let mut visitor = Visitor::connect(&path).await.unwrap();
    let status = visitor.status().await.unwrap();
    assert_eq!(status.status, Status::Online);
    // The scripted engine answers, embeds and adds up.
    assert_eq!(status.models.len(), 3);
    assert!(status.relays[0].connected);
    assert_eq!(
        visitor.status().await.unwrap().pid,
        std::process::id(),
        "it may ask twice"
    );
    visitor.stop(false).await.unwrap();
    provider.has_ended().await;
    let gone = Visitor::connect(&path).await;
    let Err(error @ SocketError::NotRunning { .. }) = gone else {
        panic!("nobody listens any more");
    };
    assert!(
        error.to_string().contains("no provider is running"),
        "{error}"
    );
}

#[tokio::test]
async fn rubbish_on_the_socket_disturbs_nothing() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let relay = Relay::start().await;
    let provider = Provider::start(&[&relay], quick(), |_| {}).await;
    let path = Home::socket(provider.home.path());
    let mut rude = tokio::net::UnixStream::connect(&path).await.unwrap();
    rude.write_all(b"{\"ask\":\"everything\"}\n\xff\xfe\n")
        .await
        .unwrap();
    let mut said = String::new();
    rude.read_to_string(&mut said).await.unwrap();
    assert!(said.contains("not understood"), "{said}");
    assert!(provider.handle.status().await.is_some());
}
