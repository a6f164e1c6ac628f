//! How many requests are worked on at once: of each connection, so that none takes the others' room, and in all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many requests of one connection are worked on at once, those that wait for their payment included. Holds may
/// keep a payment waiting for minutes.
pub const MAX_EACH: usize = 256;

/// And how many of all connections together; each is a task, a request and its answer.
pub const MAX_IN_ALL: usize = 1_024;

/// The seats of all connections.
#[derive(Debug)]
pub struct Seats {
    all: Arc<Semaphore>,
    each: Mutex<HashMap<i64, Arc<Semaphore>>>,
}

/// Held while a request is worked on.
#[derive(Debug)]
pub struct Seat {
    _of_all: OwnedSemaphorePermit,
    _of_each: OwnedSemaphorePermit,
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(MAX_IN_ALL)),
            each: Mutex::default(),
        }
    }
}

impl Seats {
    /// A seat for a request of that connection; nothing while all of them are taken.
    pub fn take(&self, connection: i64) -> Option<Seat> {
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        let own = each
            .entry(connection)
            .or_insert_with(|| Arc::new(Semaphore::new(MAX_EACH)));
        Some(Seat {
            _of_each: own.clone().try_acquire_owned().ok()?,
            _of_all: self.all.clone().try_acquire_owned().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_connection_leaves_room_for_another() {
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..MAX_EACH).map(|_| seats.take(1).unwrap()).collect();
        assert!(seats.take(1).is_none());
        assert!(seats.take(2).is_some());
        taken.pop();
        assert!(seats.take(1).is_some());
        let others = (2..100).flat_map(|other| [other; MAX_EACH]);
        let others: Vec<Seat> = others.map_while(|other| seats.take(other)).collect();
        assert_eq!(taken.len() + others.len(), MAX_IN_ALL);
    }
}
