//! A NIP-47 client that can also misbehave.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::link::{Delivery, Link, Options, Subscription};
use infernet_wallet::nip47::{
    Cipher, ConnectionString, Envelope, INFO, NOTIFICATION, NOTIFICATION_LEGACY, RESPONSE, Refusal,
    Request,
};
use nostr::{Event, EventId, Filter, Kind};
use serde_json::{Value, json};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one connection.
#[derive(Clone)]
pub struct Client {
    pub string: Arc<ConnectionString>,
    pub link: Link,
    pub cipher: Cipher,
}

impl Client {
    pub async fn new(string: &ConnectionString) -> Self {
        let mut options = Options::new(string.relays.clone(), string.client.clone());
        options.retry_first = Duration::from_millis(100);
        options.retry_most = Duration::from_millis(200);
        let link = Link::connect(options).await.expect("the wallet's relay");
        Self {
            string: Arc::new(string.clone()),
            link,
            cipher: Cipher::Nip44,
        }
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&self, method: &str, params: Value) -> Result<Value, Refusal> {
        let request = self.request(method, params);
        self.ask_with(&request).await.expect("an answer")
    }

    /// The balance in msat.
    pub async fn balance(&self) -> u64 {
        let told = self.ask("get_balance", json!({})).await.expect("a balance");
        told["balance"].as_u64().expect("a number")
    }

    /// Waits for a balance: a channel's two sides agree on it a moment after a payment.
    pub async fn wait_for_balance(&self, msat: u64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let balance = self.balance().await;
            if balance == msat {
                return;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "the balance is {balance}, not {msat}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A request as an event, not sent yet.
    pub fn request(&self, method: &str, params: Value) -> Event {
        let request = json!(Request {
            method: method.to_owned(),
            params
        });
        self.sealed(&request.to_string())
    }

    /// Any text as an event, not sent yet.
    pub fn sealed(&self, text: &str) -> Event {
        self.envelope().request(text, None).expect("encrypted")
    }

    pub fn envelope(&self) -> Envelope<'_> {
        Envelope {
            from: &self.string.client,
            to: self.string.service,
            cipher: self.cipher,
        }
    }

    /// Sends an event, and waits for the answer to it.
    pub async fn ask_with(&self, request: &Event) -> Option<Result<Value, Refusal>> {
        let mut answers = self.answers(request.id);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        self.link
            .publish_until(request, deadline)
            .await
            .expect("the relay takes it");
        timeout(PATIENCE, self.next_answer(&mut answers))
            .await
            .ok()
            .flatten()
    }

    /// Sends an event, and answers what comes within a time; nothing if nothing does.
    pub async fn ask_within(
        &self,
        request: &Event,
        patience: Duration,
    ) -> Option<Result<Value, Refusal>> {
        let mut answers = self.answers(request.id);
        let asked = async {
            let deadline = tokio::time::Instant::now() + patience;
            let _ = self.link.publish_until(request, deadline).await;
            self.next_answer(&mut answers).await
        };
        timeout(patience, asked).await.ok().flatten()
    }

    fn answers(&self, request: EventId) -> Subscription {
        let filter = Filter::new()
            .kind(RESPONSE)
            .author(self.string.service)
            .event(request);
        self.link.subscribe(vec![filter]).expect("a subscription")
    }

    async fn next_answer(&self, answers: &mut Subscription) -> Option<Result<Value, Refusal>> {
        loop {
            if let Delivery::Event(event) = answers.next().await? {
                let text = self.open(&event)?;
                let answer: Value = serde_json::from_str(&text).expect("JSON");
                return Some(match &answer["error"] {
                    Value::Null => Ok(answer["result"].clone()),
                    error => {
                        Err(serde_json::from_value(error.clone()).expect("an error of NIP-47"))
                    }
                });
            }
        }
    }

    pub fn open(&self, event: &Event) -> Option<String> {
        let cipher = match event.kind {
            kind if kind == NOTIFICATION_LEGACY => Cipher::Nip04,
            kind if kind == NOTIFICATION => Cipher::Nip44,
            _ => self.cipher,
        };
        cipher.open(&self.string.client, &self.string.service, &event.content)
    }

    /// What the wallet says about this connection.
    pub async fn info(&self) -> Event {
        let filter = Filter::new().kind(INFO).author(self.string.service);
        let mut found = self.link.subscribe(vec![filter]).expect("a subscription");
        let first = async {
            loop {
                if let Some(Delivery::Event(event)) = found.next().await {
                    return *event;
                }
            }
        };
        timeout(PATIENCE, first).await.expect("an info event")
    }

    /// Listens to what the wallet tells unasked.
    pub fn notifications(&self) -> Notifications {
        let filter = Filter::new()
            .kinds([NOTIFICATION, NOTIFICATION_LEGACY])
            .author(self.string.service)
            .pubkey(self.string.client.public_key());
        let heard = self.link.subscribe(vec![filter]).expect("a subscription");
        Notifications {
            client: self.clone(),
            heard,
            last: None,
        }
    }
}

pub struct Notifications {
    client: Client,
    heard: Subscription,
    /// What kind of event the last one was.
    pub last: Option<Kind>,
}

impl Notifications {
    /// The next one: its type, and what it tells.
    pub async fn next(&mut self) -> (String, Value) {
        let next = async {
            loop {
                match self.heard.next().await.expect("the link") {
                    Delivery::Event(event) => {
                        self.last = Some(event.kind);
                        return self.client.open(&event).expect("readable");
                    }
                    _ => continue,
                }
            }
        };
        let text = timeout(PATIENCE, next).await.expect("a notification");
        let told: Value = serde_json::from_str(&text).expect("JSON");
        (
            told["notification_type"]
                .as_str()
                .expect("a type")
                .to_owned(),
            told["notification"].clone(),
        )
    }
}
