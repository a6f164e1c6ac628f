//! `kill -9` under load.

use std::time::Duration;

use infernet_tests::Market;
use infernet_tests::load::{Connection, pipeline};

use super::{UNLIMITED, events, missing};

const KILLS: u64 = 4;
const EACH: u64 = 20_000;
const CLIENTS: usize = 4;
const IN_FLIGHT: usize = 64;
/// Events that are on the disk, at least, when it is killed; how many more there are is up to the machine.
const BEFORE: usize = 600;
/// Of these, the answers that may still be on their way.
const UNHEARD: usize = CLIENTS * IN_FLIGHT;
const LONG: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_every_kill() {
    let mut market = Market::open_with(UNLIMITED).unwrap();
    let all = events(10, KILLS * EACH);
    let mut accepted = Vec::new();
    for round in 0..KILLS {
        let mine = all[(round * EACH) as usize..((round + 1) * EACH) as usize].to_vec();
        let seen = watch(&market.relay.url, BEFORE).await;
        let url = market.relay.url.clone();
        let writing =
            tokio::spawn(
                async move { pipeline(&url, &mine.into(), CLIENTS, IN_FLIGHT, LONG).await },
            );
        seen.await.unwrap();
        market.relay.kill().unwrap();
        let outcome = writing.await.unwrap();
        assert!(
            outcome.accepted.len() >= BEFORE - UNHEARD,
            "{:?}",
            outcome.broken
        );
        assert!(
            !outcome.broken.is_empty(),
            "the relay was killed after the load, not under it"
        );
        assert_eq!(outcome.refusals(), 0, "{:?}", outcome.refused);
        accepted.extend(outcome.accepted);
        market.relay.restart().unwrap();
        assert_eq!(
            missing(&market.relay.url, &all, &accepted).await,
            0,
            "round {round}"
        );
    }
}

/// Ends once so many more events were fanned out.
async fn watch(url: &str, events: usize) -> tokio::task::JoinHandle<()> {
    let mut connection = Connection::open(url).await.unwrap();
    connection.request("watch", r#"{"limit":1}"#).await.unwrap();
    tokio::spawn(async move {
        for _ in 0..events {
            connection.next().await.unwrap();
        }
    })
}
