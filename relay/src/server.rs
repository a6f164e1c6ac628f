//! The relay's life: it opens its store, listens, serves, and ends in two stages.

mod door;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::clock;
use infernet_node::link::MAX_WORK;
use infernet_node::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use crate::blobs::{self, Blobs, Shelf};
use crate::http::{self, Site};
use crate::lists::{self, Lists};
use crate::management::Management;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::owner::{self, House};
use crate::session::negotiation::Reconciliation;
use crate::session::{Sessions, Shared};
use crate::store::{self, Store};
use crate::subscriptions::Hub;
use crate::sync::{self, Ours};
use door::Door;

/// How often expired events are purged. They are not answered in the meantime.
const PURGE_EVERY: Duration = Duration::from_secs(1);

/// How long sessions may take to finish their current message when the relay stops.
const GRACE: Duration = Duration::from_secs(5);

/// How often blobs whose days are over are dropped.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The folder of blobs, in that of the store.
const BLOBS: &str = "blobs";

/// Why the relay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(source, flag))]
    Listen {
        /// The address.
        address: String,
        /// What it was given by.
        flag: &'static str,
        /// What the operating system says.
        source: io::Error,
    },
    /// The folder cannot be used as a store.
    #[error("cannot use the folder {}: {source}", folder.display())]
    Store {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        source: store::Error,
    },
    /// The bans that are followed cannot be read from the store.
    #[error("cannot read whom others ban from the store: {source}")]
    Bans {
        /// What the store says.
        source: store::Error,
    },
    /// What the operator decided cannot be read.
    #[error(transparent)]
    Lists(#[from] lists::LogError),
    /// There is no place for blobs.
    #[error("{0}. Make room there, or start it with --no-blobs")]
    Blobs(#[from] blobs::Error),
}

fn hint(error: &io::Error, flag: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(". Stop what runs there, or choose another with {flag}")
        }
        io::ErrorKind::InvalidInput => {
            ". Write it as HOST:PORT, for example 127.0.0.1:7777".to_owned()
        }
        _ => String::new(),
    }
}

/// A running relay. Clones are cheap and speak of the same relay; it runs on when they are dropped.
#[derive(Debug, Clone)]
pub struct Handle {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    life: TaskTracker,
}

impl Handle {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the metrics' own port, if they have one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// The same as the URL that Nostr clients connect to.
    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Waits until the relay has ended and its folder is free.
    pub async fn ended(&self) {
        self.life.wait().await;
    }
}

/// Starts a relay, which serves until `shutdown`: the soft stage closes the port and lets each session finish its
/// current message, for five seconds at most; the hard stage ends it at once.
///
/// # Errors
/// When the folder or the address cannot be had.
pub async fn run(options: Options, shutdown: Shutdown) -> Result<Handle, Error> {
    let store = Store::open(&options.data).map_err(|source| Error::Store {
        folder: options.data.clone(),
        source,
    })?;
    let shelf = match options.blobs {
        true => {
            let folder = options.data.join(BLOBS);
            Some(Shelf::open(folder, options.blob_limits.clone())?)
        }
        false => None,
    };
    let lists = Arc::new(Lists::open(&options.data, options.lists.clone())?);
    let metrics = Arc::new(Metrics::default());
    let admission = Admission::new(&options, lists.clone());
    let recalled = admission.recall_bans(&store).await;
    recalled.map_err(|source| Error::Bans { source })?;
    let (listener, address) = listen(&options.listen, "--listen").await?;
    tracing::info!(%address, data = %options.data.display(), general = options.general, "relay started");
    warn_of(&options, address);
    let scraped = match &options.metrics {
        Some(address) => Some(listen(address, "--metrics").await?),
        None => None,
    };
    let (scraped, metrics_address) = scraped.unzip();
    let ports = Ports {
        listener,
        address,
        scraped,
    };
    let life = TaskTracker::new();
    let (store, admission) = (Arc::new(store), Arc::new(admission));
    watch(&metrics, &store, &admission);
    let kept = Kept {
        store,
        admission,
        lists,
        metrics,
        shelf,
    };
    life.spawn(live(ports, kept, options, shutdown));
    life.close();
    Ok(Handle {
        address,
        metrics_address,
        life,
    })
}

/// Lets the metrics read what others hold.
fn watch(metrics: &Metrics, store: &Arc<Store>, admission: &Arc<Admission>) {
    let held = store.clone();
    metrics.watch(
        "store_backlog_events",
        "Events in the log that are not in the index yet.",
        move || held.backlog() as f64,
    );
    let held = store.clone();
    metrics.watch("disk_bytes", "Bytes of the store on the disk.", move || {
        held.disk_bytes() as f64
    });
    let held = admission.clone();
    metrics.watch(
        "work_asked_bits",
        "Bits of proof of work asked of unknown keys (NIP-13).",
        move || f64::from(held.work_asked()),
    );
}

/// Says what an operator may not have meant, though a relay can run with it.
fn warn_of(options: &Options, address: SocketAddr) {
    let is_public = !address.ip().is_loopback() || !options.proxies.is_empty();
    if is_public && options.address.is_none() {
        tracing::warn!(
            "`address` is not set: another relay can use here what its clients sign for it (NIP-42)"
        );
    }
    if options.work.max_bits > MAX_WORK {
        tracing::warn!("`work.max_bits` is over {MAX_WORK}: the market's programs show no more");
    }
}

async fn listen(address: &str, flag: &'static str) -> Result<(TcpListener, SocketAddr), Error> {
    let refused = |source| Error::Listen {
        address: address.to_owned(),
        flag,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Where a relay listens.
struct Ports {
    listener: TcpListener,
    address: SocketAddr,
    /// Where the metrics have a port of their own.
    scraped: Option<TcpListener>,
}

/// What a relay keeps.
struct Kept {
    store: Arc<Store>,
    admission: Arc<Admission>,
    lists: Arc<Lists>,
    metrics: Arc<Metrics>,
    shelf: Option<Arc<Shelf>>,
}

impl Kept {
    /// What its sessions share.
    fn shared(&self, options: &Options) -> Shared {
        Shared {
            store: self.store.clone(),
            admission: self.admission.clone(),
            hub: Hub::new(self.metrics.clone()),
            reconciliation: Reconciliation::new(self.store.clone(), options.reconciliation.clone()),
            lists: self.lists.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

/// The relay as its owner has it.
fn house(shared: &Shared, options: &Options, address: SocketAddr) -> House {
    House {
        ours: Ours::new(
            shared.store.clone(),
            shared.admission.clone(),
            Some(shared.hub.clone()),
            shared.metrics.clone(),
            options.general,
        ),
        folder: options.data.clone(),
        peers: options.sync.clone(),
        address,
        started_at: clock::now(),
        shared: shared.clone(),
    }
}

/// The whole life of a relay, from its first connection to its last.
async fn live(ports: Ports, kept: Kept, options: Options, shutdown: Shutdown) {
    let shared = kept.shared(&options);
    let house = house(&shared, &options, ports.address);
    let tasks = TaskTracker::new();
    let abort = shutdown.hard_token().child_token();
    let places = Arc::new(Semaphore::new(options.limits.connections));
    let Kept {
        store,
        admission,
        lists,
        metrics,
        shelf,
    } = kept;
    let blobs = shelf.clone();
    let proxies = options.proxies.clone();
    let site = Site {
        places,
        sessions: Sessions::new(shared, &options, shutdown.soft_token()),
        store: store.clone(),
        management: Management::new(&options, ports.address, lists.clone(), store.clone()),
        blobs: blobs.map(|shelf| Blobs::new(shelf, lists.clone(), &options)),
        lists,
        metrics: metrics.clone(),
        tasks: tasks.clone(),
        abort: abort.clone(),
        options,
    };
    let door = Door {
        router: http::router(Arc::new(site)),
        admission: admission.clone(),
        proxies,
        tasks: tasks.clone(),
        abort: abort.clone(),
    };
    let scraped = Door {
        router: http::metrics_router(metrics),
        ..door.clone()
    };
    tokio::select! {
        () = door.accept(ports.listener) => {}
        () = scraped.accept_if(ports.scraped) => {}
        () = keep_purged(&store) => {}
        () = recall_trust(&admission, &store) => {}
        () = keep_swept(shelf) => {}
        () = owner::serve(&house) => {}
        () = sync::keep_equal(&house) => {}
        () = shutdown.soft() => {}
    }
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = sleep(GRACE) => {}
        () = shutdown.hard() => {}
    }
    abort.cancel();
    tasks.wait().await;
    tracing::info!("relay ended");
}

/// Purges what has expired, for ever.
async fn keep_purged(store: &Store) {
    let mut ticks = interval(PURGE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match store.purge(clock::now()).await {
            Ok(0) => {}
            Ok(events) => tracing::debug!(events, "purged"),
            Err(error) => tracing::error!(%error, "expired events cannot be purged"),
        }
    }
}

/// Reads whom others vouch for, and goes on for ever.
async fn recall_trust(admission: &Admission, store: &Store) {
    if let Err(error) = admission.recall_trust(store).await {
        tracing::error!(%error, "whom others vouch for cannot be read from the store: they must show work");
    }
    std::future::pending().await
}

/// Drops blobs whose days are over, for ever.
async fn keep_swept(shelf: Option<Arc<Shelf>>) {
    let Some(shelf) = shelf else {
        return std::future::pending().await;
    };
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shelf = shelf.clone();
        let swept = tokio::task::spawn_blocking(move || shelf.sweep(clock::now())).await;
        if let Ok(blobs @ 1..) = swept {
            tracing::debug!(blobs, "swept");
        }
    }
}
