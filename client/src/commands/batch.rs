//! `batch`: a file of requests goes to an aggregator, and a file of answers comes back.

mod progress;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use infernet_client::batch::{Batch, Error, Plan, Scan, Summary};
use infernet_client::history::{Job, Status};
use infernet_client::price::InWords;
use infernet_node::clock;
use infernet_protocol::event::{Checkers, Checking, Quote};
use infernet_protocol::money::{Msat, PaymentKind};
use nostr::{EventId, Timestamp};
use serde_json::json;
use tokio::sync::mpsc;

use super::{Exit, Misunderstood, Place, interrupt, print_json};
use crate::settings::MaxPrice;
use progress::{Progress, span};

/// The least share of results that is checked of providers that have shown themselves, in millionths: BOINC's 3 in 100.
const LEAST_CHECKED_PPM: u32 = 30_000;

/// Have a file of requests done by an aggregator
///
/// The input is OpenAI's batch format: one JSON object a line, with custom_id, url (/v1/chat/completions or
/// /v1/embeddings) and body, all for one model. The aggregator says what it would cost before anything is bought. A
/// batch that was interrupted goes on where it was with the same command.
#[derive(Debug, clap::Args)]
pub struct BatchCommand {
    /// The file of requests
    input: PathBuf,

    /// The file of answers to be written, in the order of the requests
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,

    /// The aggregator, by name or npub [default: aggregator in client.toml, else the only one there is]
    #[arg(long, value_name = "WHO")]
    aggregator: Option<String>,

    /// The model, whatever the lines name
    #[arg(long, short, value_name = "NAME")]
    model: Option<String>,

    /// Take the quote without asking
    #[arg(long, short)]
    yes: bool,

    /// The most that the whole may cost, in satoshis
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_sats: Option<u64>,

    /// The highest price of the work, in millisatoshis per million tokens of input and output
    #[arg(long, value_name = "IN[:OUT]", allow_negative_numbers = true)]
    max_price: Option<MaxPrice>,

    /// How much of the work is checked
    #[arg(long, value_enum, default_value_t = HowMuch::Adaptive)]
    checking: HowMuch,

    /// Who may see the work to check it [default: aggregator, or nobody with --checking none]
    #[arg(long, value_enum)]
    checkers: Option<Who>,

    /// How long it may take, in seconds [default: a day, or less if the aggregator holds money for less]
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,

    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

/// How much is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HowMuch {
    /// Every result
    Full,
    /// Every result of a provider that has not shown itself, fewer of one that has
    Adaptive,
    /// Nothing
    None,
}

/// Who may check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Who {
    /// The aggregator's own checkers
    Aggregator,
    /// Any provider that checks
    Market,
    /// Nobody
    Nobody,
}

impl From<Who> for Checkers {
    fn from(who: Who) -> Self {
        match who {
            Who::Aggregator => Self::Aggregator,
            Who::Market => Self::Market,
            Who::Nobody => Self::Nobody,
        }
    }
}

impl BatchCommand {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let plan = self.plan(&place)?;
        let client = place.paying_client().await?;
        let history = place.history().await?;
        let ended = self.go(client.clone(), plan, &history).await;
        client.close().await;
        history.close().await;
        match ended {
            Ok(exit) => Ok(exit),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Stopped) => {
                    eprintln!("Stopped. The same command goes on from here.");
                    Ok(Exit::Interrupted)
                }
                Some(Error::Mixed { .. } | Error::AlreadyThere(_) | Error::Changed(_)) => {
                    Err(Misunderstood(error.to_string()).into())
                }
                _ => Err(error),
            },
        }
    }

    fn plan(&self, place: &Place) -> anyhow::Result<Plan> {
        let checkers = match (self.checkers, self.checking) {
            (Some(who), _) => who,
            (None, HowMuch::None) => Who::Nobody,
            (None, HowMuch::Full | HowMuch::Adaptive) => Who::Aggregator,
        };
        if (checkers == Who::Nobody) != (self.checking == HowMuch::None) {
            let how = "--checkers nobody goes with --checking none, and only with it";
            return Err(Misunderstood(how.into()).into());
        }
        if [&self.input, &self.output]
            .iter()
            .any(|path| path.as_os_str() == "-")
        {
            let how = "requests and answers are in files, so that a batch can go on after a break: name one instead of -";
            return Err(Misunderstood(how.into()).into());
        }
        let defaults = &place.settings.defaults;
        let max_price = self.max_price.or(defaults.max_price);
        let settled = place.settings.aggregator.clone();
        Ok(Plan {
            input: self.input.clone(),
            output: self.output.clone(),
            model: self.model.clone(),
            aggregator: self.aggregator.clone().or(settled),
            checkers: checkers.into(),
            checking: match self.checking {
                HowMuch::Full => Checking::Full,
                HowMuch::None => Checking::None,
                HowMuch::Adaptive => Checking::Adaptive {
                    least_ppm: LEAST_CHECKED_PPM,
                },
            },
            deadline: self.deadline.map(Duration::from_secs),
            max_price: max_price.map(|MaxPrice(price)| price),
            max_cost: self.max_sats.and_then(Msat::from_sat),
        })
    }

    async fn go(
        &self,
        client: infernet_client::Client,
        plan: Plan,
        history: &infernet_client::history::History,
    ) -> anyhow::Result<Exit> {
        let mut batch = Batch::open(client, plan).await?;
        eprintln!("{}", what_there_is(batch.scan()));
        match batch.order_id() {
            Some(order) => eprintln!("Going on with order {}.", &order.to_hex()[..8]),
            None if batch.scan().task.is_none() => {}
            None => {
                let quote = batch.quote().await?;
                let name = batch.aggregator_name().unwrap_or_default().to_owned();
                eprintln!("{}", in_words(&quote, &name));
                if !self.is_agreed()? {
                    eprintln!("Nothing was ordered.");
                    return Ok(Exit::Failed);
                }
                batch.order(&quote).await?;
            }
        }
        let order = batch.order_id();
        let name = batch.aggregator_name().unwrap_or_default().to_owned();
        let mut note = Note {
            history,
            order,
            began: clock::now(),
            model: batch.scan().model.clone(),
            name,
        };
        note.put(Status::Running, 0).await?;
        let stop = interrupt::on_signals("Stopping; the same command goes on from here.")?;
        let (teller, mut told) = mpsc::unbounded_channel();
        let mut progress = Progress::new(note.name.clone());
        let mut running = pin!(batch.run(teller, stop));
        let ended = loop {
            tokio::select! {
                ended = &mut running => break ended,
                Some(news) = told.recv() => progress.show(&news),
            }
        };
        while let Ok(news) = told.try_recv() {
            progress.show(&news);
        }
        progress.end();
        let status = match &ended {
            Ok(_) => Status::Done,
            Err(Error::Stopped) => Status::Stopped,
            Err(_) => Status::Failed,
        };
        let tokens = ended.as_ref().map_or(0, |summary| summary.totals.tokens);
        note.put(status, tokens).await?;
        if let Err(error) = &ended
            && !matches!(error, Error::Stopped | Error::Refused(_))
        {
            eprintln!("It did not end. When that is mended, the same command goes on from here.");
        }
        self.end(&ended?)
    }

    /// Whether the user takes the quote.
    fn is_agreed(&self) -> anyhow::Result<bool> {
        if self.yes {
            return Ok(true);
        }
        if !io::stdin().is_terminal() {
            let how = "nobody is there to take the quote: give --yes, and --max-sats to bound it";
            return Err(Misunderstood(how.into()).into());
        }
        eprint!("Order it? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    fn end(&self, summary: &Summary) -> anyhow::Result<Exit> {
        let totals = &summary.totals;
        if self.json {
            print_json(&json!({
                "status": "done",
                "order": summary.order,
                "output": self.output,
                "totals": totals,
                "credit_msat": summary.credit_msat,
                "broken": summary.broken,
            }))?;
        }
        let path = self.output.display();
        eprintln!(
            "{} of {} done; the answers are in {path}.",
            totals.done,
            lines(totals.lines)
        );
        match totals.failed + totals.flawed {
            0 => {}
            1 => eprintln!("1 has an error there instead."),
            number => eprintln!("{number} have an error there instead."),
        }
        if totals.cost_msat > Msat::ZERO {
            eprintln!("It cost {}.", totals.cost_msat);
        }
        if summary.credit_msat > Msat::ZERO {
            eprintln!(
                "{} of what was held are left with the aggregator, for your next batch.",
                summary.credit_msat
            );
        }
        if let Some(order) = summary.order {
            eprintln!("See: infernet-client audit {}", &order.to_hex()[..8]);
        }
        Ok(
            match summary.broken.is_empty() && totals.failed + totals.flawed < totals.lines {
                true => Exit::Done,
                false => Exit::Failed,
            },
        )
    }
}

/// Writes the batch into the list of jobs.
struct Note<'a> {
    history: &'a infernet_client::history::History,
    order: Option<EventId>,
    began: Timestamp,
    model: String,
    name: String,
}

impl Note<'_> {
    async fn put(&mut self, status: Status, tokens: u64) -> anyhow::Result<()> {
        let Some(id) = self.order else { return Ok(()) };
        let job = Job {
            id,
            began: self.began,
            deadline: self.began + Duration::from_secs(7 * 86_400),
            model: self.model.clone(),
            provider: self.name.clone(),
            status,
            tokens,
        };
        Ok(self.history.put(&job).await?)
    }
}

fn what_there_is(scan: &Scan) -> String {
    let there = match scan.task {
        Some(task) => format!("{}: {task} with {}", lines(scan.size.lines), scan.model),
        None => "No line that can be done".into(),
    };
    match scan.flawed {
        0 => format!("{there}."),
        1 => format!("{there}. 1 cannot be done and becomes an error in the output."),
        flawed => format!("{there}. {flawed} cannot be done and become errors in the output."),
    }
}

fn lines(number: u64) -> String {
    match number {
        1 => "1 line".into(),
        _ => format!("{number} lines"),
    }
}

/// A quote in some lines.
fn in_words(quote: &Quote, name: &str) -> String {
    let cost = match quote.terms {
        PaymentKind::Free => "free".to_owned(),
        PaymentKind::Escrow | PaymentKind::Tab => format!(
            "at most {}: {}, up to {} % for checking, {} % fee on accepted lines",
            quote.most_msat,
            InWords(&quote.price),
            percent(quote.checking_ppm),
            percent(quote.fee_ppm)
        ),
    };
    let checked = match quote.checking {
        Checking::None => "nothing is checked".to_owned(),
        Checking::Full => format!("every result is checked by {}", by(quote.checkers)),
        Checking::Adaptive { least_ppm } => format!(
            "at least {} % of the results are checked by {}",
            percent(least_ppm),
            by(quote.checkers)
        ),
    };
    format!(
        "{name} quotes\n  cost      {cost}\n  time      about {}\n  checking  {checked}",
        span(quote.seconds)
    )
}

const fn by(checkers: Checkers) -> &'static str {
    match checkers {
        Checkers::Nobody => "nobody",
        Checkers::Aggregator => "the aggregator",
        Checkers::Market => "any provider that checks",
    }
}

fn percent(ppm: u32) -> f64 {
    f64::from(ppm) / 10_000.0
}
