//! What is told to others of providers: ranks (NIP-85) and bans (NIP-51), as
//! `nips/reputation.md` has them.
//!
//! Ranks are made of our own attestations as relays have them, and of nothing else, so
//! that others can make them again; only `uptime` is our word alone. They are signed by
//! a service key, which is derived from the aggregator's own: NIP-85 wants one for each
//! way to rank, and so it needs no file of its own.

mod ban_list;
mod presence;
mod rank;
mod words;

use std::collections::HashSet;
use std::time::Duration;

use infernet_client::Client;
use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link};
use infernet_protocol::event::Signed;
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, SecretKey, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::time::{MissedTickBehavior, interval};

use crate::store::{self, Store};
use presence::Presence;
use rank::Rank;

/// How often it is looked who is there, and whether somebody was banned.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// After so many looks, ranks are made anew.
const LOOKS_TO_A_RANKING: u64 = 10;

/// What was said is said again after this long: a relay may have lost it.
const SAY_AGAIN_S: u64 = 24 * 3_600;

/// Ranks that are published at a time; the next ones follow at the next ranking.
const MAX_AT_ONCE: usize = 200;

/// Why ranks cannot be made or published now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The relays cannot be had.
    #[error(transparent)]
    Link(#[from] link::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The ranks and bans of one aggregator. Clones are cheap and speak of the same.
#[derive(Debug, Clone)]
pub struct Ranks {
    own: Keys,
    service: Keys,
    link: Link,
    store: Store,
}

impl Ranks {
    /// Of the aggregator with these keys.
    pub fn new(own: Keys, link: Link, store: Store) -> Self {
        Self {
            service: service_key(&own),
            own,
            link,
            store,
        }
    }

    /// Gathers attestations, watches who is on sale, and publishes; does not end.
    pub async fn run(&self, client: &Client) {
        tokio::select! {
            () = self.gather() => {}
            () = self.look(client) => {}
        }
    }

    /// Keeps the attestations that relays have, and each new one.
    async fn gather(&self) {
        let live = words::live(&self.own.public_key());
        let mut live = match self.link.subscribe(vec![live]) {
            Ok(live) => live,
            Err(error) => {
                tracing::error!(%error, "ranks will not change: no attestations are heard");
                return std::future::pending().await;
            }
        };
        while let Some(delivery) = live.next().await {
            let kept = match delivery {
                Delivery::Event(event) => self.keep(*event).await,
                // A relay has come: it may have more than it answers at once.
                Delivery::EndOfStored | Delivery::Gap => self.catch_up().await,
            };
            if let Err(error) = kept {
                tracing::warn!(%error, "attestations may be missing in ranks for now");
            }
        }
        // The link was shut down: the aggregator is ending.
        std::future::pending().await
    }

    async fn look(&self, client: &Client) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for looks in 0_u64.. {
            ticks.tick().await;
            let on_sale = client.on_sale();
            let there = on_sale
                .iter()
                .map(|provider| provider.announcement.author());
            let seen = self.seen(there, LOOK_EVERY, clock::now()).await;
            let banned = self.publish_bans(clock::now()).await;
            let ranked = match looks % LOOKS_TO_A_RANKING {
                1 => self.publish(clock::now()).await.map(drop),
                _ => Ok(()),
            };
            for error in [seen, banned.map(drop), ranked]
                .into_iter()
                .filter_map(Result::err)
            {
                tracing::warn!(%error, "ranks or bans cannot be told now");
            }
        }
    }

    /// Notes who was there for the last while.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn seen(
        &self,
        there: impl IntoIterator<Item = PublicKey>,
        since: Duration,
        now: Timestamp,
    ) -> Result<(), Error> {
        let there: HashSet<PublicKey> = there.into_iter().collect();
        self.presence().note(&there, since, now).await
    }

    /// Publishes each rank that has changed or was not said for a day. Answers how many.
    ///
    /// # Errors
    /// [`Error::Store`], or what the relays say.
    pub async fn publish(&self, now: Timestamp) -> Result<usize, Error> {
        let mut published = 0;
        for provider in words::providers(self.store.pool()).await? {
            if published >= MAX_AT_ONCE {
                break;
            }
            let rank = self.rank(&provider, now).await?;
            if !self.is_due(provider.as_bytes(), &rank.gist(), now).await? {
                continue;
            }
            let event = rank.event(&provider);
            self.say(event, &self.service, provider.as_bytes(), &rank.gist(), now)
                .await?;
            published += 1;
        }
        Ok(published)
    }

    /// What is made of a provider.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn rank(&self, provider: &PublicKey, now: Timestamp) -> Result<Rank, Error> {
        let attestations = words::about(self.store.pool(), provider).await?;
        let uptime = self.presence().uptime(provider, now).await?;
        Ok(Rank::of(&attestations, &self.own.public_key(), uptime, now))
    }

    /// Publishes the list of bans if it has changed or was not said for a day; answers
    /// whether it was.
    ///
    /// # Errors
    /// [`Error::Store`], or what the relays say.
    pub async fn publish_bans(&self, now: Timestamp) -> Result<bool, Error> {
        let bans = self.store.bans().await?;
        let gist = ban_list::gist(&bans);
        if !self.is_due(&ban_list::ABOUT, &gist, now).await? {
            return Ok(false);
        }
        // Nothing to say, and nothing ever said.
        if bans.is_empty() && self.told(&ban_list::ABOUT).await?.is_none() {
            return Ok(false);
        }
        let event = ban_list::event(&bans);
        self.say(event, &self.own, &ban_list::ABOUT, &gist, now)
            .await?;
        Ok(true)
    }

    async fn say(
        &self,
        event: EventBuilder,
        keys: &Keys,
        about: &[u8; 32],
        gist: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        // Later than what it replaces, also if both are of one second.
        let last = self.told(about).await?.map_or(0, |(_, at)| at.as_secs());
        let at = Timestamp::from_secs(now.as_secs().max(last + 1));
        let signed = event.custom_created_at(at).sign_with_keys(keys);
        let Ok(signed) = signed else {
            return Ok(());
        };
        self.link.publish(&signed).await?;
        self.remember(about, gist, at).await
    }

    async fn is_due(&self, about: &[u8; 32], gist: &str, now: Timestamp) -> Result<bool, Error> {
        let told = self.told(about).await?;
        Ok(told.is_none_or(|(what, at)| {
            what != gist || at.as_secs().saturating_add(SAY_AGAIN_S) <= now.as_secs()
        }))
    }

    async fn told(&self, about: &[u8; 32]) -> Result<Option<(String, Timestamp)>, Error> {
        let told: Option<(String, i64)> =
            sqlx::query_as("SELECT what, told_s FROM told WHERE about = ?")
                .bind(about.as_slice())
                .fetch_optional(self.store.pool())
                .await?;
        let read = |(what, at)| (what, Timestamp::from_secs(u64::try_from(at).unwrap_or(0)));
        Ok(told.map(read))
    }

    async fn remember(&self, about: &[u8; 32], gist: &str, at: Timestamp) -> Result<(), Error> {
        sqlx::query("INSERT OR REPLACE INTO told (about, what, told_s) VALUES (?, ?, ?)")
            .bind(about.as_slice())
            .bind(gist)
            .bind(seconds(at))
            .execute(self.store.pool())
            .await?;
        Ok(())
    }

    async fn keep(&self, event: Event) -> Result<(), Error> {
        if event.pubkey != self.own.public_key() {
            return Ok(());
        }
        match Signed::from_verified(event) {
            Ok(attestation) => words::keep(self.store.pool(), &attestation).await,
            Err(refusal) => {
                tracing::debug!(%refusal, "an attestation of ours that is none");
                Ok(())
            }
        }
    }

    /// Keeps all that the relays have, the newest first; what an earlier walk has kept
    /// to the end is not walked over again.
    async fn catch_up(&self) -> Result<(), Error> {
        let now = clock::now();
        let has_all = self.told(&words::WALKED).await?.is_some();
        let mut until = now;
        while let Some(page) = words::page(&self.link, &self.own.public_key(), until).await? {
            let oldest = page.first().map(|event| event.created_at);
            let is_known = words::known(self.store.pool(), &page).await?;
            for event in page {
                self.keep(event).await?;
            }
            match oldest {
                Some(oldest) if oldest < until && !(has_all && is_known) => until = oldest,
                _ => break,
            }
        }
        self.remember(&words::WALKED, "", now).await
    }

    fn presence(&self) -> Presence<'_> {
        Presence(self.store.pool())
    }
}

/// The key that signs the ranks of the aggregator with these keys: what its
/// announcement names.
pub(crate) fn key_of(own: &Keys) -> PublicKey {
    service_key(own).public_key()
}

/// sha256("infernet/ranks/1" ‖ secret key): a hash is a key but for one in 2¹²⁸.
fn service_key(own: &Keys) -> Keys {
    let mut hash = Sha256::new();
    hash.update(b"infernet/ranks/1");
    hash.update(own.secret_key().as_secret_bytes());
    match SecretKey::from_slice(&hash.finalize()) {
        Ok(secret) => Keys::new(secret),
        Err(_) => own.clone(),
    }
}

fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.as_secs()).unwrap_or(i64::MAX)
}

/// The kind of assertions on users (NIP-85).
const ASSERTION: Kind = Kind::Custom(30_382);

#[cfg(test)]
mod tests;
