//! Who runs, who waits, and in which order.
//!
//! Buyers take turns: a buyer's second attempt waits behind everybody's first.
//! Within a turn the order is that of arrival.

use nostr::{EventId, PublicKey};

/// The share of the waiting places that one buyer may hold is one in this many
/// (and always one place): with two, somebody else always finds room.
const SHARE_OF_ONE_BUYER: usize = 2;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// All places are taken.
    #[error("the queue is full")]
    All,
    /// This buyer holds as many as one may.
    #[error("you have as many jobs waiting here as one buyer may")]
    OneBuyer,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    award: EventId,
    buyer: PublicKey,
    /// How many attempts the buyer had here when this one came.
    turn: usize,
}

/// The attempts of a provider.
#[derive(Debug)]
pub struct Queue {
    slots: usize,
    places: usize,
    running: Vec<Place>,
    waiting: Vec<Place>,
}

impl Queue {
    /// A queue of so many attempts side by side, and so many that wait.
    pub const fn new(slots: u32, places: u32) -> Self {
        Self {
            slots: slots as usize,
            places: places as usize,
            running: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Attempts that run.
    pub const fn running(&self) -> usize {
        self.running.len()
    }

    /// Attempts that wait.
    pub const fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Attempts that may run or wait at a time.
    pub const fn places(&self) -> usize {
        self.slots + self.places
    }

    /// Whether nobody gets in.
    pub const fn is_full(&self) -> bool {
        self.running.len() + self.waiting.len() >= self.places()
    }

    /// Whether this buyer gets in.
    ///
    /// # Errors
    /// Why not.
    pub fn room_for(&self, buyer: &PublicKey) -> Result<(), Full> {
        if self.is_full() {
            return Err(Full::All);
        }
        let must_wait = self.running.len() + self.waiting.len() >= self.slots;
        let held = self.waiting.iter().filter(|p| p.buyer == *buyer).count();
        let share = (self.places / SHARE_OF_ONE_BUYER).max(1);
        match must_wait && held >= share {
            true => Err(Full::OneBuyer),
            false => Ok(()),
        }
    }

    /// Takes an attempt in; answers how many run or wait before it can begin.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&mut self, award: EventId, buyer: PublicKey) -> Result<u32, Full> {
        self.room_for(&buyer)?;
        Ok(self.squeeze_in(award, buyer))
    }

    /// Takes an attempt in, even if there is no room; answers as [`Self::enter`].
    pub fn squeeze_in(&mut self, award: EventId, buyer: PublicKey) -> u32 {
        let all = self.running.iter().chain(&self.waiting);
        let turn = all.filter(|p| p.buyer == buyer).count();
        let at = self.waiting.partition_point(|p| p.turn <= turn);
        self.waiting.insert(at, Place { award, buyer, turn });
        self.ahead_of(at)
    }

    /// The next attempt to begin, if there is a slot for it; it runs from now on.
    pub fn begin_next(&mut self) -> Option<EventId> {
        if self.running.len() >= self.slots || self.waiting.is_empty() {
            return None;
        }
        let place = self.waiting.remove(0);
        self.running.push(place);
        Some(place.award)
    }

    /// An attempt has ended; what else its buyer has waiting moves up a turn.
    pub fn leave(&mut self, award: &EventId) {
        let all = self.running.iter().chain(&self.waiting);
        let Some(buyer) = all.clone().find(|p| p.award == *award).map(|p| p.buyer) else {
            return;
        };
        self.running.retain(|p| p.award != *award);
        self.waiting.retain(|p| p.award != *award);
        for place in self.waiting.iter_mut().filter(|p| p.buyer == buyer) {
            place.turn = place.turn.saturating_sub(1);
        }
        // Stable: those of one turn stay in the order of their arrival.
        self.waiting.sort_by_key(|p| p.turn);
    }

    /// Those who wait, each with how many run or wait before it.
    pub fn positions(&self) -> impl Iterator<Item = (EventId, u32)> {
        let waiting = self.waiting.iter().enumerate();
        waiting.map(|(at, place)| (place.award, self.ahead_of(at)))
    }

    fn ahead_of(&self, at: usize) -> u32 {
        let ahead = match self.running.len() + at < self.slots {
            true => 0,
            false => self.running.len() + at,
        };
        // Bounded by slots and places, which are u32.
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;

    use super::*;

    fn award(number: u8) -> EventId {
        EventId::from_byte_array([number; 32])
    }

    fn order(queue: &Queue) -> Vec<(EventId, u32)> {
        queue.positions().collect()
    }

    #[test]
    fn attempts_begin_in_the_order_they_came() {
        let (a, b) = (Keys::generate().public_key, Keys::generate().public_key);
        let mut queue = Queue::new(1, 4);
        assert_eq!(queue.enter(award(1), a), Ok(0));
        assert_eq!(queue.begin_next(), Some(award(1)));
        assert_eq!(queue.enter(award(2), b), Ok(1));
        assert_eq!(queue.begin_next(), None, "the slot is taken");
        queue.leave(&award(1));
        assert_eq!(order(&queue), [(award(2), 0)]);
        assert_eq!(queue.begin_next(), Some(award(2)));
        assert_eq!((queue.running(), queue.queued()), (1, 0));
    }

    #[test]
    fn buyers_take_turns() {
        let (greedy, other) = (Keys::generate().public_key, Keys::generate().public_key);
        let mut queue = Queue::new(1, 8);
        for number in 1..=4 {
            queue.enter(award(number), greedy).unwrap();
            queue.begin_next();
        }
        assert_eq!(
            queue.enter(award(5), other),
            Ok(1),
            "before the greedy one's second"
        );
        let expected = [(award(5), 1), (award(2), 2), (award(3), 3), (award(4), 4)];
        assert_eq!(order(&queue), expected);
    }

    #[test]
    fn one_buyer_cannot_fill_the_queue() {
        let (greedy, other) = (Keys::generate().public_key, Keys::generate().public_key);
        let mut queue = Queue::new(1, 4);
        queue.enter(award(1), greedy).unwrap();
        queue.begin_next();
        queue.enter(award(2), greedy).unwrap();
        queue.enter(award(3), greedy).unwrap();
        assert_eq!(queue.enter(award(4), greedy), Err(Full::OneBuyer));
        queue.enter(award(5), other).unwrap();
        queue.enter(award(6), other).unwrap();
        assert_eq!(
            queue.enter(award(7), Keys::generate().public_key),
            Err(Full::All)
        );
        assert!(queue.is_full());
    }

    #[test]
    fn a_buyer_alone_may_use_all_slots() {
        let buyer = Keys::generate().public_key;
        let mut queue = Queue::new(3, 0);
        for number in 1..=3 {
            assert_eq!(queue.enter(award(number), buyer), Ok(0));
        }
        assert_eq!(queue.enter(award(4), buyer), Err(Full::All));
        assert_eq!(std::iter::from_fn(|| queue.begin_next()).count(), 3);
    }

    #[test]
    fn leaving_the_middle_moves_the_others_up() {
        let buyers: Vec<_> = (0..4).map(|_| Keys::generate().public_key).collect();
        let mut queue = Queue::new(1, 4);
        for (number, buyer) in (1..).zip(&buyers) {
            queue.enter(award(number), *buyer).unwrap();
            queue.begin_next();
        }
        queue.leave(&award(3));
        assert_eq!(order(&queue), [(award(2), 1), (award(4), 2)]);
        queue.leave(&award(9));
        assert_eq!(queue.queued(), 2, "a stranger's leaving changes nothing");
    }
}
