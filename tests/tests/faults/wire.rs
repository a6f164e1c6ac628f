//! What passes the relay, seen by a stranger.

use std::time::Duration;

use anyhow::{Context, Result};
use infernet_protocol::kinds;
use nostr::{Event, Filter, Keys, Kind};
use nostr_sdk::{Client, RelayPoolNotification};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;

/// How long anything on the wire is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a relay has of these kinds.
///
/// # Errors
/// If it does not answer.
pub async fn fetch(relay: &str, kinds: &[u16]) -> Result<Vec<Event>> {
    let client = connect(relay).await?;
    let filter = Filter::new().kinds(kinds.iter().copied().map(Kind::from));
    let events = client.fetch_events(filter, PATIENCE).await?;
    client.shutdown().await;
    Ok(events.into_iter().collect())
}

async fn connect(relay: &str) -> Result<Client> {
    let client = Client::new(Keys::generate());
    client.add_relay(relay).await?;
    client.connect().await;
    client.wait_for_connection(PATIENCE).await;
    Ok(client)
}

/// A stranger who listens.
pub struct Wire {
    _client: Client,
    news: Receiver<RelayPoolNotification>,
}

impl Wire {
    /// Listens to all that is said from now on.
    ///
    /// # Errors
    /// If the relay does not let it.
    pub async fn tap(relay: &str) -> Result<Self> {
        let client = connect(relay).await?;
        let news = client.notifications();
        let all = kinds::ALL.map(Kind::from);
        client
            .subscribe(Filter::new().kinds(all).limit(0), None)
            .await?;
        Ok(Self {
            _client: client,
            news,
        })
    }

    /// Waits until so many events of a kind have passed.
    ///
    /// # Errors
    /// If they have not in time.
    pub async fn hear(&mut self, kind: u16, times: usize) -> Result<()> {
        let hearing = async {
            let mut heard = 0;
            while heard < times {
                match self.news.recv().await? {
                    RelayPoolNotification::Event { event, .. } if event.kind.as_u16() == kind => {
                        heard += 1;
                    }
                    _ => {}
                }
            }
            Ok(())
        };
        let heard = timeout(PATIENCE, hearing).await;
        heard
            .with_context(|| format!("event {times} of kind {kind} was not on the wire in time"))?
    }
}
