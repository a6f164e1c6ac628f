//! Payloads of others that lie in blobs: they are fetched before an award is looked at again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use infernet_protocol::batch::Blob;
use infernet_protocol::job::provider::ALIVE_EVERY_MS;
use infernet_protocol::payload::News;
use infernet_protocol::seal::{Conversation, Digest, Error, Sealed};
use nostr::Event;
use tokio::time::{Instant, interval, timeout};

use crate::shop::{Address, Shop};

/// Awards whose payloads are fetched at the same time.
pub const MAX_FETCHES: usize = 8;

/// Bytes that are fetched for one award.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How long fetching for one award may take. Its buyer hears meanwhile that we are alive.
const FETCHED_WITHIN: Duration = Duration::from_secs(60);

/// An award that needs payloads before it can be checked.
#[derive(Debug)]
pub struct Wanted {
    /// The award.
    pub event: Event,
    /// Where its buyer hears of it.
    pub address: Address,
    /// What it needs.
    pub blobs: Vec<Blob>,
    /// What it needed before.
    pub fetched: Fetched,
}

/// An award and what was fetched for it; or what it still needs, and why it cannot be had.
pub type Arrived = Result<(Event, Fetched), (Box<Wanted>, String)>;

/// What was fetched.
#[derive(Default)]
pub struct Fetched(HashMap<Digest, Vec<u8>>);

impl std::fmt::Debug for Fetched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetched({})", self.0.len())
    }
}

impl Fetched {
    /// Whether nothing was fetched.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is missing of these.
    pub fn missing<'a>(&self, of: impl IntoIterator<Item = &'a Sealed>) -> Vec<Blob> {
        let blobs = of.into_iter().filter_map(|sealed| sealed.blob.as_ref());
        let missing = blobs.filter(|blob| !self.0.contains_key(&blob.sha256));
        missing.cloned().collect()
    }

    /// Opens a payload of the other's whom we share this key with, wherever it is.
    ///
    /// # Errors
    /// As [`Sealed::open`].
    pub fn open(&self, sealed: &Sealed, pair: &Conversation) -> Result<Vec<u8>, Error> {
        match self.of(sealed) {
            Some(bytes) => sealed.open_fetched_between(bytes, pair),
            None => sealed.open_between(pair),
        }
    }

    /// Opens a payload with its own key, wherever it is.
    ///
    /// # Errors
    /// As [`Sealed::open_with`].
    pub fn open_with(&self, sealed: &Sealed, key: &[u8; 32]) -> Result<Vec<u8>, Error> {
        match self.of(sealed) {
            Some(bytes) => sealed.open_fetched_with(bytes, key),
            None => sealed.open_with(key),
        }
    }

    fn of(&self, sealed: &Sealed) -> Option<Vec<u8>> {
        self.0.get(&sealed.blob.as_ref()?.sha256).cloned()
    }
}

/// Fetches what an award needs.
pub async fn fetch(shop: Arc<Shop>, mut wanted: Box<Wanted>) -> Arrived {
    let missing = std::mem::take(&mut wanted.blobs);
    let bytes = missing.iter().map(|blob| blob.bytes);
    if bytes.fold(0, u64::saturating_add) > MAX_BYTES {
        let why = format!("its payloads have more than {MAX_BYTES} bytes");
        return Err((wanted, why));
    }
    let mut getting = std::pin::pin!(timeout(FETCHED_WITHIN, get(&shop, missing)));
    let mut alive = interval(Duration::from_millis(ALIVE_EVERY_MS));
    let got = loop {
        tokio::select! {
            got = &mut getting => break got,
            _ = alive.tick() => shop.tell(&wanted.address, News::Alive { ahead: 0 }, None),
        }
    };
    match got {
        Ok(Ok(blobs)) => {
            let Wanted { event, fetched, .. } = *wanted;
            let blobs = fetched.0.into_iter().chain(blobs).collect();
            Ok((event, Fetched(blobs)))
        }
        Ok(Err(error)) => Err((wanted, error.to_string())),
        Err(_) => Err((wanted, "fetching it took too long".to_owned())),
    }
}

async fn get(
    shop: &Shop,
    missing: Vec<Blob>,
) -> Result<HashMap<Digest, Vec<u8>>, infernet_blobs::Error> {
    let began = Instant::now();
    let mut got = HashMap::new();
    for blob in missing {
        got.insert(blob.sha256, shop.blobs.get(&blob).await?);
    }
    tracing::debug!(blobs = got.len(), took = ?began.elapsed(), "fetched payloads");
    Ok(got)
}
