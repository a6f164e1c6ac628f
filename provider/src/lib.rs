//! Sells inference on the market: announces, bids, runs, streams, delivers.
//!
//! [`run`] takes [`Options`], an engine and a shutdown, and answers a [`Handle`]:
//!
//! ```no_run
//! # async fn example(engine: std::sync::Arc<dyn infernet_engine::Engine>) -> Result<(), Box<dyn std::error::Error>> {
//! use infernet_node::shutdown::Shutdown;
//! use infernet_provider::{Options, run};
//! use nostr::{Keys, RelayUrl};
//!
//! let relays = vec![RelayUrl::parse("ws://127.0.0.1:7777")?];
//! let options = Options::new(Keys::generate(), "./provider", relays);
//! let provider = run(options, engine, Shutdown::on_signals()?).await?;
//! provider.announced().await;
//! provider.ended().await;
//! # Ok(())
//! # }
//! ```
//!
//! # An award's way through the house
//! `floor` hears it → `admission` checks it (beside the loop) → `queue` gives it
//! a place → `store` writes it down → `attempt` drives the protocol's machine
//! between the engine (`work`) and the buyer → `delivery` seals the result, keeps
//! it, and publishes it until a relay has it. One that is paid by a tab waits in
//! the `lobby` until the `till` lets it draw, asks the till how far it may, and is
//! charged when it is over. One that an aggregator pays for after its check is lent by
//! the till, charged when it is done, and paid when the aggregator asks for an invoice.
//!
//! # What survives a crash
//! An award is written down before it is accepted, a result before it is
//! published. At the next start, accepted attempts without a result are given up
//! by a cancel (kind 8607, `restarted`), what was done for money and not charged
//! is charged, and what no relay has acknowledged is published again.
//!
//! **Invariant:** prompts, outputs and keys reach neither the store (but sealed)
//! nor a log.

mod admission;
mod announcing;
mod attempt;
mod bidding;
mod catalogue;
mod delivery;
mod floor;
mod home;
mod limits;
mod lobby;
pub mod money;
mod options;
mod output;
mod parcels;
mod promise;
mod queue;
pub mod settings;
mod shop;
pub mod socket;
pub mod status;
mod steady;
mod store;
mod till;
mod visibility;
mod work;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use infernet_blobs::Blobs;
use infernet_engine::Engine;
use infernet_node::clock;
use infernet_node::link::{self, Link};
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::{Announcement, Load, Refusal, Signed, Status as Announced};
use infernet_protocol::kinds;
use infernet_protocol::seal::Conversations;
use nostr::{Filter, Kind, PublicKey, RelayUrl, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use admission::MAX_SKEW_S;
use announcing::Bulletin;
use catalogue::Catalogue;
use floor::{Ear, Ears, Floor, Question};
pub use home::Home;
pub use options::{Escrow, Options};
use promise::Promises;
use shop::{SharedEngine, Shop};
use socket::Desk;
use store::Store;
use till::Till;

/// How long a start waits for the wallet.
const WALLET_PATIENCE: Duration = Duration::from_secs(10);

/// Questions of the owner's that may wait.
const MAX_QUESTIONS: usize = 16;

/// Why a provider does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error(transparent)]
    Options(#[from] options::Error),
    /// The home folder cannot be had.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// There is nothing to sell.
    #[error(transparent)]
    Catalogue(#[from] catalogue::Error),
    /// A model does not work.
    #[error(transparent)]
    Promise(#[from] promise::Error),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is a price, and nowhere to be paid.
    #[error(
        "a price is set, and no wallet to be paid into: set INFERNET_WALLET, or the price to 0"
    )]
    NoWallet,
    /// The till cannot be opened.
    #[error(transparent)]
    Till(#[from] till::Error),
    /// The relays cannot be used.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// What there is to announce does not fit in an announcement.
    #[error("this cannot be announced: {0}. Offer fewer models, or shorten names")]
    Announcement(Refusal),
    /// It was told to stop before it had begun.
    #[error("stopped before it had begun")]
    Stopped,
}

/// A running provider. Clones are cheap and speak of the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    public_key: PublicKey,
    questions: mpsc::Sender<Question>,
    announced: watch::Receiver<Vec<RelayUrl>>,
    ended: CancellationToken,
}

impl Handle {
    /// Who sells.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Waits for the first announcement that a relay has taken; answers which
    /// relays have, or none if the provider ended before.
    pub async fn announced(&self) -> Vec<RelayUrl> {
        let mut announced = self.announced.clone();
        match announced.wait_for(|relays| !relays.is_empty()).await {
            Ok(relays) => relays.clone(),
            Err(_) => vec![],
        }
    }

    /// How it stands, unless it has ended.
    pub async fn status(&self) -> Option<status::Status> {
        let (asked, answered) = oneshot::channel();
        self.questions.send(Question::Status(asked)).await.ok()?;
        answered.await.ok()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Starts a provider: takes its home, measures its models, makes good for an
/// earlier process that died, listens, and announces itself as soon as a relay
/// is connected.
///
/// # Errors
/// What stands in the way of starting. That no relay can be reached does not: it
/// goes on trying.
pub async fn run(
    options: Options,
    engine: Arc<dyn Engine>,
    shutdown: Shutdown,
) -> Result<Handle, Error> {
    options.validate()?;
    let home = Home::take(&options.home)?;
    let catalogue = Catalogue::new(&*engine, &options)?;
    if catalogue.has_prices() && options.wallet.is_none() {
        return Err(Error::NoWallet);
    }
    let promises = Promises::new(options.max_speed, options.promise);
    tokio::select! {
        measured = promises.measure(&*engine, options.slots - 1) => measured?,
        () = shutdown.soft() => return Err(Error::Stopped),
    }
    let store = Store::open(&home.store()).await?;
    let till = open_till(&options, &home, &store).await?;
    let shop = Arc::new(Shop {
        engine_version: shop::plain_name(engine.version()),
        engine: SharedEngine(engine),
        catalogue,
        promises,
        link: Link::open(link::Options::new(
            options.relays.clone(),
            options.keys.clone(),
        ))?,
        conversations: Conversations::new(options.keys.secret_key().clone()),
        blobs: Blobs::new(options.blob_servers(), options.keys.clone()),
        store,
        till,
        customers: RandomState::new(),
        publications: TaskTracker::new(),
        options,
    });
    check_announcement(&shop)?;
    let desk = Desk::open(&Home::socket(home.folder()))?;
    open(shop, home, desk, shutdown).await
}

/// Opens for business.
async fn open(
    shop: Arc<Shop>,
    home: Home,
    desk: Desk,
    shutdown: Shutdown,
) -> Result<Handle, Error> {
    let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
    let (announced, announcements) = watch::channel(vec![]);
    let ended = CancellationToken::new();
    let handle = Handle {
        public_key: shop.public_key(),
        questions: questions.clone(),
        announced: announcements,
        ended: ended.clone(),
    };
    // Open before anything is published: who answers it is heard.
    let ears = listen(&shop, asked)?;
    delivery::recover(&shop).await?;
    let blobs = shop.blobs.clone();
    let floor = Floor::new(shop, shutdown.clone(), ears, announced);
    let ends = ended.drop_guard();
    tokio::spawn(async move {
        let finding_out = async {
            blobs.find_out().await;
            std::future::pending().await
        };
        tokio::select! {
            () = finding_out => {}
            () = floor.run() => {}
            () = desk.serve(questions, shutdown) => {}
        }
        // In this order: whoever waits for the end may start the next one.
        drop(home);
        drop(ends);
    });
    Ok(handle)
}

/// Subscribes to the offers we could bid on, and to what is meant for us.
fn listen(shop: &Shop, questions: mpsc::Receiver<Question>) -> Result<Ears, link::Error> {
    // Relays hold live events against this too.
    let since = Timestamp::from_secs(clock::now().as_secs().saturating_sub(MAX_SKEW_S));
    let tasks = shop.catalogue.tasks().into_iter();
    let offers = Filter::new()
        .kind(Kind::from(kinds::OFFER))
        .hashtags(tasks.map(infernet_protocol::inference::Task::as_str))
        .since(since);
    let own = [kinds::AWARD, kinds::CANCEL, kinds::CONTROL].map(Kind::from);
    let own = Filter::new()
        .kinds(own)
        .pubkey(shop.public_key())
        .since(since);
    Ok(Ears {
        own: Ear::new(shop.link.subscribe(vec![own])?),
        offers: Ear::new(shop.link.subscribe(vec![offers])?),
        questions,
    })
}

/// Opens the till, if there is a wallet, and gives it a moment to be reached: the
/// first announcement then says which node signs its invoices.
async fn open_till(
    options: &Options,
    home: &Home,
    store: &Store,
) -> Result<Option<Till>, till::Error> {
    let Some(wallet) = options.wallet.clone() else {
        return Ok(None);
    };
    let keys = options.keys.clone();
    let terms = (options.tab, options.escrow.clone());
    let till = Till::open(keys, &home.ledger(), wallet, terms, store.clone()).await?;
    if timeout(WALLET_PATIENCE, till.greet()).await.is_err() {
        tracing::warn!(
            "the wallet cannot be reached yet: buyers who have to pay are declined until it is"
        );
    }
    Ok(Some(till))
}

/// Finds out at the start, not on the wire, that an announcement is too long.
fn check_announcement(shop: &Shop) -> Result<(), Error> {
    let bulletin = Bulletin {
        status: Announced::Online,
        load: Load::default(),
    };
    let now = clock::now();
    let event = shop.sign(&announcing::announcement(shop, bulletin, now), now);
    let checked = Signed::<Announcement>::from_verified(event);
    checked.map(drop).map_err(Error::Announcement)
}
