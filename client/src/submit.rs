//! One job's driver: does what [`infernet_protocol::job::buyer::Job`] says, and tells it what happened.
//!
//! The job decides; the driver signs, sends, decrypts and checks. It runs in a task of its own until the job ends,
//! whoever holds the answer meanwhile, so that an end is always told to the provider.

mod award;
mod ending;
mod fetching;
mod inbox;
mod money;
mod pace;
mod placing;
pub(crate) mod results;
mod tally;
mod telling;

use std::collections::HashMap;
use std::time::Duration;

use infernet_node::{clock, link};
pub(crate) use results::owed;

use infernet_protocol::batch::Blob;
use infernet_protocol::bounds::{MAX_ATTEMPTS, MAX_BIDS};
use infernet_protocol::event::{Award, Experience, JobResult, Signed};
use infernet_protocol::inference::ModelId;
use infernet_protocol::job::Millis;
use infernet_protocol::job::buyer::{Effect, End, Input, Job, Mode, Plan};
use infernet_protocol::payload::Wish;
use infernet_protocol::seal::Conversation;
use infernet_protocol::seal::blob::Outsized;
use nostr::{Event, EventId, RelayUrl, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Outcome, Step};
use crate::client::{Client, Shared};
use crate::market::{Order, Word, bids_to_expect, standing};
use crate::purse::Told;
use crate::routing::{Ear, Heard};
use crate::{Request, Route};
use money::{Bill, Money};
use pace::Pace;
use placing::Placement;
use tally::Tally;

/// How often a job looks anew at who could take it over: announcements are renewed, and providers come and go.
const RESTOCK_EVERY_MS: u64 = 1_000;

/// The driver of one job.
pub(crate) struct Driver {
    client: Client,
    request: Request,
    order: Order,
    plan: Plan,
    deadline: Timestamp,
    relays: Vec<RelayUrl>,
    /// What candidates rest on, by the word's id.
    words: HashMap<EventId, Word>,
    /// When the announcements among the words were looked at last.
    stocked_at: u64,
    ear: Ear,
    reports: mpsc::UnboundedReceiver<Report>,
    reporter: mpsc::UnboundedSender<Report>,
    steps: mpsc::UnboundedSender<Step>,
    stop: CancellationToken,
    job_id: Option<EventId>,
    offer: Option<Event>,
    /// The attempt that counts.
    current: Option<Current>,
    attempts: u32,
    /// The model whose tokens were shown: only the same one can go on behind them.
    speaks: Option<ModelId>,
    pace: Pace,
    adrift: bool,
    /// Whether relays are connected, and none answers.
    unanswered: bool,
    clock: (u64, Instant),
    tally: Tally,
    /// Why the last award was not published.
    trouble: Option<link::Error>,
    money: Money,
}

/// The attempt that counts.
struct Current {
    award: Signed<Award>,
    word: Word,
    conversation: Conversation,
    accepted: bool,
    /// What went wrong, in the words of its result.
    error: Option<String>,
    /// What the result brought.
    delivered: Option<tally::Delivered>,
    /// Its place on the provider's tab, if it is paid and not over.
    bill: Option<Bill>,
    /// Whether we have left it for a reason that is not its provider's, and have said so.
    is_spared: bool,
    /// The result whose output is being fetched.
    fetching: Option<EventId>,
    /// Whether no relay answered for a while: its provider may have said what we never heard.
    was_adrift: bool,
}

impl Current {
    /// How it went, for people.
    fn how(&self, experience: Experience) -> String {
        match (experience, &self.error) {
            (Experience::Failed, Some(error)) => format!("failed: {error}"),
            (Experience::Failed, None) => "gave up".into(),
            (Experience::Silent, _) if !self.accepted => "did not answer".into(),
            (Experience::Silent, _) => "fell silent".into(),
            (Experience::Invalid, Some(error)) => format!("sent what is not valid: {error}"),
            (Experience::Invalid, None) => "sent what is not valid".into(),
            (Experience::Completed, _) => "did it".into(),
            (Experience::Rejected, _) => "sent what a check rejected".into(),
        }
    }
}

/// What a task of ours brings back.
enum Report {
    /// No relay took this event of ours.
    Unpublished(EventId, link::Error),
    /// What the relays have.
    Found(Vec<Event>),
    /// No relay says what it has of this award.
    Unanswered(EventId),
    /// About what is paid.
    Money(money::Report),
    /// The input of an attempt was put on servers, or not.
    Put(
        Box<Placement>,
        Outsized,
        Result<Blob, infernet_blobs::Error>,
    ),
    /// The output of a result is being fetched.
    Fetching(EventId),
    /// It was fetched, or not.
    Fetched(
        Box<Signed<JobResult>>,
        Result<Vec<u8>, infernet_blobs::Error>,
    ),
}

/// What the driver waits for.
enum Wake {
    Heard(Heard),
    Report(Report),
    Told(EventId, Told),
    Relays,
    Stop,
    Time,
}

impl Driver {
    /// Begins a job that can be done by `words`, the best first.
    pub fn start(client: Client, request: Request, order: Order, words: Vec<Word>) -> Answer {
        let (steps, steps_out) = mpsc::unbounded_channel();
        let (outcome, outcome_out) = oneshot::channel();
        let stop = client.shared().closing.child_token();
        let driver = Self::new(client, request, order, steps, stop.clone());
        let tasks = driver.shared().tasks.clone();
        tasks.spawn(async move {
            // Nobody need be there to hear how it ended.
            let _ = outcome.send(driver.run(words).await);
        });
        Answer::new(steps_out, outcome_out, stop)
    }

    fn new(
        client: Client,
        request: Request,
        order: Order,
        steps: mpsc::UnboundedSender<Step>,
        stop: CancellationToken,
    ) -> Self {
        let shared = client.shared().clone();
        let now = clock::unix_ms();
        let within = u64::try_from(request.deadline.as_millis()).unwrap_or(u64::MAX);
        let deadline = now.saturating_add(within);
        let (reporter, reports) = mpsc::unbounded_channel();
        let plan = Plan {
            mode: mode(&shared, &request, &order),
            deadline: Millis(deadline),
            max_tokens: request.max_output(),
            max_attempts: MAX_ATTEMPTS,
            patience: shared.options.patience,
        };
        Self {
            plan,
            deadline: Timestamp::from_secs(deadline.div_ceil(1_000)),
            relays: shared
                .link
                .relays()
                .into_iter()
                .map(|relay| relay.url)
                .collect(),
            words: HashMap::new(),
            stocked_at: now,
            ear: Ear::new(&shared.routes),
            reports,
            reporter,
            steps,
            stop,
            job_id: None,
            offer: None,
            current: None,
            attempts: 0,
            speaks: None,
            pace: Pace::new(deadline),
            adrift: false,
            unanswered: false,
            clock: (now, Instant::now()),
            tally: Tally::new(now),
            trouble: None,
            money: Money::new(),
            client,
            request,
            order,
        }
    }

    fn shared(&self) -> &Shared {
        self.client.shared()
    }

    async fn run(mut self, words: Vec<Word>) -> Outcome {
        let end = self.drive(words).await;
        self.settle_last().await;
        self.outcome(end)
    }

    /// From the beginning of the job to its end.
    async fn drive(&mut self, words: Vec<Word>) -> End {
        if let Mode::Auction { window_ms, .. } = self.plan.mode {
            self.offer(window_ms);
        }
        let candidates = words.iter().map(|word| word.candidate(false)).collect();
        self.words
            .extend(words.into_iter().map(|word| (word.event.id, word)));
        let (mut job, effects) = Job::begin(self.now(), self.plan, candidates);
        let mut end = self.carry_out(&mut job, effects);
        let mut relays = self.shared().link.changes();
        self.relays_changed();
        while end.is_none() {
            let until = job.next_deadline().unwrap_or(self.plan.deadline);
            let wake = self.wake(&mut relays, until).await;
            end = self.woken(&mut job, wake);
        }
        end.unwrap_or(End::Stopped)
    }

    async fn wake<T>(
        &mut self,
        relays: &mut tokio::sync::watch::Receiver<T>,
        until: Millis,
    ) -> Wake {
        let (began, instant) = self.clock;
        let at = instant + Duration::from_millis(self.pace.real(until).saturating_sub(began));
        let at = self.acknowledges_at().map_or(at, |due| due.min(at));
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            heard = self.ear.next() => Wake::Heard(heard),
            Some((award, told)) = self.money.told.recv() => Wake::Told(award, told),
            Some(report) = self.reports.recv() => Wake::Report(report),
            Ok(()) = relays.changed() => Wake::Relays,
            () = tokio::time::sleep_until(at) => Wake::Time,
        }
    }

    /// Tells the job what a wake means to it.
    fn woken(&mut self, job: &mut Job, wake: Wake) -> Option<End> {
        self.restock(job);
        let input = match wake {
            Wake::Stop => Some(Input::Stop),
            Wake::Heard(heard) => self.heard(heard),
            // One after the other: what the first leads to decides what the next one means.
            Wake::Report(Report::Found(events)) => {
                self.answered();
                return events
                    .into_iter()
                    .filter_map(Heard::read)
                    .find_map(|found| {
                        let input = self.heard(found.1)?;
                        self.step(job, input)
                    });
            }
            Wake::Report(Report::Unanswered(award)) => {
                self.unanswered(award);
                None
            }
            Wake::Report(Report::Unpublished(event, error)) => self.unpublished(event, error),
            Wake::Report(Report::Money(report)) => self.about_money(report),
            Wake::Report(Report::Put(placement, outsized, put)) => {
                Some(self.input_put(*placement, outsized, put))
            }
            Wake::Report(Report::Fetching(result)) => self.fetching(result),
            Wake::Report(Report::Fetched(result, fetched)) => self.fetched(&result, fetched),
            Wake::Told(award, told) => self.told(award, told),
            Wake::Relays => {
                self.relays_changed();
                None
            }
            Wake::Time => {
                self.acknowledge_if_due();
                self.pace.tick(self.real());
                Some(Input::Tick)
            }
        };
        self.step(job, input?)
    }

    /// Looks anew at who could take over: an announcement from the job's beginning has run out when a long answer
    /// breaks off.
    fn restock(&mut self, job: &mut Job) {
        let real = self.real();
        if real.saturating_sub(self.stocked_at) < RESTOCK_EVERY_MS {
            return;
        }
        self.stocked_at = real;
        let words = standing(&self.shared().market(), &self.order, clock::now());
        job.restock(words.iter().map(|word| word.candidate(false)));
        self.words.retain(|_, word| word.is_bid);
        self.words
            .extend(words.into_iter().map(|word| (word.event.id, word)));
    }

    /// Tells the job, and does what it says, until there is nothing left to do or the job is over.
    fn step(&mut self, job: &mut Job, input: Input) -> Option<End> {
        match job.step(self.now(), input) {
            Ok(effects) => self.carry_out(job, effects),
            Err(unexpected) => {
                tracing::error!(%unexpected, "the job and its driver disagree");
                None
            }
        }
    }

    fn carry_out(&mut self, job: &mut Job, effects: Vec<Effect>) -> Option<End> {
        for effect in effects {
            let answer = match effect {
                Effect::End(end) => return Some(end),
                Effect::Award { word, prefix, .. } => self.place(word, prefix),
                Effect::Show { text, tokens } => self.show(text, tokens),
                Effect::Resend { award, from } => self.whisper(award, Wish::Resend { from }),
                Effect::LookUp { award } => self.look_up(award),
                Effect::Cancel {
                    award,
                    provider,
                    reason,
                } => self.record_cancel(Some(award), Some(provider), reason),
                Effect::Attest(account) => self.attest(&account),
            };
            if let Some(end) = answer.and_then(|input| self.step(job, input)) {
                return Some(end);
            }
        }
        None
    }

    /// Unix milliseconds, steady even if somebody sets the clock.
    fn real(&self) -> u64 {
        let (began, instant) = self.clock;
        let passed = u64::try_from(instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        began.saturating_add(passed)
    }

    fn now(&self) -> Millis {
        self.pace.at(self.real())
    }

    fn tell(&self, step: Step) {
        // Whoever dropped the answer does not want to know.
        let _ = self.steps.send(step);
    }

    fn relays_changed(&mut self) {
        let connected = self
            .shared()
            .link
            .relays()
            .iter()
            .any(|relay| relay.connected);
        match (connected, self.adrift) {
            (false, false) => {
                self.pace.adrift(self.real());
                self.tell(Step::Adrift);
            }
            (true, true) => {
                self.pace.moored(self.real());
                self.tell(Step::Moored);
            }
            (false, true) | (true, false) => {}
        }
        self.unanswered &= connected;
        self.adrift = !connected;
        self.note_adrift();
    }

    /// Relays that are connected and do not answer bring no provider's words either: as good as none.
    fn unanswered(&mut self, award: EventId) {
        self.relays_changed();
        let is_current = |current: &Current| current.award.id() == award;
        if self.adrift || !self.current.as_ref().is_some_and(is_current) {
            return;
        }
        if !std::mem::replace(&mut self.unanswered, true) {
            self.pace.adrift(self.real());
            self.tell(Step::Adrift);
        }
        self.note_adrift();
        self.look_up(award);
    }

    fn note_adrift(&mut self) {
        let is_adrift = self.adrift || self.unanswered;
        if let Some(current) = &mut self.current {
            current.was_adrift |= is_adrift;
        }
    }

    /// A relay answers again.
    fn answered(&mut self) {
        if std::mem::take(&mut self.unanswered) {
            self.pace.moored(self.real());
            self.tell(Step::Moored);
        }
    }
}

fn mode(shared: &Shared, request: &Request, order: &Order) -> Mode {
    match request.route {
        Route::Direct | Route::To { .. } => Mode::Direct,
        Route::Auction => {
            let expected = bids_to_expect(&shared.market(), order, clock::now());
            Mode::Auction {
                window_ms: u64::try_from(shared.options.auction_window.as_millis())
                    .unwrap_or(u64::MAX),
                // Where nobody is known, whoever bids is waited for.
                enough_bids: match expected {
                    0 => MAX_BIDS,
                    _ => expected.min(MAX_BIDS),
                },
            }
        }
    }
}
