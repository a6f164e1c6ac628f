//! How much one address may send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use nostr::Timestamp;

use crate::address::network;

const HOUR_SECS: u64 = 3_600;

/// Addresses that are remembered. Whoever has more than these can wait for the next hour.
const MAX_ADDRESSES: usize = 65_536;

/// What even the smallest upload counts, in bytes: a file costs more than what is in it.
const LEAST: u64 = 16 * 1024;

/// Counts what addresses send, hour by hour.
#[derive(Debug)]
pub struct Meter {
    most: u64,
    hour: Mutex<Hour>,
}

#[derive(Debug, Default)]
struct Hour {
    number: u64,
    sent: HashMap<IpAddr, u64>,
}

impl Meter {
    /// Lets every address send so many bytes an hour.
    pub fn new(most: u64) -> Self {
        Self {
            most,
            hour: Mutex::default(),
        }
    }

    /// Whether `address` may send so many bytes more; they are counted if so.
    pub fn may(&self, address: IpAddr, bytes: u64, now: Timestamp) -> bool {
        let address = network(address);
        if is_own(address) {
            return true;
        }
        // Counts are sound whatever their last user did.
        let mut hour = self.hour.lock().unwrap_or_else(PoisonError::into_inner);
        let number = now.as_secs() / HOUR_SECS;
        if hour.number != number {
            *hour = Hour {
                number,
                sent: HashMap::new(),
            };
        }
        let known = hour.sent.len();
        let sent = hour.sent.get(&address).copied();
        let after = sent.unwrap_or_default().saturating_add(bytes.max(LEAST));
        if after > self.most || (sent.is_none() && known >= MAX_ADDRESSES) {
            return false;
        }
        hour.sent.insert(address, after);
        true
    }
}

/// Whether it is this machine's own, which is not counted: a proxy may stand there, which knows better who sends.
pub fn is_own(address: IpAddr) -> bool {
    address.is_loopback()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn an_address_sends_so_much_in_an_hour() {
        let meter = Meter::new(100_000);
        let may = |address: &str, bytes, at| {
            meter.may(address.parse().unwrap(), bytes, Timestamp::from_secs(at))
        };
        assert!(may("192.0.2.1", 60_000, 7_200));
        assert!(!may("192.0.2.1", 60_000, 7_300));
        assert!(may("::ffff:192.0.2.1", 40_000, 7_300), "it is the same");
        assert!(!may("192.0.2.1", 0, 7_300), "even nothing counts");
        assert!(may("192.0.2.2", 60_000, 7_300), "another's");
        assert!(may("192.0.2.1", 100_000, 10_800), "a new hour");
        assert!(may("2001:db8::1", 60_000, 10_800));
        assert!(!may("2001:db8::2", 60_000, 10_800), "a neighbour");
        assert!(may("2001:db8:0:1::1", 60_000, 10_800));
        for _ in 0..3 {
            assert!(may("127.0.0.1", 60_000, 10_800));
            assert!(may("::1", 60_000, 10_800));
        }
    }
}
