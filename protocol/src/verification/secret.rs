//! The secret that chooses what is checked.

use std::fmt;

use nostr::EventId;
use sha2::{Digest as _, Sha256};

use crate::hex32::hex32;
use crate::seal::Digest;

hex32!(
    /// The secret of an order, which chooses what of it is checked. Its commitment
    /// stands in the quote; it is revealed when the order is closed.
    Secret
);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// sha256("infernet/checking/1" ‖ secret): what the quote says of it.
    pub fn commitment(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"infernet/checking/1");
        hash.update(self.as_bytes());
        Digest::from_bytes(hash.finalize().into())
    }

    /// Whether it chooses this result, where the chance is so many millionths: if
    /// the first eight bytes of sha256("infernet/choice/1" ‖ secret ‖ result id), as
    /// a big-endian number below 2⁶⁴, are less than that share of 2⁶⁴.
    pub fn chooses(&self, result: &EventId, chance_ppm: u32) -> bool {
        let mut hash = Sha256::new();
        hash.update(b"infernet/choice/1");
        hash.update(self.as_bytes());
        hash.update(result.as_bytes());
        let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        u128::from(drawn) * 1_000_000 < u128::from(chance_ppm) << 64
    }
}
