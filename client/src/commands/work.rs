//! Running one job for the user: streaming it, writing it down, stopping it.

use std::io::{self, ErrorKind};
use std::time::Duration;

use anyhow::Context;
use infernet_client::history::{History, Job, Status};
use infernet_client::purse::Moved;
use infernet_client::{Answer, Client, Error, Outcome, Request, Route, Step};
use infernet_node::clock;
use infernet_protocol::money::Msat;
use nostr::EventId;

use super::terminal::Terminal;
use super::{Place, interrupt};
use crate::settings::MaxPrice;

/// How to find a provider, and within which limits; what `submit`, `embed` and `run` share.
#[derive(Debug, clap::Args)]
pub struct Terms {
    /// The model, by name or by its manifest's hash [default: the best-ranked provider's]
    #[arg(long, short, value_name = "NAME")]
    pub model: Option<String>,

    /// The highest price, in millisatoshis per million tokens of input and output [default: 0, free work only]
    #[arg(long, value_name = "IN[:OUT]", allow_negative_numbers = true)]
    max_price: Option<MaxPrice>,

    /// The most that the job may cost in satoshis, failovers counted in. What is paid ahead may be more: it stays on
    /// the tab
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_sats: Option<u64>,

    /// How long the job may take in all, in seconds [default: 120]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    deadline: Option<u64>,

    /// Ask this provider first, by name or npub; others stand in if it fails
    #[arg(long, value_name = "WHO", conflicts_with = "auction")]
    provider: Option<String>,

    /// Let nobody stand in for the provider
    #[arg(long, requires = "provider")]
    only: bool,

    /// Ask everybody for bids, and take the best, instead of the best-ranked announcement
    #[arg(long)]
    auction: bool,

    /// Print one JSON object at the end instead of the answer as it comes
    #[arg(long)]
    pub json: bool,
}

impl Terms {
    /// Lays these terms, and the settings under them, over a request.
    pub fn lay_over(&self, request: &mut Request, place: &Place) {
        let defaults = &place.settings.defaults;
        if let Some(MaxPrice(price)) = self.max_price.or(defaults.max_price) {
            request.max_price = price;
        }
        request.max_cost = self.max_sats.or(defaults.max_sats).and_then(Msat::from_sat);
        if let Some(seconds) = self.deadline.or(defaults.deadline_s) {
            request.deadline = Duration::from_secs(seconds);
        }
        request.route = match &self.provider {
            Some(provider) => Route::To {
                provider: provider.clone(),
                only: self.only,
            },
            None if self.auction => Route::Auction,
            None => Route::Direct,
        };
    }
}

/// A job that is over, and its id if it had one.
pub struct Finished {
    pub job: Option<EventId>,
    pub outcome: Outcome,
    /// What its attempts have moved, also if there is no answer.
    pub moved: Moved,
}

/// Runs a job: shows its steps, writes it down, stops it on Ctrl-C.
pub async fn run(
    client: &Client,
    history: &History,
    request: Request,
    terminal: &mut Terminal,
) -> anyhow::Result<Finished> {
    let stop = interrupt::on_signals("Stopping, and telling the provider.")?;
    let within = request.deadline;
    let answer = tokio::select! {
        answer = client.submit(request) => answer,
        () = stop.cancelled() => Err(Error::Stopped),
    };
    let mut log = Log {
        history,
        within,
        job: None,
        moved: Moved::default(),
    };
    let (outcome, shown) = match answer {
        Ok(answer) => follow(answer, &mut log, terminal, stop).await?,
        Err(error) => (Err(error), Ok(())),
    };
    if !matches!(&outcome, Ok(summary) if summary.attempts == 1) {
        terminal.tell_charges();
    }
    log.end(&outcome).await?;
    // Who closes the output early (as `head` does) has seen enough.
    let shown = shown.or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    });
    shown.context("cannot write to standard output")?;
    Ok(Finished {
        job: log.job.map(|job| job.id),
        outcome,
        moved: log.moved,
    })
}

/// How the job ended, and whether all of it could be shown.
async fn follow(
    mut answer: Answer,
    log: &mut Log<'_>,
    terminal: &mut Terminal,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<(Outcome, io::Result<()>)> {
    let mut shown = Ok(());
    while shown.is_ok() {
        let step = tokio::select! {
            step = answer.step() => step,
            () = stop.cancelled() => break,
        };
        let Some(step) = step else {
            break;
        };
        shown = terminal.show(&step);
        log.note(&step).await?;
    }
    // A job that is over does not mind.
    answer.stop();
    // What it costs comes last.
    while let Some(step) = answer.step().await {
        if !matches!(step, Step::Text(_)) {
            let _ = terminal.show(&step);
        }
        log.note(&step).await?;
    }
    Ok((answer.finish().await, shown))
}

/// Writes one job into the list.
struct Log<'a> {
    history: &'a History,
    /// How long the job may take.
    within: Duration,
    job: Option<Job>,
    moved: Moved,
}

impl Log<'_> {
    async fn note(&mut self, step: &Step) -> anyhow::Result<()> {
        let (id, model, provider) = match step {
            Step::Offered { job } => (*job, String::new(), String::new()),
            Step::Awarded {
                job, model, name, ..
            } => (*job, model.clone(), name.clone()),
            Step::Charged { amount, paid, .. } => {
                self.moved.charged.0 = self.moved.charged.0.saturating_add(amount.0);
                self.moved.paid.0 = self.moved.paid.0.saturating_add(paid.0);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let began = self.job.as_ref().map_or_else(clock::now, |job| job.began);
        let job = Job {
            id,
            began,
            deadline: began + self.within,
            model,
            provider,
            status: Status::Running,
            tokens: 0,
        };
        self.history.put(&job).await?;
        self.job = Some(job);
        Ok(())
    }

    async fn end(&mut self, outcome: &Outcome) -> anyhow::Result<()> {
        let Some(job) = &mut self.job else {
            return Ok(());
        };
        (job.status, job.tokens) = match outcome {
            Ok(summary) => (Status::Done, summary.output_tokens),
            Err(Error::Stopped) => (Status::Stopped, 0),
            Err(_) => (Status::Failed, 0),
        };
        Ok(self.history.put(job).await?)
    }
}
