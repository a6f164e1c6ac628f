//! How many uploads run at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::meter::is_own;
use crate::address::network;

/// Uploads at a time. Each holds a file, and some memory while its bytes are hashed.
const MOST: usize = 64;

/// Of these, those of one address: whoever sends slowly leaves places to others.
const MOST_OF_ONE: usize = 16;

/// The uploads that run. This machine's own are counted among all alone, as the meter does.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<Running>);

#[derive(Debug, Default)]
struct Running {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

/// The place of one upload, given back when this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    uploads: &'a Uploads,
    address: IpAddr,
}

impl Uploads {
    /// Takes a place for `address`, if there is one.
    pub fn begin(&self, address: IpAddr) -> Option<Place<'_>> {
        let address = network(address);
        let mut running = self.running();
        let of_one = running.of.get(&address).copied().unwrap_or_default();
        if running.all >= MOST || (of_one >= MOST_OF_ONE && !is_own(address)) {
            return None;
        }
        running.all += 1;
        running.of.insert(address, of_one + 1);
        Some(Place {
            uploads: self,
            address,
        })
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // Counts are sound whatever their last user did.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut running = self.uploads.running();
        running.all = running.all.saturating_sub(1);
        let of_one = running.of.get(&self.address).copied().unwrap_or_default();
        match of_one {
            0 | 1 => running.of.remove(&self.address),
            more => running.of.insert(self.address, more - 1),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_address_leaves_places_to_others() {
        let uploads = Uploads::default();
        let begin = |address: &str| uploads.begin(address.parse().unwrap());
        let mut held: Vec<_> = (0..MOST_OF_ONE)
            .map(|_| begin("2001:db8::1").unwrap())
            .collect();
        assert!(begin("2001:db8::2").is_none(), "a neighbour");
        held.extend((MOST_OF_ONE..MOST).map(|_| begin("127.0.0.1").unwrap()));
        assert!(begin("127.0.0.1").is_none());
        assert!(begin("192.0.2.1").is_none());
        drop(held.pop());
        drop(begin("192.0.2.1").unwrap());
        drop(held);
        assert_eq!(uploads.running().all, 0);
        assert!(uploads.running().of.is_empty());
    }
}
