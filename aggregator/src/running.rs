//! A running aggregator: how it starts, what it does beside its batches, how it ends.

use std::sync::Arc;
use std::time::Duration;

use infernet_client::Client;
use infernet_node::clock;
use infernet_node::link::{self, Link};
use infernet_node::shutdown::Shutdown;
use infernet_protocol::event::{Attestation, Experience, Promise, Signed, V1};
use infernet_protocol::money::Msat;
use nostr::{PublicKey, RelayUrl, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::checks::{self, Caught, Chances, Checks, Finding, Shelf, ShelfError};
use crate::desk::Desk;
use crate::dispatch::Floor;
use crate::house::{House, Parts};
use crate::money::Money;
use crate::outcomes::Folder;
use crate::ranks::Ranks;
use crate::socket::{self, Socket};
use crate::store::{self, Store};
use crate::{Home, Options, announcing, group, home, late, options, treasury};

/// How often what can be closed, published again or removed is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// How long the end waits for what runs.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why an aggregator does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error(transparent)]
    Options(#[from] options::Error),
    /// The home folder cannot be had.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The relays cannot be used.
    #[error(transparent)]
    Link(#[from] link::Error),
    /// The market cannot be reached.
    #[error(transparent)]
    Client(#[from] infernet_client::Error),
    /// What an earlier process left cannot be gone on with.
    #[error("cannot go on with what was under way: {0}")]
    Unfinished(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] socket::Error),
    /// The books cannot be opened.
    #[error(transparent)]
    Money(#[from] treasury::Error),
    /// A file of thresholds is none.
    #[error(transparent)]
    Thresholds(#[from] ShelfError),
    /// What was judged cannot be read.
    #[error(transparent)]
    Checks(#[from] checks::Error),
}

/// A running aggregator. Clones are cheap and speak of the same one.
#[derive(Debug, Clone)]
pub struct Handle {
    public_key: PublicKey,
    announced: watch::Receiver<Vec<RelayUrl>>,
    ended: CancellationToken,
}

impl Handle {
    /// Who takes batches.
    pub const fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Waits for the first announcement that a relay has taken; answers which relays
    /// have, or none if the aggregator ended before.
    pub async fn announced(&self) -> Vec<RelayUrl> {
        let mut announced = self.announced.clone();
        let taken = announced.wait_for(|relays| !relays.is_empty()).await;
        taken.map(|relays| relays.clone()).unwrap_or_default()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// Starts an aggregator: takes its home, goes on with what an earlier process left,
/// listens, and announces itself.
///
/// # Errors
/// What stands in the way of starting.
pub async fn run(options: Options, shutdown: Shutdown) -> Result<Handle, Error> {
    options.validate()?;
    let home = Home::take(&options.home)?;
    let store = Store::open(&home::store(home.folder())).await?;
    let link = Link::connect(link::Options::new(
        options.relays.clone(),
        options.keys.clone(),
    ));
    let link = link.await?;
    let client = Client::connect(buyer(&options)).await?;
    let money = Money::open(&options, &client).await?;
    let (checks, found) = Checks::open(checks::Parts {
        client: client.clone(),
        keys: options.keys.clone(),
        pool: store.pool().clone(),
        checkers: options.checkers.clone(),
        shelf: Shelf::open(&home::thresholds(home.folder()))?,
        relays: options.relays.clone(),
        chances: Chances::default(),
    })
    .await?;
    let banned = store.bans().await?;
    let floor = Floor::new(
        client.clone(),
        checks.shelf().clone(),
        options.checkers.iter().copied(),
        banned.iter().map(|ban| ban.provider),
    );
    let house = House::new(Parts {
        options,
        link,
        client,
        store,
        floor,
        checks,
        money,
        shutdown,
    });
    open(house, home, found).await
}

/// What it buys with.
fn buyer(options: &Options) -> infernet_client::Options {
    let relays = options.relays.iter().map(ToString::to_string);
    infernet_client::Options {
        trust: options.trust.clone(),
        escrow: options.wallet.is_some(),
        blobs: options.blobs.clone(),
        ..infernet_client::Options::new(relays).keys(options.keys.clone())
    }
}

async fn open(
    house: Arc<House>,
    home: Home,
    found: mpsc::Receiver<Finding>,
) -> Result<Handle, Error> {
    let (announced, announcements) = watch::channel(vec![]);
    let ended = house.ended.clone();
    let handle = Handle {
        public_key: house.public_key(),
        announced: announcements,
        ended: ended.clone(),
    };
    // Open before anything is announced: who answers it is heard.
    let desk = Desk::open(house.clone())?;
    let socket = Socket::open(&Home::socket(home.folder()))?;
    for event in house.checks.shelf().events(&house.options.keys) {
        house.post(event).await?;
    }
    let ranks = Ranks::new(
        house.keys().clone(),
        house.link.clone(),
        house.store.clone(),
    );
    group::recover(&house)
        .await
        .map_err(|trouble| Error::Unfinished(Box::new(trouble)))?;
    let ends = ended.drop_guard();
    tokio::spawn(async move {
        tokio::select! {
            () = desk.serve() => {}
            () = announcing::announce(house.clone(), announced) => {}
            () = socket.serve(&house) => {}
            () = sweep(&house) => {}
            () = learn(&house, found) => {}
            () = late::follow(&house) => {}
            () = ranks.run(&house.client) => {}
            () = house.money.follow(&house) => {}
            () = house.money.run(house.closing.clone()) => {}
            () = house.shutdown.hard() => {}
            () = finish(&house) => {}
        }
        close(&house).await;
        drop(socket);
        // In this order: whoever waits for the end may start the next one.
        drop(home);
        drop(ends);
    });
    Ok(handle)
}

/// After a soft stop: waits until no shard runs, but not for ever.
async fn finish(house: &House) {
    house.shutdown.soft().await;
    let idle = async {
        while house.floor.running() > 0 {
            house.floor.changed().await;
        }
    };
    if timeout(house.options.limits.stop_patience, idle)
        .await
        .is_err()
    {
        tracing::info!("some shards still run; they are bought again at the next start");
    }
}

async fn close(house: &House) {
    announcing::goodbye(house).await;
    house.closing.cancel();
    house.tasks.close();
    if timeout(FAREWELL, house.tasks.wait()).await.is_err() {
        tracing::info!("something did not end in time; the next start goes on with it");
    }
    house.money.close().await;
    house.client.clone().close().await;
    house.link.clone().shutdown().await;
}

/// Looks from time to time for what can be closed, published again or removed.
async fn sweep(house: &Arc<House>) {
    let mut ticks = interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        if let Err(error) = swept(house).await {
            tracing::error!(%error, "cannot tidy up now");
        }
    }
}

async fn swept(house: &Arc<House>) -> Result<(), store::Error> {
    let now = clock::now();
    for order in house.store.open_orders().await? {
        group::look(house, &order.order.id()).await;
    }
    for event in house.store.unacknowledged(now).await? {
        house.publish(event);
    }
    let kept = house.options.limits.kept.as_secs();
    let before = Timestamp::from_secs(now.as_secs().saturating_sub(kept));
    let work = home::work(&house.options.home);
    for (order, group) in house.store.ended_before(before).await? {
        let folder = Folder::of(&work, &order, group);
        tokio::task::spawn_blocking(move || folder.remove());
        house.store.forget_shards(&order, group).await?;
    }
    Ok(())
}

/// Hears whom the checks catch, and whom they owe.
async fn learn(house: &Arc<House>, mut found: mpsc::Receiver<Finding>) {
    while let Some(finding) = found.recv().await {
        match finding {
            Finding::Caught(caught) => {
                if let Err(error) = caught_at(house, &caught).await {
                    tracing::error!(%error, "somebody who was caught may be bought from again");
                }
            }
            Finding::Owed(hire) => house.money.owe(&hire).await,
        }
    }
    // The checks are gone with the house.
    sleep(Duration::MAX).await;
}

/// Tells everybody of somebody who was caught, and buys nothing more of it.
async fn caught_at(house: &Arc<House>, caught: &Caught) -> Result<(), store::Error> {
    if let Some(verdict) = &caught.verdict {
        house.post(verdict.event().clone()).await?;
    }
    let attestation = Attestation {
        v: V1,
        job: caught.job,
        award: caught.award,
        result: Some(caught.result),
        receipt: None,
        provider: caught.who,
        model: caught.model,
        experience: match caught.verdict {
            Some(_) => Experience::Rejected,
            None => Experience::Invalid,
        },
        promised: Promise {
            first_token_ms: 0,
            tokens_per_s: 0.0,
        },
        measured: None,
        paid_msat: Msat::ZERO,
        verdict: caught.verdict.as_ref().map(Signed::id),
        batch: None,
    };
    if let Some(event) = house.sign(&attestation) {
        house.post(event).await?;
    }
    house
        .shut_out(&caught.who, caught.award, &caught.reason)
        .await
}
