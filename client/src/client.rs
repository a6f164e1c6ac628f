//! The connection to the market that all jobs of a process share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use infernet_blobs::Blobs;
use infernet_node::clock;
use infernet_node::link::{self, Delivery, Link, Subscription};
use infernet_protocol::bounds::{MAX_BLOB_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES};
use infernet_protocol::event::{Announcement, Attestation, Body, Receipt, Signed};
use infernet_protocol::kinds;
use infernet_protocol::seal::{Conversations, Digest};
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::market::{Market, Means, Provider, resolve};
use crate::purse::{Purse, Refund};
use crate::record::Record;
use crate::routing::{self, Routes};
use crate::submit::Driver;
use crate::{Answer, Error, Options, Request, record};

/// How long [`Client::close`] waits for jobs to stop and for the last events to be acknowledged.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long [`Client::close`] waits for what is written to the ledger, and for receipts.
const LAST_CHARGES: Duration = Duration::from_secs(15);

/// How long to wait before coming back to a relay: shorter than a provider does, since somebody waits.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// How long a question to the relays may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// How many attestations by anybody are asked for, only to count them.
const MAX_STRANGERS: usize = 500;

/// How many of our own receipts are asked for, the newest.
const MAX_RECEIPTS: usize = 500;

/// A connection to the market. Clones are cheap and share it; it ends with the last of them.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _stops_when_dropped: Arc<DropGuard>,
}

/// What a client and its jobs share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub options: Options,
    pub link: Link,
    pub routes: Routes,
    /// Events of ours that are under way, and jobs that run.
    pub tasks: TaskTracker,
    /// Ends every job.
    pub closing: CancellationToken,
    /// The keys shared with providers.
    pub conversations: Conversations,
    /// Where our blobs go.
    pub blobs: Blobs,
    /// What is paid with, if anything.
    pub purse: Option<Purse>,
    market: Mutex<Market>,
    /// Whether the relays have said what is on sale.
    stocked: watch::Sender<bool>,
}

impl Shared {
    /// Bytes that an input may have.
    fn max_input_bytes(&self) -> usize {
        match self.blobs.can_put() {
            true => MAX_BLOB_PAYLOAD_BYTES,
            false => MAX_PAYLOAD_BYTES,
        }
    }

    pub fn market(&self) -> MutexGuard<'_, Market> {
        self.market.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub const fn keys(&self) -> &Keys {
        &self.options.keys
    }

    /// With what a job may be paid.
    fn means(&self, request: &Request) -> Means {
        Means {
            risk: self.purse.as_ref().map(|purse| purse.limits().risk),
            escrow: self.options.escrow,
            left: request.max_cost,
        }
    }
}

impl Client {
    /// Connects, and listens for what is addressed to this client and for what is on sale.
    ///
    /// # Errors
    /// A relay's address that cannot be read, or no relay that can be reached.
    pub async fn connect(options: Options) -> Result<Self, Error> {
        let relays = options.relay_urls()?;
        let blobs = Blobs::new(options.blob_servers(&relays), options.keys.clone());
        let mut link_options = link::Options::new(relays, options.keys.clone());
        link_options.connect_timeout = options.connect_timeout;
        link_options.retry_first = RETRY_FIRST;
        link_options.retry_most = RETRY_MOST;
        let link = Link::connect(link_options).await?;
        let stop = CancellationToken::new();
        let purse = match &options.purse {
            Some(purse) => Some(Purse::open(purse, &options.keys, &link, stop.clone()).await?),
            None => None,
        };
        let market =
            Market::new(options.trusted()).follow_bans(options.follow_bans.iter().copied());
        let now = clock::now();
        let inbox = link.subscribe(vec![routing::filter(options.keys.public_key(), now)])?;
        let news = link.subscribe(market.filters(now))?;
        let conversations = Conversations::new(options.keys.secret_key().clone());
        let shared = Arc::new(Shared {
            options,
            link,
            routes: Routes::default(),
            tasks: TaskTracker::new(),
            conversations,
            closing: CancellationToken::new(),
            blobs,
            purse,
            market: Mutex::new(market),
            stocked: watch::Sender::new(false),
        });
        tokio::spawn(until(stop.clone(), route(shared.clone(), inbox)));
        tokio::spawn(until(stop.clone(), follow(shared.clone(), news)));
        Ok(Self {
            shared,
            _stops_when_dropped: Arc::new(stop.drop_guard()),
        })
    }

    /// Who this client is.
    pub fn public_key(&self) -> PublicKey {
        self.shared.keys().public_key()
    }

    /// Begins a job. Answers as soon as it is clear that somebody could do it; dropping the answer stops the job.
    ///
    /// # Errors
    /// A request that is out of bounds or too large, or that nobody can do: then nothing was published, and the
    /// error says what there is.
    pub async fn submit(&self, request: Request) -> Result<Answer, Error> {
        request.validate(self.shared.max_input_bytes())?;
        self.stocked().await;
        let means = self.shared.means(&request);
        let (order, words) = resolve(&self.shared.market(), &request, means, clock::now())?;
        if self.shared.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(Driver::start(self.clone(), request, order, words))
    }

    /// Who is online, the best score first, with everybody's attestations counted.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn providers(&self) -> Result<Vec<Provider>, Error> {
        self.stocked().await;
        let strangers = self.attestations_by_anybody().await?;
        let now = clock::now();
        let market = self.shared.market();
        let mut providers: Vec<_> = market
            .open(now)
            .map(|announcement| Provider {
                standing: market.standing_with(&announcement.author(), &strangers, now),
                announcement: announcement.clone(),
            })
            .collect();
        providers.sort_by(|a, b| {
            let by_score = b.standing.score.total_cmp(&a.standing.score);
            by_score.then_with(|| a.announcement.name.cmp(&b.announcement.name))
        });
        Ok(providers)
    }

    /// Who takes work now, as it was announced last, with the standing that trusted attestations make; in no order.
    /// Asks nobody: for who buys much and often.
    pub fn on_sale(&self) -> Vec<Provider> {
        let now = clock::now();
        let market = self.shared.market();
        let provider = |announcement: &Signed<Announcement>| Provider {
            standing: market.standing(&announcement.author(), now),
            announcement: announcement.clone(),
        };
        market.open(now).map(provider).collect()
    }

    /// What the providers that are online call themselves.
    pub async fn names(&self) -> HashMap<PublicKey, String> {
        self.stocked().await;
        let market = self.shared.market();
        let name = |a: &Signed<Announcement>| (a.author(), a.name.clone());
        market.open(clock::now()).map(name).collect()
    }

    /// Whose ratings do not count: they are only counted.
    async fn attestations_by_anybody(&self) -> Result<Vec<Signed<Attestation>>, Error> {
        let providers: Vec<_> = self
            .shared
            .market()
            .open(clock::now())
            .map(Signed::author)
            .collect();
        if providers.is_empty() {
            return Ok(Vec::new());
        }
        let filter = Filter::new()
            .kind(Kind::from(kinds::ATTESTATION))
            .pubkeys(providers)
            .limit(MAX_STRANGERS);
        let events = self.fetch(vec![filter]).await?;
        let read = |event: Event| Signed::<Attestation>::from_verified(event).ok();
        Ok(events.into_iter().filter_map(read).collect())
    }

    /// The stored events of a job, as the relays have them now.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn job_events(&self, job: EventId) -> Result<Vec<Event>, Error> {
        record::fetch(self, job).await
    }

    /// The receipts of this client about its work with these providers, as the relays have them now.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn receipts(
        &self,
        providers: impl IntoIterator<Item = PublicKey>,
    ) -> Result<Vec<Signed<Receipt>>, Error> {
        let filter = Filter::new()
            .kind(Kind::from(kinds::RECEIPT))
            .author(self.public_key())
            .pubkeys(providers)
            .limit(MAX_RECEIPTS);
        let events = self.fetch(vec![filter]).await?;
        let read = |event: Event| Signed::<Receipt>::from_verified(event).ok();
        Ok(events.into_iter().filter_map(read).collect())
    }

    /// The stored events that match, from all relays that answer in time.
    pub(crate) async fn fetch(&self, filters: Vec<Filter>) -> Result<Vec<Event>, Error> {
        Ok(self.shared.link.fetch(filters, FETCH_TIMEOUT).await?)
    }

    /// What is in the blobs that a job's events name, by hash, as far as it can still be had.
    pub async fn blobs_of(&self, record: &Record) -> HashMap<Digest, Vec<u8>> {
        let mut fetched = HashMap::new();
        for blob in record.sealed().filter_map(|sealed| sealed.blob.as_ref()) {
            match self.shared.blobs.get(blob).await {
                Ok(bytes) => drop(fetched.insert(blob.sha256, bytes)),
                Err(error) => tracing::debug!(%error, "a blob of a job cannot be had"),
            }
        }
        fetched
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until the relays have said what is on sale, or have had long enough for it.
    async fn stocked(&self) {
        let mut stocked = self.shared.stocked.subscribe();
        let wait = stocked.wait_for(|stocked| *stocked);
        if timeout(self.shared.options.market_patience, wait)
            .await
            .is_err()
        {
            tracing::info!("a relay is slow to say what is on sale; going on without it");
        }
    }

    /// Asks a provider for what is left on its tab, and waits for the money (half a minute at most).
    ///
    /// # Errors
    /// No wallet; a tab that is in use; books or a wallet that fail.
    pub async fn refund(&self, provider: PublicKey) -> Result<Refund, Error> {
        let purse = self.shared.purse.as_ref().ok_or(Error::NoWallet)?;
        Ok(purse.refund(provider, &self.shared.routes).await?)
    }

    /// Stops what runs, waits until it is charged, and (2 s at most) until the last events are acknowledged, and
    /// disconnects.
    pub async fn close(self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        let mut is_done = self.tasks_end(FAREWELL).await;
        if let Some(purse) = &self.shared.purse {
            if timeout(LAST_CHARGES, purse.close()).await.is_err() {
                tracing::warn!("not everything is charged; the next start does the rest");
            }
            is_done = self.tasks_end(FAREWELL).await;
        }
        if !is_done {
            tracing::info!("relays did not acknowledge everything in time");
        }
        self.shared.link.clone().shutdown().await;
    }

    async fn tasks_end(&self, within: Duration) -> bool {
        timeout(within, self.shared.tasks.wait()).await.is_ok()
    }
}

/// Runs a task until it is told to stop.
async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}

/// Hands what is addressed to this client to its jobs.
async fn route(shared: Arc<Shared>, mut inbox: Subscription) {
    while let Some(delivery) = inbox.next().await {
        match delivery {
            Delivery::Event(event) => shared.routes.hand(*event),
            Delivery::Gap => shared.routes.gap(),
            Delivery::EndOfStored => {}
        }
    }
}

/// Follows what is on sale.
async fn follow(shared: Arc<Shared>, mut news: Subscription) {
    while let Some(delivery) = news.next().await {
        match delivery {
            Delivery::Event(event) => shared.market().take(*event, clock::now()),
            Delivery::EndOfStored => {
                shared.stocked.send_replace(true);
            }
            // What a relay has stored comes again by itself; a reader that was too slow hears each announcement
            // again when it is renewed.
            Delivery::Gap => {}
        }
    }
}

/// Signs a body as the author of an event of now.
pub(crate) fn sign<B: Body>(keys: &Keys, body: &B) -> Option<Event> {
    let unsigned = body.to_unsigned(keys.public_key(), clock::now());
    unsigned.sign_with_keys(keys).ok()
}
