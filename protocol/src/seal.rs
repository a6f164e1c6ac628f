//! Secrets inside public events: sealed payloads and salted hashes.
//!
//! A payload is encrypted under a random key of its own, and that key is
//! wrapped to its reader by NIP-44. A checker, or a judge of a dispute, is given
//! that one key and learns nothing else the two have ever said. A public hash of
//! a payload is salted, because a plain hash of a short prompt can be guessed.

use nostr::nips::nip44::v2;
use nostr::secp256k1::rand::{CryptoRng, RngCore};
use nostr::{EventId, PublicKey, SecretKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::batch::Blob;
use crate::bounds::{MAX_BLOB_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES};
use crate::hex32::{hex32, hex32_shown};

pub mod blob;
mod conversations;

pub use conversations::Conversations;

hex32!(
    /// A salted hash, or a running one.
    Digest
);
hex32_shown!(Digest);

impl Digest {
    /// sha256(bytes).
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_bytes(Sha256::digest(bytes).into())
    }
}

hex32!(
    /// The secret that keeps a hash from being guessed. Fresh for each attempt.
    Salt
);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(…)")
    }
}

/// What went wrong with a sealed payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The writer's payload does not fit in an event.
    #[error("the payload has {bytes} bytes and an event carries {MAX_PAYLOAD_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The writer's payload does not fit in a blob either.
    #[error("the payload has {bytes} bytes and a blob carries 1 to {MAX_BLOB_PAYLOAD_BYTES}")]
    TooLargeForBlob {
        /// Its size.
        bytes: usize,
    },
    /// It is in a blob, which must be fetched first.
    #[error("the payload is in a blob")]
    Elsewhere,
    /// The reader's key does not open it, or it was altered.
    #[error("the payload cannot be opened with this key")]
    Closed,
    /// What came out is not what was promised.
    #[error("the payload's hash is not the one that was committed to")]
    WrongHash,
    /// What came out is not of the right form.
    #[error("the payload is malformed: {0}")]
    Malformed(String),
}

/// An encrypted payload and its key, wrapped to one reader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The payload's key as hex, encrypted by NIP-44 between author and reader.
    pub key: String,
    /// The payload, encrypted by NIP-44 version 2 with that key as its
    /// conversation key. Empty where it is in a blob.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Where the payload is, if it does not fit in an event: a blob encrypted under
    /// that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Blob>,
}

/// Characters of a wrapped key (65 hex-and-padding bytes in a NIP-44 envelope).
const MAX_WRAPPED_KEY_CHARS: usize = 256;

/// Characters that [`MAX_PAYLOAD_BYTES`] become.
const MAX_BODY_CHARS: usize = 54_704;

impl Sealed {
    /// Encrypts a payload from `author` to `reader`.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if it does not fit in an event.
    pub fn close<R: RngCore + CryptoRng>(
        payload: &[u8],
        author: &SecretKey,
        reader: &PublicKey,
        rng: &mut R,
    ) -> Result<Self, Error> {
        Self::close_between(payload, &Conversation::between(author, reader)?, rng)
    }

    /// [`Sealed::close`] between two whose key was derived before.
    ///
    /// # Errors
    /// As [`Sealed::close`].
    pub fn close_between<R: RngCore + CryptoRng>(
        payload: &[u8],
        pair: &Conversation,
        rng: &mut R,
    ) -> Result<Self, Error> {
        let bytes = payload.len();
        if bytes == 0 || bytes > MAX_PAYLOAD_BYTES {
            return Err(Error::TooLarge { bytes });
        }
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let body = v2::encrypt_to_bytes_with_rng(rng, &v2::ConversationKey::new(key), payload)
            .map_err(|_| Error::TooLarge { bytes })?;
        Ok(Self {
            key: whisper(pair, hex::encode(key).as_bytes(), rng)?,
            body: base64_encode(&body),
            blob: None,
        })
    }

    /// Decrypts a payload, for either of the two whom its key was wrapped between.
    ///
    /// # Errors
    /// [`Error::Closed`] if the keys do not fit or a byte was changed,
    /// [`Error::Elsewhere`] if it is in a blob.
    pub fn open(&self, own: &SecretKey, other: &PublicKey) -> Result<Vec<u8>, Error> {
        self.open_with(&self.unwrap_key(own, other)?)
    }

    /// [`Sealed::open`] between two whose key was derived before.
    ///
    /// # Errors
    /// As [`Sealed::open`].
    pub fn open_between(&self, pair: &Conversation) -> Result<Vec<u8>, Error> {
        self.open_with(&self.unwrap_key_between(pair)?)
    }

    /// The payload's own key: what to hand to a checker.
    ///
    /// # Errors
    /// [`Error::Closed`] if the keys do not fit.
    pub fn unwrap_key(&self, own: &SecretKey, other: &PublicKey) -> Result<[u8; 32], Error> {
        self.unwrap_key_between(&Conversation::between(own, other)?)
    }

    /// [`Sealed::unwrap_key`] between two whose key was derived before.
    ///
    /// # Errors
    /// As [`Sealed::unwrap_key`].
    pub fn unwrap_key_between(&self, pair: &Conversation) -> Result<[u8; 32], Error> {
        let text = overhear(pair, &self.key)?;
        let bytes = hex::decode(text).map_err(|_| Error::Closed)?;
        bytes.try_into().map_err(|_| Error::Closed)
    }

    /// Decrypts a payload with its own key.
    ///
    /// # Errors
    /// [`Error::Closed`] if the key does not fit or a byte was changed,
    /// [`Error::Elsewhere`] if it is in a blob.
    pub fn open_with(&self, key: &[u8; 32]) -> Result<Vec<u8>, Error> {
        if self.blob.is_some() {
            return Err(Error::Elsewhere);
        }
        let body = base64_decode(&self.body).ok_or(Error::Closed)?;
        let payload = decrypt(&v2::ConversationKey::new(*key), &body)?;
        if payload.len() > MAX_PAYLOAD_BYTES {
            return Err(Error::TooLarge {
                bytes: payload.len(),
            });
        }
        Ok(payload)
    }

    /// Whether the envelope is of a size that [`Sealed::close`] can have made.
    pub(crate) fn is_bounded(&self) -> bool {
        let is_one = self.body.is_empty() == self.blob.is_some();
        let is_blob_bounded = self
            .blob
            .as_ref()
            .is_none_or(|blob| blob.validate().is_ok());
        self.key.len() <= MAX_WRAPPED_KEY_CHARS
            && self.body.len() <= MAX_BODY_CHARS
            && is_one
            && is_blob_bounded
    }
}

/// What a salted hash is about; keeps one kind of hash from passing as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// An award's input.
    Input,
    /// A result's output.
    Output,
    /// A payment's hash in a receipt.
    Payment,
}

impl Domain {
    const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Input => b"infernet/input/1",
            Self::Output => b"infernet/output/1",
            Self::Payment => b"infernet/payment/1",
        }
    }
}

/// sha256(domain ‖ salt ‖ about ‖ author ‖ bytes).
///
/// `about` is the event that the hash belongs to: for an output or a payment
/// the award; for an input, whose hash stands inside the award, the bid or
/// announcement that the award rests on.
pub fn salted_hash(
    domain: Domain,
    salt: &Salt,
    about: &EventId,
    author: &PublicKey,
    bytes: &[u8],
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(domain.as_bytes());
    hash.update(salt.as_bytes());
    hash.update(about.as_bytes());
    hash.update(author.as_bytes());
    hash.update(bytes);
    Digest::from_bytes(hash.finalize().into())
}

/// Encrypts one ephemeral message from author to reader by NIP-44.
///
/// # Errors
/// [`Error::TooLarge`] if it does not fit in an event.
pub fn whisper<R: RngCore + CryptoRng>(
    key: &Conversation,
    message: &[u8],
    rng: &mut R,
) -> Result<String, Error> {
    let bytes = message.len();
    if bytes == 0 || bytes > MAX_PAYLOAD_BYTES {
        return Err(Error::TooLarge { bytes });
    }
    let sealed = v2::encrypt_to_bytes_with_rng(rng, &key.0, message)
        .map_err(|_| Error::TooLarge { bytes })?;
    Ok(base64_encode(&sealed))
}

/// Decrypts what [`whisper`] encrypted.
///
/// # Errors
/// [`Error::Closed`] if the key does not fit or a byte was changed.
pub fn overhear(key: &Conversation, content: &str) -> Result<Vec<u8>, Error> {
    let sealed = base64_decode(content).ok_or(Error::Closed)?;
    decrypt(&key.0, &sealed)
}

/// NIP-44's first byte is its version, which the library's own decryption, and
/// the code that authenticates the rest, leave unread.
fn decrypt(key: &v2::ConversationKey, sealed: &[u8]) -> Result<Vec<u8>, Error> {
    match sealed.first() {
        Some(2) => v2::decrypt_to_bytes(key, sealed).map_err(|_| Error::Closed),
        _ => Err(Error::Closed),
    }
}

/// The NIP-44 key that two parties share. Deriving it costs as much as a
/// signature, so a job derives it once.
#[derive(Clone)]
pub struct Conversation(v2::ConversationKey);

impl Conversation {
    /// The key between the owner of `own` and `other`.
    ///
    /// # Errors
    /// [`Error::Closed`] if `other` is no point on the curve.
    pub fn between(own: &SecretKey, other: &PublicKey) -> Result<Self, Error> {
        v2::ConversationKey::derive(own, other)
            .map(Self)
            .map_err(|_| Error::Closed)
    }
}

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conversation(…)")
    }
}

fn base64_encode(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
