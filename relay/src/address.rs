//! Who is at the other end: behind reverse proxies, and of which network.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What a proxy adds, one way or another.
const FORWARDING: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];

/// The client's address. Only what one of `proxies` says of its peer is believed: anybody may write the header.
pub fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpAddr]) -> IpAddr {
    let mut client = peer.to_canonical();
    let values = headers.get_all(FORWARDED_FOR);
    let values: Vec<&str> = values.iter().filter_map(|one| one.to_str().ok()).collect();
    // Each proxy adds its peer at the end.
    let hops = values.iter().rev().flat_map(|value| value.rsplit(','));
    for hop in hops {
        if !is_one_of(proxies, client) {
            break;
        }
        match address(hop.trim()) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// Whether an address is one of these proxies.
pub fn is_one_of(proxies: &[IpAddr], address: IpAddr) -> bool {
    proxies.iter().any(|proxy| proxy.to_canonical() == address)
}

/// An address, which some proxies write with a port, or in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok();
    let with_port = || Some(text.parse::<std::net::SocketAddr>().ok()?.ip());
    Some(address.or_else(with_port)?.to_canonical())
}

/// Whether a request comes from this machine itself: not from elsewhere through a proxy that runs here.
pub fn is_local(peer: IpAddr, headers: &HeaderMap) -> bool {
    let forwarded = FORWARDING.iter().any(|name| headers.contains_key(*name));
    peer.to_canonical().is_loopback() && !forwarded
}

/// The address, or of one of version 6 its first 64 bits: whoever has one has all that begin with these.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        headers
    }

    fn seen(peer: &str, values: &[&str]) -> String {
        let proxies = ["127.0.0.1", "10.0.0.1", "2001:db8::1"].map(|one| one.parse().unwrap());
        client(peer.parse().unwrap(), &headers(values), &proxies).to_string()
    }

    #[test]
    fn only_a_proxy_is_believed() {
        for (peer, values, client) in [
            ("192.0.2.9", vec!["198.51.100.1"], "192.0.2.9"),
            ("127.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("::ffff:127.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", vec![], "127.0.0.1"),
            // What the client itself wrote stands further left.
            ("127.0.0.1", vec!["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", vec!["198.51.100.1, 10.0.0.1"], "198.51.100.1"),
            (
                "127.0.0.1",
                vec!["1.1.1.1", "198.51.100.1 ,10.0.0.1"],
                "198.51.100.1",
            ),
            ("127.0.0.1", vec!["nonsense, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", vec!["198.51.100.1:4711"], "198.51.100.1"),
            ("2001:db8::1", vec!["[2001:db8:1::2]:4711"], "2001:db8:1::2"),
            ("2001:db8::1", vec!["[2001:db8:1::2]"], "2001:db8:1::2"),
            ("127.0.0.1", vec!["::ffff:198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(seen(peer, &values), client, "{peer} {values:?}");
        }
    }

    #[test]
    fn what_came_through_a_proxy_is_not_local() {
        let (here, there) = ("127.0.0.1".parse().unwrap(), "192.0.2.9".parse().unwrap());
        assert!(is_local(here, &HeaderMap::new()));
        assert!(!is_local(there, &HeaderMap::new()));
        assert!(!is_local(here, &headers(&["127.0.0.1"])));
    }
}
