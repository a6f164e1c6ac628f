//! Running a batch that was ordered, from where it stands to its end.

mod ending;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use infernet_blobs::{Address, Blobs};
use infernet_node::mortality;
use infernet_protocol::batch::{Ask, Done, Reply, Standing};
use infernet_protocol::event::{Order, Signed};
use infernet_protocol::money::Msat;
use infernet_protocol::payload::Work;
use nostr::EventId;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cut::{Bounds, Cutter, Rules};
use super::group::{self, Course};
use super::journal::{self, Begun, Journal, Kept, Place, Tally};
use super::news::{News, Summary, Totals};
use super::outcome::Sheet;
use super::output::Output;
use super::talk::Talk;
use super::{Batch, Error, quote_of};

/// How often it is told how far the batch is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// Groups that are given at once at most, whatever an aggregator would take: their lines are in memory while they are
/// sent.
const MAX_AT_ONCE: u32 = 16;

/// Lines that must be done before it is guessed how long the rest takes.
const LEAST_FOR_A_GUESS: u64 = 16;

/// A batch that runs.
struct Run {
    shared: Arc<group::Shared>,
    scan: Arc<super::Scan>,
    cutter: Cutter,
    output: Output,
    output_path: PathBuf,
    input_path: PathBuf,
    rules: Rules,
    seed: [u8; 32],
    at_once: usize,
    courses: JoinSet<Result<Kept, Error>>,
    /// Groups that are over, and wait for their turn to be written.
    over: BTreeMap<u32, Kept>,
    next: u32,
    tally: Tally,
    all_cut: bool,
    began: Instant,
    /// Lines that were done before this process.
    before: u64,
}

impl Batch {
    /// Runs the batch to its end: gives groups, pays for them, writes their answers, and has back what is left.
    /// Stopped, or killed, it goes on when it is run again.
    ///
    /// # Errors
    /// [`Error::Stopped`]; an order that is refused; files and books that cannot be kept.
    pub async fn run(
        mut self,
        news: mpsc::UnboundedSender<News>,
        stop: CancellationToken,
    ) -> Result<Summary, Error> {
        if self.scan.task.is_none() {
            return self.write_flaws();
        }
        let going = async {
            let run = self.prepare(news).await?;
            run.go_on().await
        };
        let ended = tokio::select! {
            ended = going => ended,
            () = stop.cancelled() => Err(Error::Stopped),
        };
        if let (Ok(_), Some(journal)) = (&ended, self.journal.take()) {
            journal.close().await;
            self.forget();
        }
        ended
    }

    /// No line can be done: the output says so, line by line.
    fn write_flaws(&self) -> Result<Summary, Error> {
        let rules = self.rules(self.plan.model.clone());
        let sheet = Sheet {
            batch: "none".into(),
            at: infernet_node::clock::now(),
        };
        let (input, path) = (&self.plan.input, &self.plan.output);
        let failed = |source| Error::Output {
            path: path.clone(),
            source,
        };
        let length = std::fs::metadata(input)
            .map_err(|source| Error::Input {
                path: input.clone(),
                source,
            })?
            .len();
        let mut output = Output::open(path, 0, input, rules, sheet).map_err(failed)?;
        let end = Place {
            byte: length,
            line: self.scan.flawed,
        };
        let tally = output
            .append((Place::default(), end), &Ok(Done::new()))
            .map_err(failed)?;
        self.forget();
        Ok(Summary {
            order: None,
            totals: Totals {
                lines: tally.flawed,
                flawed: tally.flawed,
                ..Totals::default()
            },
            credit_msat: Msat::ZERO,
            broken: Vec::new(),
        })
    }

    /// Takes away what only an unfinished batch needs.
    fn forget(&self) {
        let journal = self.plan.journal();
        for ending in ["", "-wal", "-shm", ".lock", ".run"] {
            let mut name = journal.as_os_str().to_owned();
            name.push(ending);
            // What stays does no harm.
            let _ = std::fs::remove_file(name);
        }
    }

    fn rules(&self, model: Option<String>) -> Rules {
        Rules {
            scan: self.scan.clone(),
            model,
        }
    }

    async fn prepare(&mut self, news: mpsc::UnboundedSender<News>) -> Result<Run, Error> {
        let (Some(journal), Some(begun)) = (self.journal.clone(), self.begun.clone()) else {
            return Err(Error::Invalid("nothing was ordered".into()));
        };
        let damaged = |_| Error::Journal(journal::Error::Damaged("an order that is not valid"));
        let order = Signed::<Order>::verify(begun.order.clone()).map_err(damaged)?;
        let quote = quote_of(&order)?;
        let client = self.client.shared();
        let talk = match self.talk.take() {
            Some(talk) => talk,
            None => Talk::with(order.aggregator, client.keys(), &client.link)?,
        };
        tell_of_silence(&talk, news.clone());
        let standing = match self.taken(&talk, &journal, &begun, &order).await? {
            Ok(standing) => standing,
            Err(reason) => {
                // Nothing was given yet, so there is nothing to go on with.
                journal.close().await;
                self.journal = None;
                self.forget();
                return Err(Error::Refused(reason));
            }
        };
        let rules = self.rules(begun.model.clone());
        let sheet = Sheet {
            batch: order.id().to_hex().chars().take(8).collect(),
            at: begun.ordered_at,
        };
        let shared = Arc::new(group::Shared {
            order: order.id(),
            aggregator: order.aggregator,
            talk,
            blobs: self.blobs(),
            journal: journal.clone(),
            purse: client.purse.clone(),
            news,
            progress: Mutex::default(),
            breaches: Mutex::default(),
            quote: quote.clone(),
        });
        let bounds = Bounds {
            quote,
            max_hold: held_at_most(&standing),
        };
        let kept = journal.groups(begun.written.saturating_sub(1)).await?;
        let behind = kept
            .last()
            .map_or((0, Place::default()), |last| (last.number + 1, last.end));
        let input = self.plan.input.clone();
        let cutter =
            Cutter::at(&input, rules.clone(), bounds, begun.seed, behind).map_err(|source| {
                Error::Input {
                    path: input.clone(),
                    source,
                }
            })?;
        let path = self.plan.output.clone();
        let output = Output::open(&path, begun.written_bytes, &input, rules.clone(), sheet)
            .map_err(|source| Error::Output {
                path: path.clone(),
                source,
            })?;
        let mut run = Run {
            shared,
            scan: self.scan.clone(),
            cutter,
            output,
            output_path: path,
            input_path: input,
            rules,
            seed: begun.seed,
            at_once: standing.groups_at_once.clamp(1, MAX_AT_ONCE) as usize,
            courses: JoinSet::new(),
            over: BTreeMap::new(),
            next: begun.written,
            tally: begun.tally,
            all_cut: false,
            began: Instant::now(),
            before: begun.tally.done + begun.tally.failed,
        };
        for kept in kept {
            if kept.number >= begun.written {
                run.take_up(kept)?;
            }
        }
        Ok(run)
    }

    /// Has the order taken, if it was not, and hears how it stands; or why it is refused.
    async fn taken(
        &self,
        talk: &Talk,
        journal: &Journal,
        begun: &Begun,
        order: &Signed<Order>,
    ) -> Result<Result<Standing, String>, Error> {
        if begun.is_taken {
            return Ok(Ok(standing(talk, order.id()).await?));
        }
        let event = Box::new(order.event().clone());
        match talk.ask(None, Ask::Order { event }).await? {
            Reply::Standing(standing) => {
                journal.taken().await?;
                mortality::point("batch-taken");
                Ok(Ok(standing))
            }
            Reply::Refused { reason } => Ok(Err(reason)),
            _ => Err(Error::Quote("its answer to the order makes no sense")),
        }
    }

    /// Our own blob servers, and those of the aggregator that can be trusted with an address.
    fn blobs(&self) -> Blobs {
        let client = self.client.shared();
        let relays: Vec<_> = client
            .link
            .relays()
            .into_iter()
            .map(|relay| relay.url)
            .collect();
        let mut servers = client.options.blob_servers(&relays);
        let theirs = self
            .aggregator
            .iter()
            .flat_map(|announced| &announced.blobs);
        let safe = theirs.filter(|server| server.starts_with("https://"));
        for server in safe.filter_map(|server| server.parse::<Address>().ok()) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Blobs::new(servers, client.keys().clone())
    }
}

/// How an order stands, whatever it takes to hear it.
async fn standing(talk: &Talk, order: EventId) -> Result<Standing, Error> {
    match talk.ask(Some(order), Ask::Standing).await? {
        Reply::Standing(standing) => Ok(standing),
        Reply::Refused { reason } => Err(Error::Refused(reason)),
        _ => Err(Error::Quote("its answer makes no sense")),
    }
}

/// An aggregator of free work holds nothing, and free work needs nothing to be held.
const fn held_at_most(standing: &Standing) -> Msat {
    standing.max_hold_msat
}

fn tell_of_silence(talk: &Talk, news: mpsc::UnboundedSender<News>) {
    let mut is_there = talk.is_there();
    tokio::spawn(async move {
        while is_there.changed().await.is_ok() {
            let said = match *is_there.borrow_and_update() {
                true => News::Back,
                false => News::Away,
            };
            if news.send(said).is_err() {
                return;
            }
        }
    });
}

impl Run {
    /// Takes up a group that an earlier process has cut off.
    fn take_up(&mut self, kept: Kept) -> Result<(), Error> {
        let is_ready = kept.is_over || kept.input.is_some();
        let works = match is_ready {
            true => Vec::new(),
            false => {
                let works = self.rules.works(&self.input_path, &self.seed, &kept);
                works.map_err(|source| Error::Input {
                    path: self.input_path.clone(),
                    source,
                })?
            }
        };
        self.begin(kept, works);
        Ok(())
    }

    /// Follows a group from where it is; `works` are its lines if it is not given yet.
    fn begin(&mut self, kept: Kept, works: Vec<Work>) {
        let shared = self.shared.clone();
        if kept.is_over {
            self.over.insert(kept.number, kept);
        } else if kept.input.is_some() {
            self.courses.spawn(Course::of(shared, kept).follow());
        } else {
            self.courses.spawn(Course::begin(shared, kept, works));
        }
    }

    async fn go_on(mut self) -> Result<Summary, Error> {
        let mut tick = tokio::time::interval(TELL_EVERY);
        loop {
            self.write().await?;
            self.give().await?;
            if self.courses.is_empty() && self.over.is_empty() && self.all_cut {
                break;
            }
            tokio::select! {
                Some(ended) = self.courses.join_next() => {
                    let ended = ended.map_err(|_| Error::Invalid("a group broke off".into()))?;
                    let kept = ended?;
                    self.over.insert(kept.number, kept);
                }
                _ = tick.tick() => self.tell(),
            }
        }
        self.tell();
        self.end().await
    }

    /// Gives as many groups as may be under way at once.
    async fn give(&mut self) -> Result<(), Error> {
        while !self.all_cut && self.courses.len() < self.at_once {
            let cut = self.cutter.next().map_err(|source| Error::Input {
                path: self.input_path.clone(),
                source,
            })?;
            let Some(cut) = cut else {
                self.all_cut = true;
                return Ok(());
            };
            let kept = cut.kept();
            self.shared.journal.cut(&kept).await?;
            mortality::point("group-cut");
            self.begin(kept, cut.works);
        }
        Ok(())
    }

    /// Writes the groups that are over and whose turn it is.
    async fn write(&mut self) -> Result<(), Error> {
        while let Some(kept) = self.over.remove(&self.next) {
            let outcomes = self.outcomes(&kept).await?;
            let mut tally = self
                .output
                .append((kept.begin, kept.end), &outcomes)
                .map_err(|source| Error::Output {
                    path: self.output_path.clone(),
                    source,
                })?;
            if outcomes.is_ok() {
                tally.verified = kept.verified.min(tally.done);
                tally.cost = kept
                    .delivery
                    .as_ref()
                    .map_or(Msat::ZERO, |d| d.charge.total());
            }
            self.tally.add(tally);
            mortality::point("group-appended");
            let journal = &self.shared.journal;
            journal
                .written(kept.number, self.output.bytes, &self.tally)
                .await?;
            self.next = kept.number + 1;
        }
        Ok(())
    }

    /// What became of a group's lines, or why nothing did.
    async fn outcomes(&self, kept: &Kept) -> Result<Result<Done, String>, Error> {
        if let Some(why) = &kept.failed {
            return Ok(Err(why.clone()));
        }
        let Some(key) = &kept.opens else {
            // A group without a line that could be given.
            return Ok(Ok(Done::new()));
        };
        let sealed = self.shared.journal.sealed(kept.number).await?;
        Ok(group::outcomes(key, sealed))
    }

    fn tell(&self) {
        self.shared.tell(News::Totals(self.totals()));
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals {
            lines: self.scan.lines(),
            flawed: self.scan.flawed,
            running: 0,
            done: self.tally.done,
            verified: self.tally.verified,
            failed: self.tally.failed,
            tokens: self.tally.tokens,
            cost_msat: self.tally.cost,
            seconds_left: None,
        };
        for kept in self.over.values() {
            totals.done += kept.size.lines;
            totals.verified += kept.verified;
            let charge = kept
                .delivery
                .as_ref()
                .map(|delivery| delivery.charge.total());
            totals.cost_msat.0 += charge.unwrap_or_default().0;
        }
        for progress in self.shared.progress().values() {
            totals.running += progress.running;
            totals.failed += progress.failed;
            totals.done += progress.done.saturating_sub(progress.failed);
            totals.verified += progress.verified;
            totals.cost_msat.0 = totals.cost_msat.0.saturating_add(progress.cost_msat.0);
        }
        totals.seconds_left = self.seconds_left(totals.done + totals.failed);
        totals
    }

    /// From how fast it has gone since this process began.
    fn seconds_left(&self, over: u64) -> Option<u64> {
        let done = over.saturating_sub(self.before);
        let left = self.scan.size.lines.saturating_sub(over);
        let seconds = self.began.elapsed().as_secs_f64();
        (done >= LEAST_FOR_A_GUESS).then(|| (seconds / done as f64 * left as f64).ceil() as u64)
    }
}
