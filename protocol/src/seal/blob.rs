//! Payloads that no event carries, encrypted for a Blossom server.
//!
//! ```text
//! blob = nonce (24) ‖ ciphertext ‖ tag (16)
//! plaintext = number of the payload's bytes (u32, big-endian) ‖ payload ‖ zeros
//! ```
//!
//! The cipher is XChaCha20-Poly1305 and the zeros make the blob's size a step of
//! NIP-44's, so that it tells little: NIP-44 itself ends at 64 KiB.

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use nostr::PublicKey;
use nostr::SecretKey;
use nostr::secp256k1::rand::{CryptoRng, RngCore};

use super::{Conversation, Error, Sealed, whisper};
use crate::batch::Blob;
use crate::bounds::{MAX_BLOB_BYTES, MAX_BLOB_PAYLOAD_BYTES};

/// Keeps a blob from passing as something else that was encrypted under its key.
const DOMAIN: &[u8] = b"infernet/blob/1";

const NONCE_BYTES: usize = 24;
const LENGTH_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
const FRAME_BYTES: usize = NONCE_BYTES + LENGTH_BYTES + TAG_BYTES;

/// Encrypts a payload of 1 to [`MAX_BLOB_PAYLOAD_BYTES`] bytes under a key of 32.
///
/// # Errors
/// [`Error::TooLargeForBlob`] if it is empty or larger.
pub fn encrypt<R: RngCore + CryptoRng>(
    key: &[u8; 32],
    payload: &[u8],
    rng: &mut R,
) -> Result<Vec<u8>, Error> {
    let bytes = payload.len();
    if bytes == 0 || bytes > MAX_BLOB_PAYLOAD_BYTES {
        return Err(Error::TooLargeForBlob { bytes });
    }
    let mut blob = vec![0; stepped(bytes + FRAME_BYTES)];
    let (nonce, rest) = blob.split_at_mut(NONCE_BYTES);
    rng.fill_bytes(nonce);
    let (plain, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    // The bound is far below 2^32.
    plain[..LENGTH_BYTES].copy_from_slice(&(bytes as u32).to_be_bytes());
    plain[LENGTH_BYTES..LENGTH_BYTES + bytes].copy_from_slice(payload);
    let made = XChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(XNonce::from_slice(nonce), DOMAIN, plain)
        .map_err(|_| Error::TooLargeForBlob { bytes })?;
    tag.copy_from_slice(&made);
    Ok(blob)
}

/// Decrypts what [`encrypt`] made.
///
/// # Errors
/// [`Error::Closed`] if the key does not fit or a byte was changed.
pub fn decrypt(key: &[u8; 32], mut blob: Vec<u8>) -> Result<Vec<u8>, Error> {
    if blob.len() <= FRAME_BYTES || blob.len() as u64 > MAX_BLOB_BYTES {
        return Err(Error::Closed);
    }
    let (nonce, rest) = blob.split_at_mut(NONCE_BYTES);
    let (plain, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(
            XNonce::from_slice(nonce),
            DOMAIN,
            plain,
            Tag::from_slice(tag),
        )
        .map_err(|_| Error::Closed)?;
    let (length, padded) = plain.split_first_chunk().ok_or(Error::Closed)?;
    let bytes = u32::from_be_bytes(*length) as usize;
    // Padded as it must be, or not made here.
    let is_padded = bytes > 0 && bytes <= padded.len() && padded[bytes..].iter().all(|b| *b == 0);
    if !is_padded {
        return Err(Error::Closed);
    }
    blob.truncate(NONCE_BYTES + LENGTH_BYTES + bytes);
    blob.drain(..NONCE_BYTES + LENGTH_BYTES);
    Ok(blob)
}

/// The next of NIP-44's steps: at most an eighth more, 32 at least.
fn stepped(bytes: usize) -> usize {
    let power = bytes.next_power_of_two();
    bytes.next_multiple_of((power / 8).max(32))
}

/// A payload that was encrypted and lies nowhere yet.
#[derive(Clone, PartialEq, Eq)]
pub struct Outsized {
    key: String,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Outsized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outsized({} bytes)", self.bytes.len())
    }
}

impl Outsized {
    /// The encrypted bytes: what to give to the servers.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The envelope, once `blob` says which servers have the bytes.
    pub fn lies_in(self, blob: Blob) -> Sealed {
        Sealed {
            key: self.key,
            body: String::new(),
            blob: Some(blob),
        }
    }
}

impl Sealed {
    /// Encrypts a payload that goes into a blob, from `author` to `reader`.
    ///
    /// # Errors
    /// [`Error::TooLargeForBlob`] if it does not fit in one.
    pub fn close_outsized<R: RngCore + CryptoRng>(
        payload: &[u8],
        author: &SecretKey,
        reader: &PublicKey,
        rng: &mut R,
    ) -> Result<Outsized, Error> {
        let mut key = [0; 32];
        rng.fill_bytes(&mut key);
        let bytes = encrypt(&key, payload, rng)?;
        let pair = Conversation::between(author, reader)?;
        let key = whisper(&pair, hex::encode(key).as_bytes(), rng)?;
        Ok(Outsized { key, bytes })
    }

    /// Decrypts a payload whose blob was fetched, for either of the two whom its key
    /// was wrapped between.
    ///
    /// # Errors
    /// [`Error::Closed`] if the keys do not fit or a byte was changed.
    pub fn open_fetched(
        &self,
        fetched: Vec<u8>,
        own: &SecretKey,
        other: &PublicKey,
    ) -> Result<Vec<u8>, Error> {
        self.open_fetched_between(fetched, &Conversation::between(own, other)?)
    }

    /// [`Sealed::open_fetched`] between two whose key was derived before.
    ///
    /// # Errors
    /// As [`Sealed::open_fetched`].
    pub fn open_fetched_between(
        &self,
        fetched: Vec<u8>,
        pair: &Conversation,
    ) -> Result<Vec<u8>, Error> {
        self.open_fetched_with(fetched, &self.unwrap_key_between(pair)?)
    }

    /// Decrypts a payload whose blob was fetched, with its own key.
    ///
    /// # Errors
    /// [`Error::Closed`] if the key does not fit or a byte was changed.
    pub fn open_fetched_with(&self, fetched: Vec<u8>, key: &[u8; 32]) -> Result<Vec<u8>, Error> {
        match &self.blob {
            Some(blob) if blob.is_of(&fetched) => decrypt(key, fetched),
            Some(_) => Err(Error::WrongHash),
            None => Err(Error::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_step_of_an_eighth() {
        for (bytes, step) in [
            (45, 64),
            (64, 64),
            (65, 96),
            (257, 320),
            (1_000, 1_024),
            (40_000, 40_960),
            (9_000_000, 10_485_760),
            (
                MAX_BLOB_PAYLOAD_BYTES + FRAME_BYTES,
                MAX_BLOB_BYTES as usize,
            ),
        ] {
            assert_eq!(stepped(bytes), step);
        }
    }
}
