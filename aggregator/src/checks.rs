//! What is checked, by whom, and what is made of it (`nips/verification.md`).
//!
//! A signed result is its provider's commitment. Only then does the order's secret
//! choose whether it is checked, the more probably the less its provider has shown.
//! What is chosen goes to a checker: a provider of the task `verify`, the owner's own
//! or anybody's, as the buyer allows. One that is not sure, or that would reject, is
//! followed by another. What verdicts say goes into the provider's dossier: its streak,
//! and its pool of margins, which catches what no single check can.
//!
//! Checkers are checked too: at random by a second one, by traps, and by whether their
//! figures can be true. Now and then a provider is sent questions of our own among the
//! real work (`patrol`). Who is caught at either comes out of a channel.

mod books;
mod hearing;
mod hiring;
mod panel;
mod patrol;
mod questions;
mod reading;
mod samples;
mod shelf;
mod traps;
mod twins;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_client::Client;
use infernet_node::clock;
use infernet_protocol::event::{Body as _, Checkers, Checking, Judgement, Signed, V1, Verdict};
use infernet_protocol::inference::{ModelId, Task};
use infernet_protocol::money::Msat;
use infernet_protocol::verification::{METHOD_POOLED, Secret};
use nostr::{EventId, Keys, PublicKey, RelayUrl};
use serde::{Deserialize, Serialize};
use sqlx::SqlitePool;
use tokio::sync::mpsc;

pub use books::{Dossier, Subject};
pub use hiring::Hire;
pub use shelf::{Shelf, ShelfError};

use books::Books;
use hearing::Hearing;
use hiring::{Market, Sought};
use samples::Samples;

use crate::Bought;

/// How often a stranger's acceptance is looked at by another, in millionths.
const SECOND_PPM: u32 = 50_000;

/// How long a checker is waited for while none is on sale.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it is looked whether one is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a stranger that checks is given a trap too, in millionths.
const TRAP_PPM: u32 = 100_000;

/// How often a provider whose work passed is sent questions of our own, in millionths.
const PATROL_PPM: u32 = 20_000;

/// Of paid work one question in eight of these: we pay for them and for their checks, and
/// a buyer who sells to itself must not earn more by them than the fee on its work.
const PAID_PATROL: u32 = 8;

/// What was found and is not told of yet.
const MAX_FINDINGS: usize = 256;

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite refuses.
    #[error("the store: {0}")]
    Sqlite(#[from] sqlx::Error),
    /// A row does not hold what it should.
    #[error("the store is damaged: a row of the checks")]
    Damaged,
    /// A verdict of our own could not be signed.
    #[error("a verdict could not be signed")]
    Unsigned,
}

/// What checking needs.
#[derive(Debug)]
pub struct Parts {
    /// What checkers are hired through.
    pub client: Client,
    /// Who signs verdicts on pools.
    pub keys: Keys,
    /// The store's database.
    pub pool: SqlitePool,
    /// The owner's checkers.
    pub checkers: Vec<PublicKey>,
    /// What models' work is judged by.
    pub shelf: Shelf,
    /// Where we listen: what traps say of it.
    pub relays: Vec<RelayUrl>,
    /// How often who is tried.
    pub chances: Chances,
}

/// How often checkers and providers are tried, in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chances {
    /// A stranger's acceptance is looked at by another.
    pub second_ppm: u32,
    /// A stranger that checks is given a trap too.
    pub trap_ppm: u32,
    /// A provider whose work passed is sent questions of our own.
    pub patrol_ppm: u32,
}

impl Default for Chances {
    fn default() -> Self {
        Self {
            second_ppm: SECOND_PPM,
            trap_ppm: TRAP_PPM,
            patrol_ppm: PATROL_PPM,
        }
    }
}

impl Chances {
    fn draw(chance_ppm: u32) -> bool {
        rand::random_ratio(chance_ppm.min(1_000_000), 1_000_000)
    }
}

/// How a result is to be checked: what its order says.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How much.
    pub checking: Checking,
    /// By whom.
    pub checkers: Checkers,
    /// What chooses.
    pub secret: Secret,
    /// When a judgement is needed at the latest.
    pub until: Instant,
    /// The most that checking this result may cost.
    pub most: Msat,
}

/// What a result is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was checked, and is honest work.
    Accepted,
    /// It was not chosen: it passes.
    Unchecked,
    /// It was to be checked, and it is not known what it is: it passes, and is not rated.
    Inconclusive,
    /// It is not what the model says.
    Rejected,
}

/// How a result was judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// What it is worth.
    pub outcome: Outcome,
    /// How probable it was that it be checked, in millionths.
    pub chance_ppm: u32,
    /// All verdicts on it, to be published; the one that decided is the first.
    pub verdicts: Vec<Signed<Verdict>>,
    /// Who is to be paid for them. Nobody, if it had been judged before.
    pub hired: Vec<Hire>,
}

impl Judged {
    /// The verdict that decided, if one did.
    pub fn verdict(&self) -> Option<&Signed<Verdict>> {
        self.verdicts.first()
    }

    /// What the checks cost.
    pub fn cost(&self) -> Msat {
        let costs = self.hired.iter().map(|hire| hire.cost.0);
        Msat(costs.fold(0, u64::saturating_add))
    }

    const fn unchecked(chance_ppm: u32) -> Self {
        Self {
            outcome: Outcome::Unchecked,
            chance_ppm,
            verdicts: Vec::new(),
            hired: Vec::new(),
        }
    }
}

/// What came out beside the judgement of a result.
#[derive(Debug, Clone)]
pub enum Finding {
    /// Somebody was caught: it is to be attested, banned, and not paid for that work.
    Caught(Box<Caught>),
    /// Work of our own is to be paid: a provider's answers, or a check of them.
    Owed(Hire),
}

/// Somebody who was caught at something.
#[derive(Debug, Clone)]
pub struct Caught {
    /// Who.
    pub who: PublicKey,
    /// The award of the work that it did wrong.
    pub award: EventId,
    /// Its result.
    pub result: EventId,
    /// The verdict that tells, if there is one.
    pub verdict: Option<Signed<Verdict>>,
    /// The job, and the model it was about.
    pub job: EventId,
    /// The model.
    pub model: ModelId,
    /// What it did, in a few words.
    pub reason: String,
}

/// Judges what was bought. Clones are cheap and share everything.
#[derive(Debug, Clone)]
pub struct Checks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    keys: Keys,
    books: Books,
    own: HashSet<PublicKey>,
    shelf: Shelf,
    findings: mpsc::Sender<Finding>,
    samples: Samples,
    relays: Vec<RelayUrl>,
    chances: Chances,
}

impl Inner {
    fn market(&self) -> Market<'_> {
        Market {
            client: &self.client,
            pool: self.books.pool(),
            own: &self.own,
        }
    }

    fn tell(&self, finding: Finding) {
        if self.findings.try_send(finding).is_err() {
            tracing::warn!("nobody takes note of what the checks found");
        }
    }
}

impl Checks {
    /// Checks over this client and these tables; whom they catch comes out of the
    /// channel.
    ///
    /// # Errors
    /// [`Error::Sqlite`].
    pub async fn open(parts: Parts) -> Result<(Self, mpsc::Receiver<Finding>), Error> {
        let samples = Samples::new(parts.pool.clone());
        let books = Books::new(parts.pool);
        books.tidy(clock::now()).await?;
        let (findings, receiver) = mpsc::channel(MAX_FINDINGS);
        let inner = Inner {
            client: parts.client,
            keys: parts.keys,
            books,
            own: parts.checkers.into_iter().collect(),
            shelf: parts.shelf,
            findings,
            samples,
            relays: parts.relays,
            chances: parts.chances,
        };
        Ok((Self(Arc::new(inner)), receiver))
    }

    /// How probable it is that the next result of a subject is checked, in millionths.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn chance_ppm(&self, subject: &Subject, checking: Checking) -> Result<u32, Error> {
        let dossier = self.0.books.dossier(subject).await?;
        Ok(dossier.trust.chance_ppm(checking))
    }

    /// What a provider has shown.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn dossiers(&self, provider: &PublicKey) -> Result<Vec<(Subject, Dossier)>, Error> {
        self.0.books.dossiers(provider).await
    }

    /// Whether somebody could check work of this task and model by this provider now.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn has_checker(
        &self,
        (task, model): (Task, &ModelId),
        allowed: Checkers,
        provider: &PublicKey,
        is_paid: bool,
    ) -> Result<bool, Error> {
        let mut shunned = HashSet::from([*provider, self.0.keys.public_key()]);
        shunned.extend(self.0.books.shunned().await?);
        let sought = Sought {
            task,
            model,
            allowed,
            is_paid,
            shunned: &shunned,
        };
        Ok(self.0.market().draw(&sought).is_some())
    }

    /// What models' work is judged by.
    pub fn shelf(&self) -> &Shelf {
        &self.0.shelf
    }

    /// Judges a result: whether it is checked, and what it is worth. Asked again about
    /// the same result, it says the same.
    ///
    /// # Errors
    /// A store that fails. Checkers that fail are no error: the result is then
    /// inconclusive.
    pub async fn judge(&self, work: &Bought, policy: &Policy) -> Result<Judged, Error> {
        let result = work.result.id();
        if let Some(judged) = self.0.books.judged(&result).await? {
            return Ok(judged);
        }
        let subject = Subject::of(work);
        let chance_ppm = self.chance_ppm(&subject, policy.checking).await?;
        let chance_ppm = match policy.checkers {
            Checkers::Nobody => 0,
            Checkers::Aggregator | Checkers::Market => chance_ppm,
        };
        let judged = match policy.secret.chooses(&result, chance_ppm) {
            true => {
                let doubted = Chances::draw(self.0.chances.second_ppm);
                self.examine(work, policy, chance_ppm, doubted).await?
            }
            false => Judged::unchecked(chance_ppm),
        };
        self.0.books.keep(&result, &judged, clock::now()).await?;
        let passed = judged.outcome != Outcome::Rejected;
        let patrol_ppm = self.0.chances.patrol_ppm;
        let patrol_ppm = match work.cost {
            Msat::ZERO => patrol_ppm,
            _ => patrol_ppm / PAID_PATROL,
        };
        if passed && Chances::draw(patrol_ppm) {
            self.send_patrol(work);
        }
        Ok(judged)
    }

    /// Has a result checked, and enters what comes of it in the dossier. `doubted`: by a
    /// second stranger even if the first accepts it.
    async fn examine(
        &self,
        work: &Bought,
        policy: &Policy,
        chance_ppm: u32,
        doubted: bool,
    ) -> Result<Judged, Error> {
        let subject = Subject::of(work);
        let hearing = Hearing::new(&self.0, work, policy).held(doubted).await?;
        let judgement = hearing.panel.judgement();
        let thresholds = self.0.shelf.of(&work.model, work.dtype());
        let texts = hearing.for_the_pool();
        let figures = texts.as_ref().map(|texts| (texts, &thresholds));
        let dossier = self.0.books.enter(&subject, judgement, figures).await?;
        let mut reads = hearing.reads;
        // What a twin said is signed by us: it is our word only where it decided.
        let us = self.0.keys.public_key();
        reads.retain(|read| read.verdict.author() != us || read.verdict.judgement == judgement);
        // The one that decided goes first.
        reads.sort_by_key(|read| read.verdict.judgement != judgement);
        let mut verdicts: Vec<_> = reads.iter().map(|read| read.verdict.clone()).collect();
        let mut outcome = Outcome::of(judgement);
        if outcome != Outcome::Rejected && dossier.pool.is_rejected() {
            verdicts.insert(0, self.verdict_on_pool(work, &dossier, &verdicts)?);
            self.0.books.empty_pool(&subject).await?;
            outcome = Outcome::Rejected;
        }
        Ok(Judged {
            outcome,
            chance_ppm,
            verdicts,
            hired: hearing.hired,
        })
    }

    /// Says that a provider's answers together are not its model's.
    fn verdict_on_pool(
        &self,
        work: &Bought,
        dossier: &Dossier,
        verdicts: &[Signed<Verdict>],
    ) -> Result<Signed<Verdict>, Error> {
        let pool = &dossier.pool;
        let figures = [
            ("results", pool.results as f64),
            ("tokens", pool.tokens as f64),
            ("margin_sum", pool.margin_sum),
            ("evidence", pool.evidence),
        ];
        let checker = verdicts.first().ok_or(Error::Unsigned)?;
        let verdict = Verdict {
            v: V1,
            job: work.award.job_id(),
            award: work.award.id(),
            result: work.result.id(),
            provider: work.provider,
            model: work.model,
            judgement: Judgement::Rejected,
            method: METHOD_POOLED.to_owned(),
            figures: BTreeMap::from(figures.map(|(name, figure)| (name.to_owned(), figure))),
            dtype: checker.dtype,
            engine: checker.engine.clone(),
        };
        let keys = &self.0.keys;
        let unsigned = verdict.to_unsigned(keys.public_key(), clock::now());
        let event = unsigned.sign_with_keys(keys).map_err(|_| Error::Unsigned)?;
        Signed::from_verified(event).map_err(|_| Error::Unsigned)
    }
}

impl Subject {
    /// Whose work this is.
    pub fn of(work: &Bought) -> Self {
        Self {
            provider: work.provider,
            model: work.model,
            engine: work.engine().to_owned(),
        }
    }
}

impl Outcome {
    const fn of(judgement: Judgement) -> Self {
        match judgement {
            Judgement::Accepted => Self::Accepted,
            Judgement::Inconclusive => Self::Inconclusive,
            Judgement::Rejected => Self::Rejected,
        }
    }
}
