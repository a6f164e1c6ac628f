//! A wallet from its start to its stop.

use std::sync::Arc;
use std::time::Duration;

use infernet_node::link::{self, Link};
use infernet_node::shutdown::Shutdown;
use ldk_node::Node;
use nostr::{Keys, RelayUrl};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::control::{self, Control};
use crate::home::{self, Home};
use crate::lightning;
use crate::nip47::Refusal;
use crate::record::{self, Payment, Records};
use crate::relay::{self, Relay, Services};
use crate::seed::{self, Seed};
use crate::service::Service;
use crate::settings::{self, Settings};
use crate::wallet::{News, Parts, Wallet, blocking};
use crate::{events, holding, interrupted, peers};

/// Under which name the port of the wallet's own relay is remembered, so that connection strings stay true.
const RELAY_PORT: &str = "relay port";

/// How long LDK is given to write down what it knows and say goodbye.
const FAREWELL: Duration = Duration::from_secs(60);

/// How soon a relay that was away is tried again. The first one is our own.
const RETRY: Duration = Duration::from_millis(100);

/// Why a wallet does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// Its seed.
    #[error(transparent)]
    Seed(#[from] seed::Error),
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// Its records.
    #[error(transparent)]
    Records(#[from] record::Error),
    /// Its Lightning node.
    #[error(transparent)]
    Lightning(#[from] lightning::Error),
    /// The Lightning node does not start.
    #[error("the Lightning node does not start: {0}. Can the source of blocks ({1}) be reached?")]
    Start(ldk_node::NodeError, String),
    /// Its own relay.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// The relays in the settings.
    #[error("relays: {0}")]
    Relays(String),
    /// The records and LDK cannot be brought together.
    #[error("the wallet cannot finish what it had begun: {0}")]
    Resume(#[from] Refusal),
    /// The socket for the command line.
    #[error("cannot listen to the command line on {0}: {1}")]
    Control(String, std::io::Error),
}

/// Runs the wallet in `home` until `shutdown`; calls `ready` once it serves.
///
/// # Errors
/// See [`Error`].
pub async fn run(home: Home, shutdown: Shutdown, ready: impl FnOnce(&str)) -> Result<(), Error> {
    // Where there is no wallet, nothing is made.
    let seed = Seed::read(&home.seed())?;
    home.make()?;
    let _lock = home.lock()?;
    let settings = Settings::read(&home.settings())?;
    let records = Records::open(&home.records())?;
    let node = Arc::new(lightning::build(&settings, &seed, &home.ldk())?);
    start(node.clone(), &settings).await?;
    let served = serve(
        &home,
        &settings,
        &seed,
        records,
        node.clone(),
        shutdown,
        ready,
    )
    .await;
    // Whatever happened, LDK writes down what it knows: dying instead can close channels.
    stop(node).await;
    served
}

async fn start(node: Arc<Node>, settings: &Settings) -> Result<(), Error> {
    let started = blocking(move || node.start()).await?;
    let chain = settings.chain()?;
    started.map_err(|error| Error::Start(error, format!("{chain:?}")))
}

async fn stop(node: Arc<Node>) {
    match tokio::time::timeout(FAREWELL, blocking(move || node.stop())).await {
        Ok(Ok(Ok(()))) => tracing::info!("the Lightning node has stopped"),
        Ok(_) => tracing::error!("the Lightning node did not stop cleanly"),
        Err(_) => tracing::error!("the Lightning node takes too long to stop"),
    }
}

async fn serve(
    home: &Home,
    settings: &Settings,
    seed: &Seed,
    records: Records,
    node: Arc<Node>,
    shutdown: Shutdown,
    ready: impl FnOnce(&str),
) -> Result<(), Error> {
    let stop = CancellationToken::new();
    let _stops_when_dropped = stop.clone().drop_guard();
    let (wallet, news) = wallet(settings, seed, records, node, stop.clone())?;
    events::drain(&wallet).await?;
    holding::resume(&wallet).await?;
    let interrupted = interrupted::resume(&wallet)?;

    let services = Services::default();
    let (relay, link, relays) = connect(&wallet, settings, services.clone(), &stop).await?;
    let service = Service::new(wallet.clone(), link.clone(), services);
    let control = Control {
        wallet: wallet.clone(),
        link: link.clone(),
        relays,
        service: service.clone(),
        shutdown: shutdown.clone(),
    };
    let socket = home.socket();
    let listener = control::listen(&socket)
        .map_err(|error| Error::Control(socket.display().to_string(), error))?;
    let tasks = TaskTracker::new();
    tasks.spawn(events::run(wallet.clone()));
    tasks.spawn(peers::keep(wallet.clone()));
    tasks.spawn(service.clone().tell(news));
    tasks.spawn(service.clone().forget());
    for payment in interrupted {
        tasks.spawn(finish(wallet.clone(), payment));
    }
    service.start().await?;
    tasks.spawn(Arc::new(control).serve(listener));
    let url = relay.url.clone();
    relay.open();
    ready(url.as_str());

    shutdown.soft().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    link.shutdown().await;
    let _ = std::fs::remove_file(socket);
    Ok(())
}

async fn finish(wallet: Arc<Wallet>, payment: Payment) {
    if let Err(error) = interrupted::finish(wallet, payment).await {
        tracing::error!(%error, "an interrupted payment cannot be finished");
    }
}

fn wallet(
    settings: &Settings,
    seed: &Seed,
    records: Records,
    node: Arc<Node>,
    stop: CancellationToken,
) -> Result<(Arc<Wallet>, mpsc::Receiver<News>), Error> {
    let network = settings.network()?;
    let node_secret = seed.node_secret(network).ok_or_else(|| {
        settings::value(
            "network",
            &settings.network,
            "no keys can be derived for it",
        )
    })?;
    let alias = settings.alias.clone().unwrap_or_default();
    Ok(Wallet::new(Parts {
        node,
        records,
        network,
        node_secret,
        alias,
        stop,
    }))
}

/// Starts the wallet's own relay, and connects to it and to those in the settings; answers what clients are told.
async fn connect(
    wallet: &Wallet,
    settings: &Settings,
    services: Services,
    stop: &CancellationToken,
) -> Result<(Relay, Link, Vec<RelayUrl>), Error> {
    let mut address = settings.relay_address()?;
    let known = wallet.records.note(RELAY_PORT)?;
    if let (0, Some(port)) = (address.port(), known.and_then(|port| port.parse().ok())) {
        address.set_port(port);
    }
    let own = Relay::start(address, services, stop.clone()).await?;
    wallet.records.set_note(RELAY_PORT, &own.port.to_string())?;
    let others = settings.relays()?;
    // Relays that ask who we are get a key that says nothing.
    let ours = std::iter::once(own.own_url.clone()).chain(others.iter().cloned());
    let mut options = link::Options::new(ours, Keys::generate());
    options.retry_first = RETRY;
    let link = Link::open(options).map_err(|error| Error::Relays(error.to_string()))?;
    link.connected()
        .await
        .map_err(|error| Error::Relays(error.to_string()))?;
    let relays = std::iter::once(own.url.clone()).chain(others).collect();
    Ok((own, link, relays))
}
