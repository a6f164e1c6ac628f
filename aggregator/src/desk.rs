//! Where buyers are heard and answered (kind 24602), and where their orders arrive.
//!
//! Questions may be asked again at any time: what was begun is answered with how it
//! stands. Who asks too often is not answered; what is remembered of askers is bounded.

mod asks;
mod opening;
mod visitors;
mod voice;

use std::sync::Arc;

use infernet_node::clock;
use infernet_node::link::{self, Delivery, Subscription};
use infernet_protocol::batch::{Answer, Question, Reply};
use infernet_protocol::event::Talk;
use infernet_protocol::kinds;
use nostr::{Event, Filter, Kind, PublicKey, Timestamp};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::house::House;
use asks::Asks;
pub(crate) use asks::standing;
use visitors::Visitors;
pub(crate) use voice::Voice;

/// How far a talk's date may be from ours: clocks differ.
const MAX_SKEW_S: u64 = 300;

/// Questions that are answered at a time; some wait for a blob.
const MAX_AT_ONCE: usize = 64;

/// Listens, and answers until the house closes.
pub(crate) struct Desk {
    house: Arc<House>,
    ear: Subscription,
    visitors: Visitors,
    asks: Arc<Asks>,
    places: Arc<Semaphore>,
}

impl Desk {
    /// Begins to listen.
    ///
    /// # Errors
    /// A link that was shut down.
    pub fn open(house: Arc<House>) -> Result<Self, link::Error> {
        let since = Timestamp::from_secs(clock::now().as_secs().saturating_sub(MAX_SKEW_S));
        // Orders are published for those who audit; they are taken where they are said.
        let filter = Filter::new()
            .kind(Kind::from(kinds::TALK))
            .pubkey(house.public_key())
            .since(since);
        Ok(Self {
            ear: house.link.subscribe(vec![filter])?,
            visitors: Visitors::new(Instant::now()),
            asks: Arc::new(Asks::new(house.clone())),
            places: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            house,
        })
    }

    /// Answers until the link ends.
    pub async fn serve(mut self) {
        while let Some(delivery) = self.ear.next().await {
            match delivery {
                Delivery::Event(event) => self.hear(&event),
                // Who was not heard asks again.
                Delivery::Gap | Delivery::EndOfStored => {}
            }
        }
    }

    fn hear(&mut self, event: &Event) {
        let (buyer, now) = (event.pubkey, clock::now());
        let is_old = event.created_at.as_secs().abs_diff(now.as_secs()) > MAX_SKEW_S;
        if is_old || buyer == self.house.public_key() {
            return;
        }
        let Ok(talk) = Talk::parse(event) else { return };
        if talk.reader != self.house.public_key() || !self.visitors.may_ask(&buyer, Instant::now())
        {
            return;
        }
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            tracing::warn!("too many questions at once: some are not answered");
            return;
        };
        let Some(question) = self.house.voice.hear(&buyer, &talk.content) else {
            tracing::debug!(%buyer, "a talk that cannot be read");
            return;
        };
        let (asks, voice) = (self.asks.clone(), self.house.voice.clone());
        let closing = self.house.closing.clone();
        self.house.tasks.spawn(async move {
            let (number, order) = (question.number, question.order);
            let reply = tokio::select! {
                reply = answer(&asks, buyer, question) => reply,
                () = closing.cancelled() => return,
            };
            drop(place);
            let Some((order, reply)) = reply.map(|(taken, reply)| (taken.or(order), reply)) else {
                return;
            };
            let order = match &reply {
                Reply::Quoted { .. } => None,
                _ => order,
            };
            let number = Some(number);
            voice.say(
                &buyer,
                &Answer {
                    number,
                    order,
                    reply,
                },
            );
        });
    }
}

/// Answers one question; nothing if there is nothing to say yet.
async fn answer(
    asks: &Asks,
    buyer: PublicKey,
    question: Question,
) -> Option<(Option<nostr::EventId>, Reply)> {
    match asks.answer(buyer, question).await {
        Ok(said) => said,
        Err(error) => {
            tracing::error!(%buyer, %error, "a question cannot be answered");
            let reason = "something is wrong here; ask again later".to_owned();
            Some((None, Reply::Refused { reason }))
        }
    }
}
