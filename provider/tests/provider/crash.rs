//! A process that dies in the middle, and the next one in the same home.

use infernet_engine::ScriptedEngine;
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::CancelReason;
use infernet_protocol::inference::EndReason;
use infernet_provider::run;
use nostr::Keys;
use std::sync::Arc;
use tempfile::TempDir;

use super::buyer::{Buyer, Heard};
use super::house::{Provider, Relay, options, quick, slow};

/// A provider on a runtime of its own, which can be ended like a process.
struct Mortal {
    runtime: Option<tokio::runtime::Runtime>,
    keys: Keys,
    home: TempDir,
}

impl Mortal {
    async fn start(relay: &Relay) -> Self {
        let home = tempfile::tempdir().unwrap();
        let keys = Keys::generate();
        let options = options(&keys, home.path(), vec![relay.url()]);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .worker_threads(1)
            .build()
            .unwrap();
        let engine = Arc::new(ScriptedEngine::new(slow()));
        let started = runtime.spawn(async move {
            let handle = run(options, engine, Shutdown::new()).await.unwrap();
            handle.announced().await
        });
        assert!(!started.await.unwrap().is_empty());
        Self {
            runtime: Some(runtime),
            keys,
            home,
        }
    }

    /// Ends it where it stands.
    async fn die(mut self) -> (TempDir, Keys) {
        let runtime = self.runtime.take().unwrap();
        let timeout = super::house::PATIENCE;
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(timeout))
            .await
            .unwrap();
        (self.home, self.keys)
    }
}

#[tokio::test]
async fn an_attempt_cut_off_by_a_crash_is_given_up_by_a_cancel() {
    let relay = Relay::start().await;
    let mortal = Mortal::start(&relay).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(mortal.keys.public_key).await;
    let award = buyer.ask(&word, 100).await;
    buyer.piece(award.id(), 0).await;
    let (home, keys) = mortal.die().await;
    let provider = Provider::start_in(home, keys, &[&relay], quick(), |_| {}).await;
    let cancel = buyer
        .wait(|heard| match heard {
            Heard::Cancel(cancel) => Some(cancel.clone()),
            _ => None,
        })
        .await;
    assert_eq!(cancel.author(), provider.handle.public_key());
    assert_eq!(
        (cancel.award, cancel.job),
        (Some(award.id()), award.job_id())
    );
    assert_eq!(cancel.counterparty, Some(buyer.keys.public_key));
    assert_eq!(cancel.reason, CancelReason::Restarted);
    // The relay still has the award; it is not begun again.
    let next = buyer.ask(&word, 100).await;
    assert_eq!(buyer.result(&next).await.0.ended, EndReason::Stop);
    let status = provider.handle.status().await.unwrap();
    assert_eq!(status.tally.accepted, 1);
}

#[tokio::test]
async fn a_result_that_no_relay_took_is_published_after_a_restart() {
    let mut relay = Relay::start().await;
    let mortal = Mortal::start(&relay).await;
    let mut buyer = Buyer::connect(&[&relay]).await;
    let word = buyer.online(mortal.keys.public_key).await;
    let award = buyer.ask(&word, 4).await;
    buyer.piece(award.id(), 0).await;
    relay.stop();
    // The result is made while no relay is there to take it.
    let store = mortal.home.path().join("provider.sqlite");
    super::process::until("the result is kept", || {
        let ended = std::fs::read(&store).unwrap_or_default();
        let journal = std::fs::read(store.with_extension("sqlite-wal")).unwrap_or_default();
        [ended, journal]
            .concat()
            .windows(11)
            .any(|w| w == b"output_hash")
    })
    .await;
    let (home, keys) = mortal.die().await;
    relay.start_again().await;
    let _provider = Provider::start_in(home, keys, &[&relay], quick(), |_| {}).await;
    let (result, _) = buyer.result(&award).await;
    assert_eq!(result.ended, EndReason::Length);
    assert!(
        !buyer.heard_cancel(),
        "it was delivered, so it is not given up"
    );
}
