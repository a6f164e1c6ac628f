//! One group of a batch: giving it to the aggregator, paying for it, and having its answers, however often asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_blobs::Blobs;
use infernet_node::{clock, mortality};
use infernet_payments::Invoice;
use infernet_protocol::batch::{
    Ask, Blob, BlobKey, Charge, Delivery, Done, Group, GroupStanding, LineOutcome, Lines, Phase,
    Progress, Reply, Size,
};
use infernet_protocol::event::Quote;
use infernet_protocol::money::Msat;
use infernet_protocol::payload::{Payload, Work};
use infernet_protocol::seal::blob;
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{EventId, PublicKey};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Error;
use super::journal::{Journal, Kept};
use super::news::News;
use super::talk::Talk;
use crate::purse::Purse;

mod paying;

/// How often it is asked how a group stands, besides what the aggregator says unasked.
const ASK_EVERY: Duration = Duration::from_secs(3);

/// How long an aggregator may refuse a group that nothing was paid for, before it is given up: it may be busy.
const REFUSAL_PATIENCE: Duration = Duration::from_secs(30);

/// How long after the order's deadline an aggregator is still asked: whatever was held has come back by then.
const LATE: Duration = Duration::from_secs(15 * 60);

/// Breaches that are told at the end.
const MAX_BREACHES: usize = 64;

/// How long to wait before a blob is put or got again.
const BLOB_PAUSE: Duration = Duration::from_secs(5);

/// What all groups of a batch share.
pub(super) struct Shared {
    pub order: EventId,
    pub quote: Quote,
    pub aggregator: PublicKey,
    pub talk: Talk,
    pub blobs: Blobs,
    pub journal: Journal,
    pub purse: Option<Purse>,
    pub news: mpsc::UnboundedSender<News>,
    /// How far each group is that runs.
    pub progress: Mutex<BTreeMap<u32, Progress>>,
    /// How the aggregator broke its quote.
    pub breaches: Mutex<Vec<String>>,
}

impl Shared {
    pub fn tell(&self, news: News) {
        // Nobody need be listening.
        let _ = self.news.send(news);
    }

    pub fn progress(&self) -> MutexGuard<'_, BTreeMap<u32, Progress>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn breaches(&self) -> Vec<String> {
        self.breaches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn broken(&self, group: u32, how: impl Into<String>) {
        let how = how.into();
        tracing::warn!(order = %self.order, group, how, "the aggregator did not keep to its quote");
        let mut breaches = self.breaches.lock().unwrap_or_else(PoisonError::into_inner);
        if breaches.len() < MAX_BREACHES {
            breaches.push(format!("group {group}: {how}"));
        }
        drop(breaches);
        self.tell(News::Broken { group, how });
    }
}

/// A group on its way.
pub(super) struct Course {
    shared: Arc<Shared>,
    kept: Kept,
    /// Why it was not paid, as was told last.
    told: Option<String>,
    /// The invoice that was told to be paid last.
    named: Option<String>,
    /// A payment that is under way by us.
    paying: Option<JoinHandle<()>>,
    /// Since when the aggregator refuses it.
    refused_since: Option<Instant>,
}

impl Course {
    pub const fn of(shared: Arc<Shared>, kept: Kept) -> Self {
        Self {
            shared,
            kept,
            told: None,
            named: None,
            paying: None,
            refused_since: None,
        }
    }

    /// Gives a group that was cut off and written down, and follows it to its end.
    pub async fn begin(
        shared: Arc<Shared>,
        mut kept: Kept,
        works: Vec<Work>,
    ) -> Result<Kept, Error> {
        let (blob, key) = put(&shared, kept.number, works).await;
        shared.journal.given(kept.number, &blob, &key).await?;
        mortality::point("group-given");
        kept.input = Some((blob, key));
        Self::of(shared, kept).follow().await
    }

    /// Follows a group to its end.
    pub async fn follow(mut self) -> Result<Kept, Error> {
        let mut said = self.shared.talk.said();
        while !self.kept.is_over {
            let standing = self.standing(&mut said).await?;
            if let Some(standing) = standing {
                self.refused_since = None;
                self.shared
                    .progress()
                    .insert(self.kept.number, standing.progress);
                self.step(standing).await?;
            }
            if !self.kept.is_over {
                self.open_with_the_wallets_preimage().await?;
            }
        }
        self.shared.progress().remove(&self.kept.number);
        Ok(self.kept)
    }

    /// How the group stands: at once the first time, then when the aggregator says it, or is asked again.
    async fn standing(
        &mut self,
        said: &mut broadcast::Receiver<(EventId, GroupStanding)>,
    ) -> Result<Option<GroupStanding>, Error> {
        let is_first = !self.shared.progress().contains_key(&self.kept.number);
        if !is_first {
            let (order, number) = (self.shared.order, self.kept.number);
            let told = timeout(ASK_EVERY, about(said, order, number)).await;
            if let Ok(standing) = told {
                return Ok(Some(standing));
            }
        }
        let Some((input, key)) = self.kept.input.clone() else {
            return Ok(None);
        };
        let group = Group {
            number: self.kept.number,
            size: self.kept.size,
            input,
            key,
        };
        let asked = self
            .shared
            .talk
            .ask(Some(self.shared.order), Ask::Group(group));
        let Ok(answer) = timeout(self.time_left(), asked).await else {
            self.fail("its deadline is over, and the aggregator does not answer".into())
                .await?;
            return Ok(None);
        };
        match answer? {
            Reply::Group(standing) if standing.number == self.kept.number => Ok(Some(standing)),
            Reply::Refused { reason } => {
                self.refused(reason).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// How long the aggregator is still asked.
    fn time_left(&self) -> Duration {
        let until = self.shared.quote.deadline + LATE;
        Duration::from_secs(until.as_secs().saturating_sub(clock::now().as_secs()))
    }

    /// A group that is refused before anything was paid for it comes to nothing; else it is asked again.
    async fn refused(&mut self, reason: String) -> Result<(), Error> {
        self.shared.progress().entry(self.kept.number).or_default();
        if self.may_be_paid().await? || self.kept.delivery.is_some() {
            self.say_once(&reason);
            return Ok(());
        }
        let since = *self.refused_since.get_or_insert_with(Instant::now);
        match since.elapsed() >= REFUSAL_PATIENCE {
            true => self.fail(reason).await,
            false => Ok(()),
        }
    }

    async fn step(&mut self, standing: GroupStanding) -> Result<(), Error> {
        let verified = standing.progress.verified;
        match standing.phase {
            Phase::Unpaid { invoice } => self.pay(&invoice).await,
            Phase::Working => Ok(()),
            Phase::Delivered(delivery) => {
                self.kept.verified = verified;
                self.fetch(&delivery).await
            }
            Phase::Settled { delivery, preimage } => {
                self.kept.verified = verified;
                self.fetch(&delivery).await?;
                self.open(&BlobKey::of_delivery(preimage.as_bytes())).await
            }
            Phase::Cancelled { reason } => self.fail(reason).await,
        }
    }

    async fn fail(&mut self, reason: String) -> Result<(), Error> {
        let group = self.kept.number;
        self.shared.journal.failed(group, &reason).await?;
        self.shared.tell(News::Cancelled {
            group,
            reason: reason.clone(),
        });
        self.kept.failed = Some(reason);
        self.kept.is_over = true;
        Ok(())
    }

    /// Fetches the answers, which nobody can read yet, and says that they are here. What is charged is judged now,
    /// as far as it can be.
    async fn fetch(&mut self, delivery: &Delivery) -> Result<(), Error> {
        let number = self.kept.number;
        if self.kept.delivery.is_none() {
            let Some(sealed) = self.get(delivery).await else {
                return Ok(());
            };
            self.shared
                .journal
                .delivered(number, delivery, &sealed)
                .await?;
            self.kept.delivery = Some(delivery.clone());
            mortality::point("group-delivered");
        }
        if self.kept.delivery.as_ref() != Some(delivery) {
            self.shared
                .broken(number, "it delivers something else than it did before");
        }
        let shared = self.shared.clone();
        // It claims after a while anyway, and a group that is settled does not mind.
        let fetched = Ask::Fetched { group: number };
        let asked = shared
            .talk
            .ask_within(ASK_EVERY * 2, Some(shared.order), fetched);
        match asked.await {
            Ok(Reply::Group(standing)) if standing.number == number => {
                if let Phase::Settled { preimage, .. } = standing.phase {
                    self.open(&BlobKey::of_delivery(preimage.as_bytes()))
                        .await?;
                }
            }
            Ok(_) | Err(_) => {}
        }
        Ok(())
    }

    async fn get(&mut self, delivery: &Delivery) -> Option<Vec<u8>> {
        match self.shared.blobs.get(&delivery.output).await {
            Ok(sealed) => Some(sealed),
            Err(error) => {
                let (group, why) = (self.kept.number, error.to_string());
                self.shared.tell(News::Blobless { group, why });
                tokio::time::sleep(BLOB_PAUSE).await;
                None
            }
        }
    }

    /// The money is taken: its preimage opens the answers.
    async fn open(&mut self, key: &BlobKey) -> Result<(), Error> {
        let Some(delivery) = self.kept.delivery.clone().filter(|_| !self.kept.is_over) else {
            return Ok(());
        };
        let group = self.kept.number;
        let shared = self.shared.clone();
        let sealed = shared.journal.sealed(group).await?;
        let charge = delivery.charge;
        match outcomes(key, sealed) {
            Ok(done) => {
                if let Some(how) = flaw(&done, &charge, &self.kept.size, &shared.quote) {
                    shared.broken(group, how);
                }
            }
            Err(why) => {
                shared.broken(group, why.as_str());
                return self.fail(why).await;
            }
        }
        if let Some(purse) = &shared.purse
            && charge.total() > Msat::ZERO
        {
            let (order, aggregator) = (shared.order, shared.aggregator);
            let spent = purse.group_spent(&order, group, aggregator, charge.total());
            spent.await?;
        }
        shared
            .journal
            .opened(group, key, self.kept.verified)
            .await?;
        mortality::point("group-opened");
        self.kept.opens = Some(*key);
        self.kept.is_over = true;
        Ok(())
    }

    fn say_once(&mut self, why: &str) {
        if self.told.as_deref() != Some(why) {
            self.told = Some(why.to_owned());
            let group = self.kept.number;
            self.shared.tell(News::Unpaid {
                group,
                why: why.to_owned(),
            });
        }
    }
}

/// The next word about this group.
async fn about(
    said: &mut broadcast::Receiver<(EventId, GroupStanding)>,
    order: EventId,
    number: u32,
) -> GroupStanding {
    loop {
        match said.recv().await {
            Ok((about, standing)) if about == order && standing.number == number => {
                return standing;
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The talk is over, and so is the group soon.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Puts a group's lines where the aggregator can get them, however long that takes.
async fn put(shared: &Shared, group: u32, works: Lines) -> (Blob, BlobKey) {
    let key = BlobKey::from_bytes(rand::random());
    let lines = works.to_bytes();
    drop(works);
    loop {
        let why = match blob::encrypt(key.as_bytes(), &lines, &mut OsRng) {
            Ok(sealed) => match shared.blobs.put(sealed).await {
                Ok(blob) => return (blob, key),
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        shared.tell(News::Blobless { group, why });
        tokio::time::sleep(BLOB_PAUSE).await;
    }
}

/// The answers of a group; why there are none, if they cannot be opened.
pub(super) fn outcomes(key: &BlobKey, sealed: Vec<u8>) -> Result<Done, String> {
    let lines = blob::decrypt(key.as_bytes(), sealed)
        .ok()
        .and_then(|bytes| Done::from_bytes(&bytes).ok());
    lines.ok_or_else(|| "the answers cannot be opened".to_owned())
}

/// How answers break the quote, if they do.
fn flaw(done: &Done, charge: &Charge, size: &Size, quote: &Quote) -> Option<String> {
    if done.len() as u64 != size.lines {
        return Some(format!("{} answers for {} lines", done.len(), size.lines));
    }
    let (input, output) = done.iter().fold((0, 0), |(input, output), outcome| {
        let (more_input, more_output) = tokens(outcome);
        (input + more_input, output + more_output)
    });
    let is_kept = quote.allows(charge, input, output);
    (!is_kept).then(|| "it charges more than its quote allows for what it did".to_owned())
}

/// Tokens of a line that count.
fn tokens(outcome: &LineOutcome) -> (u64, u64) {
    match outcome {
        LineOutcome::Text(text) if text.error.is_none() => {
            (text.input_tokens.into(), text.tokens.len() as u64)
        }
        LineOutcome::Vectors { input_tokens, .. } => (*input_tokens, 0),
        LineOutcome::Text(_) | LineOutcome::Failed { .. } => (0, 0),
    }
}
