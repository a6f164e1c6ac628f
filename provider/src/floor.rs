//! The floor of the shop, where everything comes together: one loop that hears
//! the market, the attempts, the clock and the owner, and decides.
//!
//! **Invariant:** only this loop changes the queue and the attempts' table. What
//! takes time (checking an award, computing, publishing) runs beside it and
//! reports back.

mod awards;
mod closing;
mod ear;
mod standing;
mod turns;
mod voice;
mod wishes;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::{Error as LinkError, Published, RelayStatus};
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::{Offer, Signed};
use infernet_protocol::job::Millis;
use infernet_protocol::kinds;
use infernet_protocol::seal::Conversation;
use nostr::{EventId, PublicKey, RelayUrl};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use awards::Written;
pub use ear::{Ear, Heard};

use crate::admission::Verdict;
use crate::announcing::Schedule;
use crate::attempt::{Order, Report};
use crate::bidding::{Bidder, Moment};
use crate::limits::{Bucket, Doors, Remembered};
use crate::parcels::Arrived;
use crate::queue::Queue;
use crate::shop::Shop;
use crate::status::{self, Tally};
use crate::steady::{Steady, wall};
use crate::store::Answered;
use crate::visibility;

/// Awards that are checked at the same time, at most; each takes a core for some
/// milliseconds, and more than there are cores make all of them late. The rest waits
/// on the link.
const MAX_ADMISSIONS: usize = 8;

/// Awards looked at in a second, sustained and at once: of those who have paid
/// here, and as many of others. Each may cost an answer, so this also bounds what
/// strangers can have us say.
const AWARDS_PER_S: u64 = 200;
const AWARDS_BURST: u64 = 1_000;

/// Awards and cancels that are remembered without asking the store.
const MAX_REMEMBERED: usize = 16_384;

/// Reports that may wait; the loop takes them faster than attempts make them.
const MAX_REPORTS: usize = 256;

/// How often awards that are not served are written down. A crash forgets the last
/// of them.
const REFUSALS_EVERY: Duration = Duration::from_millis(250);

/// How often the store forgets what is over.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);

/// A question of the owner's.
#[derive(Debug)]
pub enum Question {
    /// How do you stand?
    Status(oneshot::Sender<status::Status>),
}

/// What the floor hears from outside.
#[derive(Debug)]
pub struct Ears {
    /// Offers.
    pub offers: Ear,
    /// Awards, cancels and wishes for us.
    pub own: Ear,
    /// The owner's questions.
    pub questions: mpsc::Receiver<Question>,
}

/// Where an attempt stands in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It waits for money, outside the queue.
    Unpaid,
    Waiting,
    Running,
    Over,
}

/// One attempt, as the loop knows it.
#[derive(Debug)]
struct Entry {
    orders: mpsc::UnboundedSender<Order>,
    buyer: PublicKey,
    job: EventId,
    number: u32,
    conversation: Conversation,
    phase: Phase,
    begun_at: Option<Millis>,
    /// When the buyer's last wish was passed on.
    wished_at: Millis,
    /// How often it is listened to about money.
    words_on_money: Bucket,
}

/// The loop's state.
#[derive(Debug)]
pub struct Floor {
    shop: Arc<Shop>,
    shutdown: Shutdown,
    clock: Steady,
    ears: Ears,
    relays: watch::Receiver<Vec<RelayStatus>>,
    sessions: u64,
    queue: Queue,
    attempts: HashMap<EventId, Entry>,
    lingering: VecDeque<EventId>,
    checking: HashSet<EventId>,
    admissions: JoinSet<(EventId, Verdict)>,
    max_admissions: usize,
    /// Awards that are taken on, while they are written down.
    writings: JoinSet<Written>,
    /// Awards whose payloads are fetched, before they are looked at again.
    fetches: JoinSet<Arrived>,
    awards: Doors,
    /// How often refunds, and wishes about no open attempt, are looked into.
    refunds: Doors,
    answered: Remembered<EventId>,
    /// Awards that are not served, and are not written down yet.
    refused: Vec<Answered>,
    refusals: Interval,
    cancelled: Remembered<(EventId, PublicKey)>,
    bidder: Bidder,
    schedule: Schedule,
    announcements: JoinSet<Result<Published, LinkError>>,
    announced: watch::Sender<Vec<RelayUrl>>,
    /// Whether the owner was told that no relay takes the announcement.
    is_unheard: bool,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    heartbeat: Interval,
    purge: Interval,
    mean_job_ms: f64,
    tally: Tally,
    started_at: Millis,
    is_closing: bool,
    is_aborting: bool,
}

/// What happened.
enum Happening {
    Offer(Option<Heard>),
    Own(Option<Heard>),
    Checked(Result<(EventId, Verdict), JoinError>),
    Written(Result<Box<Written>, JoinError>),
    Arrived(Result<Arrived, JoinError>),
    Report(Report),
    TimeToAnnounce,
    Announced(Result<Published, LinkError>),
    RelaysChanged,
    Heartbeat,
    Refusals,
    Purge,
    Question(Question),
    StopSoon,
    StopNow,
}

impl Floor {
    /// A floor on which nothing runs.
    pub fn new(
        shop: Arc<Shop>,
        shutdown: Shutdown,
        ears: Ears,
        announced: watch::Sender<Vec<RelayUrl>>,
    ) -> Self {
        let (reporter, reports) = mpsc::channel(MAX_REPORTS);
        let clock = Steady::start();
        let at = clock.now();
        let (slots, places) = (shop.options.slots, shop.options.queue);
        Self {
            relays: shop.link.changes(),
            shop,
            shutdown,
            clock,
            ears,
            sessions: 0,
            queue: Queue::new(slots, places),
            attempts: HashMap::new(),
            lingering: VecDeque::new(),
            checking: HashSet::new(),
            admissions: JoinSet::new(),
            max_admissions: available_parallelism()
                .map_or(2, usize::from)
                .min(MAX_ADMISSIONS),
            writings: JoinSet::new(),
            fetches: JoinSet::new(),
            awards: Doors::new(AWARDS_PER_S, AWARDS_BURST, at),
            refunds: Doors::new(wishes::REFUNDS_PER_S, wishes::REFUNDS_BURST, at),
            answered: Remembered::new(MAX_REMEMBERED),
            refused: Vec::new(),
            refusals: every(REFUSALS_EVERY),
            cancelled: Remembered::new(MAX_REMEMBERED),
            bidder: Bidder::new(wall()),
            schedule: Schedule::new(at),
            announcements: JoinSet::new(),
            announced,
            is_unheard: false,
            reports,
            reporter,
            heartbeat: every(visibility::HEARTBEAT_EVERY),
            purge: every(PURGE_EVERY),
            mean_job_ms: 0.0,
            tally: Tally::default(),
            started_at: at,
            is_closing: false,
            is_aborting: false,
        }
    }

    /// Runs until the shutdown, and what it leaves to finish, are done.
    pub async fn run(mut self) {
        self.relays.mark_changed();
        while !self.is_done() {
            let happening = self.next().await;
            self.handle(happening).await;
        }
        self.close().await;
    }

    async fn next(&mut self) -> Happening {
        let announce_in = self.schedule.due().map(|due| due.since(self.clock.now()));
        let may_check = self.admissions.len() < self.max_admissions;
        tokio::select! {
            () = self.shutdown.hard(), if !self.is_aborting => Happening::StopNow,
            () = self.shutdown.soft(), if !self.is_closing => Happening::StopSoon,
            Some(report) = self.reports.recv() => Happening::Report(report),
            Some(checked) = self.admissions.join_next() => Happening::Checked(checked),
            Some(written) = self.writings.join_next() => Happening::Written(written.map(Box::new)),
            Some(arrived) = self.fetches.join_next() => Happening::Arrived(arrived),
            heard = self.ears.own.next(), if may_check => Happening::Own(heard),
            heard = self.ears.offers.next(), if !self.is_closing => Happening::Offer(heard),
            Some(announced) = self.announcements.join_next() => {
                Happening::Announced(announced.unwrap_or(Err(LinkError::Stopped)))
            }
            () = sleep(Duration::from_millis(announce_in.unwrap_or(0))), if announce_in.is_some() => {
                Happening::TimeToAnnounce
            }
            Ok(()) = self.relays.changed() => Happening::RelaysChanged,
            Some(question) = self.ears.questions.recv() => Happening::Question(question),
            _ = self.heartbeat.tick() => Happening::Heartbeat,
            _ = self.refusals.tick(), if !self.refused.is_empty() => Happening::Refusals,
            _ = self.purge.tick() => Happening::Purge,
        }
    }

    async fn handle(&mut self, happening: Happening) {
        match happening {
            Happening::Offer(Some(heard)) => self.offered(heard),
            Happening::Own(Some(heard)) => self.addressed(heard).await,
            Happening::Offer(None) | Happening::Own(None) => self.shutdown.stop_now(),
            Happening::Checked(checked) => self.checked(checked).await,
            Happening::Written(Ok(written)) => self.written(*written).await,
            // Its place in the queue is lost until the next start.
            Happening::Written(Err(error)) => {
                tracing::error!(%error, "writing an award down failed")
            }
            Happening::Arrived(arrived) => self.arrived(arrived).await,
            Happening::Report(report) => self.reported(report).await,
            Happening::TimeToAnnounce => self.announce().await,
            Happening::Announced(announced) => self.was_announced(announced),
            Happening::RelaysChanged => self.relays_changed(),
            Happening::Heartbeat => {
                self.publish(vec![visibility::heartbeat(&self.shop, clock::now())])
            }
            Happening::Refusals => self.write_refused().await,
            Happening::Purge => self.purge().await,
            Happening::Question(Question::Status(answer)) => {
                // Whoever asked may have gone.
                let _ = answer.send(self.status());
            }
            Happening::StopSoon => self.stop_soon(),
            Happening::StopNow => self.stop_now(),
        }
    }

    /// An event that names us.
    async fn addressed(&mut self, heard: Heard) {
        match heard.event.kind.as_u16() {
            kinds::AWARD => self.awarded(heard).await,
            kinds::CANCEL => self.cancelled(heard.event),
            kinds::CONTROL => self.wished(&heard.event),
            _ => {}
        }
    }

    fn offered(&mut self, Heard { event, is_live }: Heard) {
        let Ok(offer) = Signed::<Offer>::from_verified(event) else {
            return;
        };
        if self.queue.room_for(&offer.author()).is_err() {
            return tracing::debug!(job = %offer.id(), "no bid: the queue is full");
        }
        let moment = Moment {
            now: wall(),
            wait_ms: self.wait_ms(),
            is_live,
            is_customer: self.is_customer(&offer.author()),
        };
        match self.bidder.consider(&offer, &self.shop, moment) {
            Ok(bid) => {
                tracing::info!(job = %offer.id(), peer = %offer.author(), model = bid.name, "bids");
                self.tally.bids += 1;
                self.publish(vec![self.shop.sign(&bid, clock::now())]);
            }
            Err(pass) => tracing::debug!(job = %offer.id(), %pass, "no bid"),
        }
    }

    /// How long work that comes now would wait, as far as the past tells.
    fn wait_ms(&self) -> u64 {
        let slots = self.shop.options.slots as usize;
        let ahead = self.queue.running() + self.queue.queued();
        let rounds = match ahead < slots {
            true => 0,
            false => (ahead + 1 - slots).div_ceil(slots),
        };
        // A float cast saturates; neither factor is negative.
        (rounds as f64 * self.mean_job_ms) as u64
    }

    /// Whether this buyer has ever paid here.
    fn is_customer(&self, buyer: &PublicKey) -> bool {
        let till = self.shop.till.as_ref();
        till.is_some_and(|till| till.is_customer(buyer))
    }

    async fn purge(&self) {
        if let Err(error) = self.shop.store.purge(clock::now()).await {
            tracing::error!(%error, "cannot forget what is over");
        }
    }
}

impl Entry {
    /// Tells the attempt; one that has just been forgotten needs nothing.
    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
    }
}

/// Ticks that are late are left out; the first comes after a whole period.
fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval.reset();
    interval
}
