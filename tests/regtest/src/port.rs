//! Ports for processes that have to be told one.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Below what systems give to outgoing connections, and above what services are known by: a process that was killed
/// finds its port free when it comes back.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// What was given to others of this process, who may not listen yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of the loopback that is free now.
///
/// # Errors
/// If none is.
pub fn free_port() -> Result<u16> {
    let random = RandomState::new().build_hasher().finish();
    let count = RANGE.end - RANGE.start;
    let first = random as u16 % count;
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..count)
        .map(|step| RANGE.start + (first + step) % count)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok() && given.insert(*port))
        .context("no port of the loopback is free")
}
