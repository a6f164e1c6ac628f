//! Which networks an address is counted in, and how many connections each has.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::refusal::Refusal;
use crate::address::network;

/// The networks that an address is counted in, each with how many times as much it may do. Of version 6, whoever has
/// one address has 64 bits of them, and easily has 48 or 32: each size is counted.
pub fn networks(address: IpAddr) -> impl Iterator<Item = (IpAddr, u32)> {
    let own = network(address);
    let wider: &[(u32, u32)] = match own {
        IpAddr::V6(own) if !own.is_loopback() => &[(48, 4), (32, 16)],
        _ => &[],
    };
    let wider = wider.iter().filter_map(move |(bits, size)| match own {
        IpAddr::V6(own) => Some((first_bits(own, *bits), *size)),
        IpAddr::V4(_) => None,
    });
    std::iter::once((own, 1)).chain(wider)
}

/// The network of so many bits. It differs from every address by its last bit, so that it is no narrower network.
fn first_bits(address: Ipv6Addr, bits: u32) -> IpAddr {
    let mask = u128::MAX << (128 - bits);
    IpAddr::from(Ipv6Addr::from(address.to_bits() & mask | u128::from(bits)))
}

/// Connections of each network.
#[derive(Debug, Default)]
pub struct Connections {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: Option<IpAddr>,
}

impl Connections {
    /// A place for a connection from `address`, of which each may have `most`; 0 is no bound. `None` is not counted.
    ///
    /// # Errors
    /// [`Refusal::Connections`].
    pub fn place(&self, address: Option<IpAddr>, most: usize) -> Result<Place, Refusal> {
        let mut open = locked(&self.open);
        let networks = || address.into_iter().flat_map(networks);
        for (network, size) in networks() {
            let most = most.saturating_mul(size as usize);
            let has = open.get(&network).copied().unwrap_or_default();
            if most > 0 && has >= most {
                return Err(Refusal::Connections(has));
            }
        }
        for (network, _) in networks() {
            *open.entry(network).or_default() += 1;
        }
        Ok(Place {
            open: self.open.clone(),
            address,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = locked(&self.open);
        for (network, _) in self.address.into_iter().flat_map(networks) {
            if let Some(has) = open.get_mut(&network) {
                *has -= 1;
                if *has == 0 {
                    open.remove(&network);
                }
            }
        }
    }
}

fn locked(open: &Mutex<HashMap<IpAddr, usize>>) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
    // Counts are sound whatever their last user did.
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_address_has_so_many_places_which_come_back() {
        let connections = Connections::default();
        let first = connections.place(address("192.0.2.1"), 2).unwrap();
        let second = connections.place(address("::ffff:192.0.2.1"), 2).unwrap();
        let refused = connections.place(address("192.0.2.1"), 2).unwrap_err();
        assert_eq!(refused, Refusal::Connections(2));
        let other = connections.place(address("192.0.2.2"), 2).unwrap();
        drop(first);
        connections.place(address("192.0.2.1"), 2).unwrap();
        drop((second, other));
        assert!(locked(&connections.open).is_empty(), "nobody is remembered");
    }

    #[test]
    fn wide_networks_of_version_6_are_counted_as_well() {
        let connections = Connections::default();
        let mut places = Vec::new();
        let mut taken = 0;
        for subnet in 0..100 {
            for site in 0..100 {
                let one = address(&format!("2001:db8:{site:x}:{subnet:x}::1"));
                places.extend(connections.place(one, 1));
                taken = taken.max(places.len());
            }
        }
        assert_eq!(taken, 16, "of 32 bits");
        let elsewhere = "2001:db9::";
        for subnet in 0..4 {
            let one = address(&format!("2001:db9:0:{subnet}::1"));
            places.push(connections.place(one, 1).unwrap());
        }
        assert!(connections.place(address("2001:db9:0:9::"), 1).is_err());
        assert!(connections.place(address(elsewhere), 1).is_err());
        assert!(connections.place(address("2001:db9:1::"), 1).is_ok());
    }

    #[test]
    fn nobody_in_particular_is_not_counted_and_nought_is_no_bound() {
        let connections = Connections::default();
        let places: Vec<_> = (0..10).map(|_| connections.place(None, 1)).collect();
        assert!(places.iter().all(Result::is_ok));
        let places: Vec<_> = (0..10)
            .map(|_| connections.place(address("192.0.2.1"), 0))
            .collect();
        assert!(places.iter().all(Result::is_ok));
    }
}
