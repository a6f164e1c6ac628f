//! Random numbers that are always the same: for examples alone, never for keys.

use nostr::secp256k1::rand::{CryptoRng, Error, RngCore};
use sha2::{Digest as _, Sha256};

/// sha256("infernet/examples" ‖ counter), for counters from 0.
#[derive(Default)]
pub struct Draws(u64);

impl RngCore for Draws {
    fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        for chunk in dest.chunks_mut(32) {
            let hash = Sha256::new()
                .chain_update("infernet/examples")
                .chain_update(self.0.to_be_bytes())
                .finalize();
            self.0 += 1;
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoRng for Draws {}
