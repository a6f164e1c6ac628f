//! The life of a job, without clocks, sockets or randomness.
//!
//! [`buyer::Job`] is a job as its buyer lives it: gather candidates, award,
//! listen, fall over to the next provider, end. [`provider::Attempt`] is one
//! attempt as its provider lives it: queue, run, stream, deliver. Both are told
//! what happened and when, and answer what to do; a driver does it. Tests drive
//! them together through a lossy network on a virtual clock.
//!
//! **Invariant:** a job ends exactly once, no later than its deadline; what a
//! superseded attempt still sends changes nothing.

pub mod buyer;
pub mod provider;

/// An instant, in milliseconds of Unix time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This much later; never wraps.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since an earlier instant; 0 if it is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A transition that makes no sense: a mistake of the driver, not of the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{input} makes no sense while {state}")]
pub struct Unexpected {
    /// What came.
    pub input: &'static str,
    /// In which state.
    pub state: &'static str,
}
