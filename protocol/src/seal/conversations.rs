//! The keys shared with those whom we have talked to last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use nostr::{PublicKey, SecretKey};

use super::{Conversation, Error};

/// How many others are remembered: strangers cost a derivation each, and no more
/// memory than this.
const MAX_MET: usize = 1_024;

/// One party's conversations: a key is derived when somebody is met first, and
/// remembered for as long as not too many others have come since.
pub struct Conversations {
    own: SecretKey,
    met: Mutex<Met>,
}

#[derive(Default)]
struct Met {
    keys: HashMap<PublicKey, Conversation>,
    order: VecDeque<PublicKey>,
}

impl std::fmt::Debug for Conversations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conversations(…)")
    }
}

impl Conversations {
    /// Those of the owner of this key, who has met nobody yet.
    pub fn new(own: SecretKey) -> Self {
        Self {
            own,
            met: Mutex::default(),
        }
    }

    /// The key shared with `other`.
    ///
    /// # Errors
    /// As [`Conversation::between`].
    pub fn with(&self, other: &PublicKey) -> Result<Conversation, Error> {
        if let Some(known) = self.met().keys.get(other) {
            return Ok(known.clone());
        }
        // Not under the lock: others need not wait for it.
        let derived = Conversation::between(&self.own, other)?;
        self.met().remember(*other, derived.clone());
        Ok(derived)
    }

    fn met(&self) -> std::sync::MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Met {
    fn remember(&mut self, other: PublicKey, key: Conversation) {
        if self.keys.insert(other, key).is_some() {
            return;
        }
        self.order.push_back(other);
        if self.order.len() > MAX_MET
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;
    use nostr::secp256k1::rand::rngs::OsRng;

    use super::*;
    use crate::seal::{overhear, whisper};

    #[test]
    fn a_remembered_key_is_the_one_that_the_other_derives() {
        let (ours, theirs) = (Keys::generate(), Keys::generate());
        let conversations = Conversations::new(ours.secret_key().clone());
        for _ in 0..2 {
            let key = conversations.with(&theirs.public_key()).unwrap();
            let said = whisper(&key, b"hello", &mut OsRng).unwrap();
            let other = Conversation::between(theirs.secret_key(), &ours.public_key()).unwrap();
            assert_eq!(overhear(&other, &said).unwrap(), b"hello");
        }
        assert_eq!(conversations.met().order.len(), 1);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut met = Met::default();
        let (ours, theirs) = (Keys::generate(), Keys::generate());
        let key = Conversation::between(ours.secret_key(), &theirs.public_key()).unwrap();
        let other = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            PublicKey::from_byte_array(bytes)
        };
        for n in 0..=MAX_MET {
            met.remember(other(n), key.clone());
        }
        assert_eq!((met.keys.len(), met.order.len()), (MAX_MET, MAX_MET));
        assert!(!met.keys.contains_key(&other(0)) && met.keys.contains_key(&other(MAX_MET)));
    }
}
