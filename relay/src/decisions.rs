//! What the operator decides, from wherever: over HTTP, over the owner's socket, or where no relay runs.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use nostr::{EventId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::lists::{self, LogError};
pub use crate::lists::{Change, Lists};
use crate::options::Options;
use crate::owner::{self, Question};
use crate::store::{self, Store};
use crate::{lock, server};

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be decided.
    #[error(transparent)]
    Lists(#[from] lists::Error),
    /// It is decided, and what follows from it failed.
    #[error("it is banned, and could not be removed: {0}")]
    Removal(#[from] store::Error),
    /// The lists cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] server::Error),
    /// Another process has the folder.
    #[error(transparent)]
    Lock(#[from] lock::Error),
    /// The relay that has the folder cannot be talked to, or says why it could not be done.
    #[error(transparent)]
    Owner(#[from] owner::Error),
    /// The work was broken off.
    #[error(transparent)]
    Broken(#[from] tokio::task::JoinError),
}

/// Makes a change, and takes an event that it bans off the disk.
///
/// # Errors
/// With what is in the way.
pub async fn decide(lists: &Arc<Lists>, store: &Store, change: Change) -> Result<(), Error> {
    let banned = match &change {
        Change::BanEvent(event, _) => Some(*event),
        _ => None,
    };
    let held = lists.clone();
    tokio::task::spawn_blocking(move || held.change(change)).await??;
    if let Some(event) = banned {
        // It is refused by now, so it does not come back.
        store.remove(vec![event]).await?;
    }
    Ok(())
}

/// By whom a change was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The relay that runs in the folder.
    TheRelay,
    /// This process, since none runs there.
    Us,
}

/// The same for the relay of `options.data`: it does it if it runs; otherwise it is done here.
///
/// # Errors
/// With what is in the way.
pub async fn decide_for(options: &Options, change: Change) -> Result<By, Error> {
    match owner::visit(&options.data).await {
        Ok(mut visitor) => {
            let Done {} = visitor.ask(&Question::Decide(change)).await?;
            Ok(By::TheRelay)
        }
        Err(owner::Error::NotRunning { .. }) => alone(options, change).await.map(|()| By::Us),
        Err(error) => Err(error.into()),
    }
}

async fn alone(options: &Options, change: Change) -> Result<(), Error> {
    if let Change::BanEvent(..) = change {
        let refused = |source| server::Error::Store {
            folder: options.data.clone(),
            source,
        };
        let store = Store::open(&options.data).map_err(refused)?;
        let lists = Lists::open(&options.data, options.lists.clone())?;
        return decide(&Arc::new(lists), &store, change).await;
    }
    let _held = lock::take(&options.data)?;
    let lists = Lists::open(&options.data, options.lists.clone())?;
    Ok(lists.change(change)?)
}

/// The lists of the relay of `options.data`, whether it runs or not.
///
/// # Errors
/// When their file cannot be read.
pub fn listed(options: &Options) -> Result<Lists, Error> {
    let lists = Lists::configured(options.lists.clone());
    lists.read(&options.data)?;
    Ok(lists)
}

/// Whom a ban can be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// A key.
    Key(PublicKey),
    /// An event.
    Event(EventId),
    /// An address.
    Address(IpAddr),
}

impl FromStr for Whom {
    type Err = &'static str;

    /// Reads an npub or a key in hex, a note or nevent, or an IP address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        if text.starts_with("note1") || text.starts_with("nevent1") {
            let event = EventId::parse(text).map_err(|_| "this is no event's id")?;
            return Ok(Self::Event(event));
        }
        let key = PublicKey::parse(text);
        let key = key.map_err(|_| "this is no key (npub1…), event (note1…) or IP address")?;
        Ok(Self::Key(key))
    }
}

impl Whom {
    /// The change that bans it.
    pub fn ban(self, reason: String) -> Change {
        match self {
            Self::Key(key) => Change::BanKey(key, reason),
            Self::Event(event) => Change::BanEvent(event, reason),
            Self::Address(address) => Change::BlockAddress(address, reason),
        }
    }

    /// The change that takes its ban back.
    pub fn unban(self) -> Change {
        match self {
            Self::Key(key) => Change::UnbanKey(key),
            Self::Event(event) => Change::AllowEvent(event),
            Self::Address(address) => Change::UnblockAddress(address),
        }
    }
}

/// The answer to a change that was made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{Keys, ToBech32 as _};

    use super::*;

    #[test]
    fn keys_events_and_addresses_are_told_apart() {
        let key = Keys::generate().public_key();
        let event = EventId::all_zeros();
        let read = |text: &str| text.parse::<Whom>();
        assert_eq!(read(&key.to_bech32().unwrap()), Ok(Whom::Key(key)));
        assert_eq!(read(&key.to_hex()), Ok(Whom::Key(key)));
        assert_eq!(read(&event.to_bech32().unwrap()), Ok(Whom::Event(event)));
        let address = Whom::Address("2001:db8::1".parse().unwrap());
        assert_eq!(read("2001:db8::1"), Ok(address));
        for wrong in ["", "note1", "npub1x", "example.org", "7"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
