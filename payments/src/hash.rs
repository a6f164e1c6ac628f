//! A payment's hash, and the preimage that proves it was paid.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// Text that is not 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hex digits")]
pub struct InvalidHex;

/// Names a Lightning payment on both sides: the SHA-256 of its preimage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PaymentHash([u8; 32]);

impl PaymentHash {
    /// The hash of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PaymentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PaymentHash({self})")
    }
}

impl FromStr for PaymentHash {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).map(Self)
    }
}

impl Serialize for PaymentHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PaymentHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What the payee reveals when it takes a payment: the payer's proof of payment, and whoever has it before can take
/// a held one. Never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Preimage([u8; 32]);

impl Preimage {
    /// The preimage of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The hash of the payment that this one takes.
    pub fn hash(&self) -> PaymentHash {
        PaymentHash(Sha256::digest(self.0).into())
    }

    /// As hex, for the wire alone.
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for Preimage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Preimage(…)")
    }
}

impl FromStr for Preimage {
    type Err = InvalidHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        bytes(text).map(Self)
    }
}

fn bytes(text: &str) -> Result<[u8; 32], InvalidHex> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidHex)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_preimage_is_never_shown_and_its_hash_is_sha256() {
        let preimage = Preimage::from_bytes([0; 32]);
        assert_eq!(format!("{preimage:?}"), "Preimage(…)");
        assert_eq!(
            preimage.hash().to_string(),
            "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
        );
        assert!("66".parse::<PaymentHash>().is_err());
    }
}
