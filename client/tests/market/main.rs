//! The client against a real relay (in memory) and providers that misbehave on demand.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod batches;
mod bazaar;
mod broker;
mod command;
mod fake;
mod faults;
mod jobs;
mod paid;
mod paying;
mod proxy;
mod seller;
mod shards;
mod wallets;

use std::time::Duration;

use infernet_client::{Client, Error, Options, Request, Step, Summary};
use infernet_protocol::job::buyer::Patience;
use nostr::{Event, Filter, Kind, RelayUrl};
use nostr_relay_builder::builder::RateLimit;
use nostr_relay_builder::{LocalRelay, RelayBuilder};

use fake::{Fake, Script};

/// No test waits longer than this.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// How long a provider may be silent: longer than a busy machine is.
pub const PATIENCE: Patience = Patience {
    ack_ms: 5_000,
    silence_ms: 5_000,
    gap_ms: 60,
};

/// A relay, and providers.
pub struct Market {
    pub relay: LocalRelay,
    pub url: RelayUrl,
    pub providers: Vec<Fake>,
}

/// A relay in memory, on this port or any, that takes as many events as there are.
pub async fn relay_on(port: Option<u16>) -> LocalRelay {
    let begun = tokio::time::Instant::now();
    loop {
        let mut builder = RelayBuilder::default().rate_limit(RateLimit {
            max_reqs: 500,
            notes_per_minute: 1_000_000,
        });
        if let Some(port) = port {
            builder = builder.port(port);
        }
        let relay = LocalRelay::new(builder);
        // A port that has just been left, or taken by somebody else, is tried again.
        match relay.run().await {
            Ok(()) => return relay,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Market {
    pub async fn of(scripts: impl IntoIterator<Item = Script>) -> Self {
        let relay = relay_on(None).await;
        let url = relay.url().await;
        let mut providers = Vec::new();
        for script in scripts {
            providers.push(Fake::start(std::slice::from_ref(&url), script).await);
        }
        Self {
            relay,
            url,
            providers,
        }
    }

    pub fn options(&self) -> Options {
        let mut options = Options::new([self.url.to_string()]);
        options.patience = PATIENCE;
        options.auction_window = Duration::from_millis(1_500);
        options
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    /// What the relay has of this kind.
    pub async fn stored(&self, kind: u16) -> Vec<Event> {
        let link = &self.providers[0].link;
        let filter = Filter::new().kind(Kind::from(kind));
        link.fetch(vec![filter], DEADLINE).await.unwrap()
    }

    /// What the relay has of this kind, once there are so many.
    pub async fn eventually(&self, kind: u16, count: usize) -> Vec<Event> {
        let enough = async {
            loop {
                let events = self.stored(kind).await;
                if events.len() >= count {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(DEADLINE, enough)
            .await
            .expect("the relay never got them")
    }
}

/// A job's life: what was shown, what happened, how it ended.
pub struct Life {
    pub text: String,
    pub steps: Vec<Step>,
    pub outcome: Result<Summary, Error>,
}

impl Life {
    /// How it went well.
    pub fn summary(&self) -> &Summary {
        match &self.outcome {
            Ok(summary) => summary,
            Err(error) => panic!("{error}: {:#?}", self.steps),
        }
    }

    /// Names of the providers that were awarded.
    pub fn awarded(&self) -> Vec<&str> {
        let awarded = |step: &'_ Step| matches!(step, Step::Awarded { .. });
        self.steps
            .iter()
            .filter(|step| awarded(step))
            .filter_map(|step| match step {
                Step::Awarded { name, .. } => Some(name.as_str()),
                _ => None,
            })
            .collect()
    }
}

pub async fn live(client: &Client, request: Request) -> Life {
    let mut life = Life {
        text: String::new(),
        steps: Vec::new(),
        outcome: Err(Error::Closed),
    };
    let lived = async {
        let mut answer = match client.submit(request).await {
            Ok(answer) => answer,
            Err(error) => {
                life.outcome = Err(error);
                return;
            }
        };
        while let Some(step) = answer.step().await {
            if let Step::Text(text) = &step {
                life.text.push_str(text);
            }
            life.steps.push(step);
        }
        life.outcome = answer.finish().await;
    };
    tokio::time::timeout(DEADLINE, lived)
        .await
        .expect("the job never ended");
    life
}

pub fn ask() -> Request {
    Request::chat("tiny", "Say words")
}
