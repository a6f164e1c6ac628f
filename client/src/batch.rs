//! Batches: a file of requests goes to an aggregator, and a file of answers comes back.
//!
//! ```text
//! input ─ scan ─▶ quote ─▶ order ─▶ cut ─▶ group ─┬─▶ blob ─▶ hold ─▶ delivery ─▶ opened ─▶ output
//!                                            group ─┘  (several at a time)          (in their order)
//! ```
//!
//! The input is read twice, and never held: once for its size, and once in groups of some hundred lines. What was
//! cut off, paid and delivered stands in a journal beside the output, so that the same command goes on where it was
//! ended, however it ended.
//!
//! # What holds
//! - A group is written down before anything is asked for it, and asked for in the same words ever after.
//! - An invoice is paid if it is for a group of ours, within the quote and within the limits; no second one of a group
//!   unless the first has failed.
//! - The output holds whole groups in the order of the input, and what the journal says of it is on the disk.

mod aggregators;
mod cut;
mod group;
mod journal;
mod line;
mod news;
mod outcome;
mod output;
mod quoting;
mod reader;
mod run;
mod scan;
mod talk;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use infernet_protocol::event::{Aggregator, Checkers, Checking, Order, Quote, Signed};
use infernet_protocol::money::{Msat, Price};
use nostr::EventId;

pub use line::{Flaw, MAX_LINE_BYTES};
pub use news::{News, Summary, Totals};
pub use scan::Scan;

use crate::Client;
use journal::{Begun, Journal};
use talk::Talk;

/// Why a batch did not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// The lines want different things.
    #[error(
        "line {} wants {}, and line {} wants {}: one batch is for one model; split the file",
        first.0, first.1, other.0, other.1
    )]
    Mixed {
        /// The first line that can be done, from 1, and what it wants.
        first: (u64, String),
        /// One that wants something else.
        other: (u64, String),
    },
    /// There is an output, and nothing is known of how it came about.
    #[error("{} is there already: name another file, or remove it", .0.display())]
    AlreadyThere(PathBuf),
    /// The input is another than the one that was ordered.
    #[error(
        "{} is not the file that this batch was begun with: put that back, or name another output", .0.display()
    )]
    Changed(PathBuf),
    /// Another process runs this batch.
    #[error("another infernet-client runs this batch")]
    Running,
    /// What is to be done cannot be asked for.
    #[error("{0}")]
    Invalid(String),
    /// The aggregator does not do it.
    #[error("the aggregator refuses: {0}")]
    Refused(String),
    /// The aggregator's quote is not what was asked for.
    #[error("the aggregator's quote is not what was asked for: {0}")]
    Quote(&'static str),
    /// It would cost too much.
    #[error("it may cost {most}, and you allow {allowed}: raise --max-sats")]
    OverLimit {
        /// What it may cost.
        most: Msat,
        /// What it may.
        allowed: Msat,
    },
    /// It may cost more than may be paid out within a day.
    #[error(
        "it may cost {most}, and daily_sats in client.toml allows {allowed} for 24 hours: raise that, or split the file"
    )]
    OverDay {
        /// What it may cost.
        most: Msat,
        /// What a day allows.
        allowed: Msat,
    },
    /// It was stopped; the same again goes on.
    #[error("stopped; the same command goes on from here")]
    Stopped,
    /// The journal cannot be kept.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The market cannot be reached, or there is no money.
    #[error(transparent)]
    Client(#[from] crate::Error),
    /// The books cannot be kept.
    #[error(transparent)]
    Purse(#[from] crate::purse::Error),
}

/// What a batch is, and how it is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A file of requests, one JSON object a line.
    pub input: PathBuf,
    /// The file of answers to be written.
    pub output: PathBuf,
    /// Stands for whatever model the lines name.
    pub model: Option<String>,
    /// Name or public key of the aggregator; none for the only one there is.
    pub aggregator: Option<String>,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// How much is to be checked.
    pub checking: Checking,
    /// How long it may take; as long as the aggregator holds money, a day at most, if it is not said.
    pub deadline: Option<Duration>,
    /// The highest price of the work.
    pub max_price: Option<Price>,
    /// The most that the whole may cost.
    pub max_cost: Option<Msat>,
}

impl Plan {
    /// The journal's file.
    fn journal(&self) -> PathBuf {
        let mut name = self.output.as_os_str().to_owned();
        name.push(".infernet");
        PathBuf::from(name)
    }
}

/// A batch that can be ordered, or goes on.
pub struct Batch {
    client: Client,
    plan: Plan,
    scan: Arc<Scan>,
    journal: Option<Journal>,
    begun: Option<Begun>,
    aggregator: Option<Signed<Aggregator>>,
    talk: Option<Talk>,
    /// Held as long as this process runs the batch.
    _alone: std::fs::File,
}

impl Batch {
    /// Reads the input, and what an earlier process has left of this batch.
    ///
    /// # Errors
    /// Files that cannot be used, or do not belong together; lines that want different things.
    pub async fn open(client: Client, plan: Plan) -> Result<Self, Error> {
        let path = plan.journal();
        let is_new = !path.exists();
        if is_new && plan.output.exists() {
            return Err(Error::AlreadyThere(plan.output));
        }
        let alone = alone(&plan)?;
        let journal = match is_new {
            true => None,
            false => Some(Journal::open(&path).await?),
        };
        let begun = match &journal {
            Some(journal) => journal.begun().await?,
            None => None,
        };
        let model = match &begun {
            Some(begun) => begun.model.clone(),
            None => plan.model.clone(),
        };
        let input = plan.input.clone();
        let scanning = tokio::task::spawn_blocking(move || Scan::of(&input, model.as_deref()));
        let scan = scanning
            .await
            .map_err(|_| Error::Invalid("reading the input broke off".into()))??;
        if begun
            .as_ref()
            .is_some_and(|begun| begun.input_sha256 != scan.sha256)
        {
            return Err(Error::Changed(plan.input));
        }
        Ok(Self {
            client,
            plan,
            scan: Arc::new(scan),
            journal,
            begun,
            aggregator: None,
            talk: None,
            _alone: alone,
        })
    }

    /// What is in the input.
    pub fn scan(&self) -> &Scan {
        &self.scan
    }

    /// The order that was signed before, if the batch goes on.
    pub fn order_id(&self) -> Option<EventId> {
        self.begun.as_ref().map(|begun| begun.order.id)
    }

    /// What the aggregator calls itself, once it is known.
    pub fn aggregator_name(&self) -> Option<&str> {
        let announced = self
            .aggregator
            .as_ref()
            .map(|announced| announced.name.as_str());
        announced.or(self.begun.as_ref().map(|begun| begun.aggregator.as_str()))
    }
}

/// The quote in an order that was verified.
fn quote_of(order: &Signed<Order>) -> Result<Quote, Error> {
    let damaged = journal::Error::Damaged("an order without a quote");
    order.terms().ok_or(Error::Journal(damaged))
}

fn alone(plan: &Plan) -> Result<std::fs::File, Error> {
    let failed = |source| Error::Output {
        path: plan.journal(),
        source,
    };
    let file = infernet_node::database::lock_file(&plan.journal(), "run").map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Running),
        Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}
