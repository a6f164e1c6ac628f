//! What the operator decides while the relay runs: whom it bans and allows, which events and kinds it takes, which
//! addresses it talks to, and how it is called.
//!
//! Each change is on the disk before it is answered, and holds from the next event on. What stands in the configuration
//! (`[lists]`) is changed there alone.

mod log;
mod state;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

use nostr::{EventId, Kind, PublicKey};
use tokio::sync::watch;

use crate::address::network;
use crate::options;
pub use log::Error as LogError;
use log::Log;
pub use state::{Change, Face};
use state::{State, Verdict};

/// Entries of one list.
pub const MAX_ENTRIES: usize = 100_000;

/// Bytes of a reason, of a name and of an icon's address.
pub const MAX_TEXT_BYTES: usize = 500;

/// Bytes of a description.
pub const MAX_DESCRIPTION_BYTES: usize = 5_000;

/// The file of the lists in a relay's folder.
pub fn file(folder: &Path) -> PathBuf {
    folder.join(log::NAME)
}

/// Why a change is not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A list has as many entries as it may.
    #[error("this list has {MAX_ENTRIES} entries, which is all that it may have")]
    Full,
    /// A text is too long.
    #[error("a text has {0} bytes, more than {1}")]
    TooLong(usize, usize),
    /// The configuration says otherwise.
    #[error("the relay's configuration says otherwise ([lists] of its file): change it there")]
    Configured,
    /// It is this machine.
    #[error("{0} is this machine, or no address of one: it cannot be blocked")]
    Own(IpAddr),
    /// It cannot be kept.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The lists as they stand. Asking is cheap and waits for no disk.
#[derive(Debug)]
pub struct Lists {
    configured: options::Lists,
    state: RwLock<State>,
    /// `None`: what is changed lasts as long as the process.
    log: Mutex<Option<Log>>,
    changes: watch::Sender<u64>,
}

impl Lists {
    /// The lists in `folder`, made if there are none, beside those of the configuration.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn open(folder: &Path, configured: options::Lists) -> Result<Self, LogError> {
        let (log, state) = Log::open(folder)?;
        Ok(Self::with(configured, state, Some(log)))
    }

    /// Those of the configuration alone.
    pub fn configured(configured: options::Lists) -> Self {
        Self::with(configured, State::default(), None)
    }

    /// Puts what the file in `folder` says in place of what is known, for a process that only follows another's
    /// decisions; the file stays as it is, and there may be none.
    ///
    /// # Errors
    /// When it cannot be read; then nothing has changed.
    pub fn read(&self, folder: &Path) -> Result<(), LogError> {
        let read = log::read(folder)?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = read;
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn with(configured: options::Lists, state: State, log: Option<Log>) -> Self {
        Self {
            configured,
            state: RwLock::new(state),
            log: Mutex::new(log),
            changes: watch::Sender::new(0),
        }
    }

    /// Whether nothing that this key signed is taken.
    pub fn banned_key(&self, key: &PublicKey) -> bool {
        self.configured.ban.contains(key) || self.state().keys.is(key, Verdict::Banned)
    }

    /// Whether this key is known to be good: it need not work, and may where only such may.
    pub fn allowed_key(&self, key: &PublicKey) -> bool {
        self.configured.allow.contains(key) || self.state().keys.is(key, Verdict::Allowed)
    }

    /// Whether this event is not taken, nor answered.
    pub fn banned_event(&self, event: &EventId) -> bool {
        self.state().events.contains_key(event)
    }

    /// Whether this kind is taken or refused whatever the relay does by itself; `None` if the operator said nothing.
    pub fn kind(&self, kind: Kind) -> Option<bool> {
        self.state().kinds.get(&kind).copied()
    }

    /// Whether nobody at this address is talked to. Of version 6, its first 64 bits count.
    pub fn blocked_address(&self, address: IpAddr) -> bool {
        let state = self.state();
        !state.addresses.is_empty() && state.addresses.contains_key(&network(address))
    }

    /// Makes a change, which is on the disk when this answers. It waits for the disk: call it where that may be.
    ///
    /// # Errors
    /// With the reason; then nothing has changed.
    pub fn change(&self, change: Change) -> Result<(), Error> {
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        self.check(&change)?;
        if let Some(log) = log.as_mut() {
            log.append(&change)?;
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.apply(change);
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn check(&self, change: &Change) -> Result<(), Error> {
        let (text, most) = change.text();
        if text.len() > most {
            return Err(Error::TooLong(text.len(), most));
        }
        let configured = match change {
            Change::BanKey(key, _) | Change::UnallowKey(key) => self.configured.allow.contains(key),
            Change::AllowKey(key, _) | Change::UnbanKey(key) => self.configured.ban.contains(key),
            _ => false,
        };
        if configured {
            return Err(Error::Configured);
        }
        match change {
            Change::BlockAddress(address, _) if state::is_own(*address) => {
                Err(Error::Own(*address))
            }
            _ if self.state().is_full_for(change) => Err(Error::Full),
            _ => Ok(()),
        }
    }

    /// Who is banned, with the reasons.
    pub fn banned_keys(&self) -> Vec<(PublicKey, String)> {
        self.keys(Verdict::Banned, &self.configured.ban)
    }

    /// Who is allowed, with the reasons.
    pub fn allowed_keys(&self) -> Vec<(PublicKey, String)> {
        self.keys(Verdict::Allowed, &self.configured.allow)
    }

    fn keys(&self, verdict: Verdict, configured: &[PublicKey]) -> Vec<(PublicKey, String)> {
        let listed = self.state().keys.all(verdict);
        let said = |key: &PublicKey| (*key, "configured".to_owned());
        let configured = configured.iter().map(said);
        configured.chain(listed).collect()
    }

    /// Which events are banned, with the reasons.
    pub fn banned_events(&self) -> Vec<(EventId, String)> {
        let state = self.state();
        let events = state.events.iter();
        events.map(|(id, why)| (*id, why.clone())).collect()
    }

    /// Which addresses are blocked, with the reasons.
    pub fn blocked_addresses(&self) -> Vec<(IpAddr, String)> {
        let state = self.state();
        let addresses = state.addresses.iter();
        addresses.map(|(at, why)| (*at, why.clone())).collect()
    }

    /// The kinds that the operator said something about, and what.
    pub fn kinds(&self) -> Vec<(Kind, bool)> {
        let state = self.state();
        let mut kinds: Vec<_> = state.kinds.iter().map(|(kind, is)| (*kind, *is)).collect();
        kinds.sort();
        kinds
    }

    /// How the relay is called, where that was changed.
    pub fn face(&self) -> Face {
        self.state().face.clone()
    }

    /// Counts the changes, so that whoever has a connection open can look again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        // Each change is whole or not made, whatever became of its maker.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use nostr::Keys;

    use super::*;

    fn key() -> PublicKey {
        Keys::generate().public_key()
    }

    fn open(folder: &Path) -> Lists {
        Lists::open(folder, options::Lists::default()).unwrap()
    }

    #[test]
    fn what_was_changed_outlasts_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let (bad, good, pardoned) = (key(), key(), key());
        let event = EventId::all_zeros();
        let address: IpAddr = "192.0.2.7".parse().unwrap();
        let lists = open(folder.path());
        for change in [
            Change::BanKey(bad, "spam".to_owned()),
            Change::AllowKey(good, String::new()),
            Change::BanKey(pardoned, String::new()),
            Change::UnbanKey(pardoned),
            Change::BanEvent(event, "libel".to_owned()),
            Change::AllowKind(Kind::TextNote),
            Change::DisallowKind(Kind::Metadata),
            Change::BlockAddress(address, String::new()),
            Change::Name("Elsewhere".to_owned()),
        ] {
            lists.change(change).unwrap();
        }
        drop(lists);
        let follower = Lists::configured(options::Lists::default());
        follower.read(folder.path()).unwrap();
        for lists in [follower, open(folder.path()), open(folder.path())] {
            assert!(lists.banned_key(&bad) && !lists.allowed_key(&bad));
            assert!(lists.allowed_key(&good) && !lists.banned_key(&good));
            assert!(!lists.banned_key(&pardoned) && !lists.allowed_key(&pardoned));
            assert!(lists.banned_event(&event));
            assert_eq!(lists.kind(Kind::TextNote), Some(true));
            assert_eq!(lists.kind(Kind::Metadata), Some(false));
            assert_eq!(lists.kind(Kind::ContactList), None);
            assert!(lists.blocked_address(address));
            assert_eq!(lists.face().name.as_deref(), Some("Elsewhere"));
            assert_eq!(lists.banned_keys(), [(bad, "spam".to_owned())]);
        }
    }

    #[test]
    fn a_key_stands_on_one_list() {
        let lists = Lists::configured(options::Lists::default());
        let key = key();
        let mut changes = lists.changes();
        lists.change(Change::AllowKey(key, String::new())).unwrap();
        lists.change(Change::BanKey(key, String::new())).unwrap();
        assert!(lists.banned_key(&key) && !lists.allowed_key(&key));
        lists.change(Change::UnallowKey(key)).unwrap();
        assert!(lists.banned_key(&key), "it was not allowed any more");
        assert!(changes.has_changed().unwrap());
        assert_eq!(*changes.borrow_and_update(), 3);
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let (good, bad) = (key(), key());
        let lists = Lists::configured(options::Lists {
            allow: vec![good],
            ban: vec![bad],
        });
        assert!(lists.allowed_key(&good) && lists.banned_key(&bad));
        for change in [
            Change::BanKey(good, String::new()),
            Change::UnallowKey(good),
            Change::AllowKey(bad, String::new()),
            Change::UnbanKey(bad),
        ] {
            let refused = lists.change(change).unwrap_err();
            assert!(matches!(refused, Error::Configured));
        }
    }

    #[test]
    fn a_network_of_version_6_is_one_address_and_this_machine_is_none() {
        let lists = Lists::configured(options::Lists::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let block = |text| lists.change(Change::BlockAddress(address(text), String::new()));
        block("2001:db8::1").unwrap();
        block("192.0.2.1").unwrap();
        assert!(lists.blocked_address(address("2001:db8::2")));
        assert!(!lists.blocked_address(address("2001:db8:0:1::1")));
        assert!(lists.blocked_address(address("::ffff:192.0.2.1")));
        for own in ["127.0.0.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"] {
            assert!(matches!(block(own), Err(Error::Own(_))), "{own}");
        }
        let unblock = Change::UnblockAddress(address("2001:db8::3"));
        lists.change(unblock).unwrap();
        assert!(!lists.blocked_address(address("2001:db8::1")));
    }

    #[test]
    fn texts_are_bounded() {
        let lists = Lists::configured(options::Lists::default());
        let long = "x".repeat(MAX_TEXT_BYTES + 1);
        let refused = lists
            .change(Change::BanKey(key(), long.clone()))
            .unwrap_err();
        assert_eq!(refused.to_string(), "a text has 501 bytes, more than 500");
        lists.change(Change::Description(long)).unwrap();
        assert!(lists.banned_keys().is_empty());
    }

    #[test]
    fn a_change_that_was_broken_off_was_none() {
        let folder = tempfile::tempdir().unwrap();
        let (first, last) = (key(), key());
        let change = |key| Change::BanKey(key, String::new());
        open(folder.path()).change(change(first)).unwrap();
        let file = folder.path().join(log::NAME);
        let whole = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{whole}{{\"ban_key\":[\"{last}\"")).unwrap();
        let lists = open(folder.path());
        assert_eq!(lists.banned_keys().len(), 1);
        lists.change(change(last)).unwrap();
        drop(lists);
        assert_eq!(open(folder.path()).banned_keys().len(), 2);
    }

    #[test]
    fn a_file_that_is_not_understood_is_named_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(log::NAME);
        fs::write(&file, "{\"name\":\"me\"}\n{\"nme\":\"me\"}\n{}\n").unwrap();
        let refused = Lists::open(folder.path(), options::Lists::default()).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains(&format!("{}:2: ", file.display())), "{said}");
    }
}
