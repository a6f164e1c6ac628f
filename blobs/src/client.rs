//! Who puts blobs on servers, and gets them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use infernet_protocol::batch::Blob;
use infernet_protocol::bounds::{MAX_BLOB_BYTES, MAX_BLOB_SERVERS};
use nostr::Keys;
use reqwest::Client;
use tokio::time::{Instant, sleep, timeout_at};

use crate::error::{Error, Failure};
use crate::{Address, transfer};

/// Servers that a blob is put on, if so many take it.
const COPIES: usize = 2;

/// How long the other copies may take once there is one.
const GRACE: Duration = Duration::from_secs(3);

/// How long servers that keep no blobs are taken at their word.
const UNSERVED_FOR: Duration = Duration::from_secs(600);

/// What is put on a server to see whether it takes blobs.
const PROBE: &[u8] = b"infernet: does this server take blobs?";

/// The pauses between tries at one server.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1_500)];

/// Puts blobs on our servers and gets them from there and elsewhere. Clones are cheap and share their connections.
#[derive(Clone, Debug)]
pub struct Blobs(Arc<Inner>);

struct Inner {
    servers: Vec<Address>,
    /// What came of the last blob that was put on them.
    known: Mutex<Known>,
    keys: Keys,
    http: Client,
}

/// What is known of servers.
#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Served,
    /// All of them said that they keep no blobs.
    Unserved(Instant),
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blobs").field(&self.servers).finish()
    }
}

impl Blobs {
    /// Blobs of the owner of `keys`, who puts them on `servers`, the first two that take them. Of more than
    /// [`MAX_BLOB_SERVERS`] the first are taken.
    pub fn new(mut servers: Vec<Address>, keys: Keys) -> Self {
        servers.truncate(MAX_BLOB_SERVERS);
        Self(Arc::new(Inner {
            servers,
            known: Mutex::default(),
            keys,
            http: transfer::http(),
        }))
    }

    /// Whether there may be a server to put blobs on: not every relay is one.
    pub fn can_put(&self) -> bool {
        let is_unserved =
            matches!(*self.known(), Known::Unserved(at) if at.elapsed() < UNSERVED_FOR);
        !self.0.servers.is_empty() && !is_unserved
    }

    /// Whether a server has taken a blob, and none has refused since.
    pub fn has_put(&self) -> bool {
        matches!(*self.known(), Known::Served)
    }

    /// Finds out whether a server takes blobs, with a small one, and asks again now and then until one does.
    pub async fn find_out(&self) {
        while !self.0.servers.is_empty() {
            if let Ok(blob) = self.put(Bytes::from_static(PROBE)).await {
                return self.delete(&blob).await;
            }
            sleep(UNSERVED_FOR).await;
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts encrypted bytes on servers, and answers what they are called there.
    ///
    /// # Errors
    /// [`Error::NoServer`], [`Error::TooLarge`], or [`Error::NotPut`] with what each server did.
    pub async fn put(&self, bytes: impl Into<Bytes>) -> Result<Blob, Error> {
        let bytes: Bytes = bytes.into();
        if bytes.len() as u64 > MAX_BLOB_BYTES {
            let bytes = bytes.len() as u64;
            return Err(Error::TooLarge { bytes });
        }
        if self.0.servers.is_empty() {
            return Err(Error::NoServer);
        }
        let mut blob = Blob::of(&bytes, vec![]);
        let (named, bytes) = (&blob, &bytes);
        let put_at = |server| async move { (server, self.put_at(server, named, bytes).await) };
        let mut spare = self.0.servers.iter();
        let mut running: FuturesUnordered<_> = spare.by_ref().take(COPIES).map(put_at).collect();
        let (mut kept, mut failures) = (Vec::new(), Vec::new());
        let mut until = Instant::now() + Duration::from_secs(3_600);
        while let Ok(Some((server, put))) = timeout_at(until, running.next()).await {
            match put {
                Ok(()) => {
                    kept.push(server.to_string());
                    until = until.min(Instant::now() + GRACE);
                }
                Err(failure) => {
                    failures.push((server.clone(), failure));
                    running.extend(spare.next().map(put_at));
                }
            }
        }
        drop(running);
        if !kept.is_empty() {
            *self.known() = Known::Served;
        } else if failures.iter().all(|(_, one)| one.is_no_server()) {
            *self.known() = Known::Unserved(Instant::now());
        }
        if kept.is_empty() {
            return Err(Error::NotPut(failures));
        }
        blob.servers = kept;
        Ok(blob)
    }

    /// Gets a blob: from the servers that are named for it, as far as these may be asked, and else from our own.
    ///
    /// # Errors
    /// [`Error::TooLarge`], or [`Error::NotHad`] with what each server did.
    pub async fn get(&self, blob: &Blob) -> Result<Vec<u8>, Error> {
        if blob.bytes > MAX_BLOB_BYTES {
            return Err(Error::TooLarge { bytes: blob.bytes });
        }
        let servers = self.to_ask(blob);
        let mut failures = Vec::new();
        for server in &servers {
            match patiently(|| transfer::get(&self.0.http, server, blob)).await {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => failures.push((server.clone(), failure)),
            }
        }
        match failures.is_empty() {
            true => Err(Error::NotAsked),
            false => Err(Error::NotHad(failures)),
        }
    }

    /// Takes a blob of our own from the servers that have it; what they refuse, they drop when it expires.
    pub async fn delete(&self, blob: &Blob) {
        for server in blob.servers.iter().filter_map(|text| text.parse().ok()) {
            let deleted = transfer::delete(&self.0.http, &server, blob, &self.0.keys).await;
            if let Err(failure) = deleted {
                tracing::debug!(%server, %failure, "a blob stays until it expires");
            }
        }
    }

    async fn put_at(&self, server: &Address, blob: &Blob, bytes: &Bytes) -> Result<(), Failure> {
        let put = || transfer::put(&self.0.http, server, blob, bytes.clone(), &self.0.keys);
        patiently(put).await
    }

    /// The servers that are named for a blob and may be asked, and our own: one server has many names, and any may
    /// have it.
    fn to_ask(&self, blob: &Blob) -> Vec<Address> {
        let own = &self.0.servers;
        let named = blob.servers.iter().filter_map(|text| text.parse().ok());
        let mut servers: Vec<Address> = Vec::new();
        for server in named.chain(own.iter().cloned()) {
            let may = server.is_encrypted() || own.contains(&server);
            if may && !servers.contains(&server) {
                servers.push(server);
            }
        }
        servers
    }
}

/// Tries again what may pass.
async fn patiently<T, F: Future<Output = Result<T, Failure>>>(
    one_try: impl Fn() -> F,
) -> Result<T, Failure> {
    for pause in PAUSES {
        match one_try().await {
            Err(failure) if failure.is_passing() => {
                tracing::debug!(%failure, "a blob server is asked again");
                sleep(pause).await;
            }
            done => return done,
        }
    }
    one_try().await
}
