//! Who runs, who waits, and in which order.
//!
//! This is weighted fair queueing in virtual time: each attempt takes its buyer's clock
//! on by one turn, the shorter the more it pays, and who would be done first is next.
//! So a buyer's second attempt waits behind everybody's first, a higher price goes
//! before a lower one, and nobody waits forever. Among equals the order is that of
//! arrival.

use infernet_engine::Standing;
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
    /// What it pays, in msat for a million tokens of output.
    price: u64,
    /// When its turn begins, in virtual time.
    begins: f64,
    /// When its turn ends.
    ends: f64,
}

/// The attempts of a provider.
#[derive(Debug)]
pub struct Queue {
    slots: usize,
    places: usize,
    running: Vec<Place>,
    waiting: Vec<Place>,
    /// Virtual time: the middle of the turn of the last to begin. So it goes on even if
    /// all who come are new, and is still before the end of that one's turn.
    now: f64,
}

impl Queue {
    /// A queue of so many attempts side by side, and so many that wait.
    pub const fn new(slots: u32, places: u32) -> Self {
        Self {
            slots: slots as usize,
            places: places as usize,
            running: Vec::new(),
            waiting: Vec::new(),
            now: 0.0,
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

    /// Takes an attempt in that pays `price`, in msat for a million tokens of output;
    /// answers how many run or wait before it can begin.
    ///
    /// # Errors
    /// [`Full`].
    pub fn enter(&mut self, award: EventId, buyer: PublicKey, price: u64) -> Result<u32, Full> {
        self.room_for(&buyer)?;
        Ok(self.squeeze_in(award, buyer, price))
    }

    /// Takes an attempt in, even if there is no room; answers as [`Self::enter`].
    pub fn squeeze_in(&mut self, award: EventId, buyer: PublicKey, price: u64) -> u32 {
        let begins = self.clock_of(&buyer);
        let ends = begins + self.turn(price);
        let at = self.waiting.partition_point(|p| p.ends <= ends);
        let place = Place {
            award,
            buyer,
            price,
            begins,
            ends,
        };
        self.waiting.insert(at, place);
        self.ahead_of(at)
    }

    /// Where the last of a buyer's turns ends; one without any begins now.
    fn clock_of(&self, buyer: &PublicKey) -> f64 {
        let all = self.running.iter().chain(&self.waiting);
        let theirs = all.filter(|p| p.buyer == *buyer);
        theirs.map(|p| p.ends).fold(self.now, f64::max)
    }

    /// How long a turn at this price is, beside all others here.
    fn turn(&self, price: u64) -> f64 {
        let all = self.running.iter().chain(&self.waiting);
        let highest = all.map(|p| p.price).fold(price, u64::max);
        let standing = Standing { customer: 0, price };
        1.0 / standing.weight(highest)
    }

    /// The next attempt to begin, if there is a slot for it; it runs from now on.
    pub fn begin_next(&mut self) -> Option<EventId> {
        if self.running.len() >= self.slots || self.waiting.is_empty() {
            return None;
        }
        let place = self.waiting.remove(0);
        self.now = self.now.max(f64::midpoint(place.begins, place.ends));
        self.running.push(place);
        Some(place.award)
    }

    /// An attempt has ended. If it had not begun, what its buyer has waiting behind it
    /// moves up.
    pub fn leave(&mut self, award: &EventId) {
        self.running.retain(|p| p.award != *award);
        let Some(at) = self.waiting.iter().position(|p| p.award == *award) else {
            return;
        };
        let left = self.waiting.remove(at);
        let behind = self.waiting.iter_mut();
        for place in behind.filter(|p| p.buyer == left.buyer && p.begins >= left.ends) {
            place.begins -= left.ends - left.begins;
            place.ends -= left.ends - left.begins;
        }
        // Stable: equals stay in the order of their arrival.
        self.waiting.sort_by(|a, b| a.ends.total_cmp(&b.ends));
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
        assert_eq!(queue.enter(award(1), a, 0), Ok(0));
        assert_eq!(queue.begin_next(), Some(award(1)));
        assert_eq!(queue.enter(award(2), b, 0), Ok(1));
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
            queue.enter(award(number), greedy, 0).unwrap();
            queue.begin_next();
        }
        assert_eq!(
            queue.enter(award(5), other, 0),
            Ok(1),
            "before the greedy one's second"
        );
        let expected = [(award(5), 1), (award(2), 2), (award(3), 3), (award(4), 4)];
        assert_eq!(order(&queue), expected);
    }

    #[test]
    fn a_higher_price_goes_first_and_nobody_waits_forever() {
        let free = Keys::generate().public_key;
        let mut queue = Queue::new(1, 64);
        queue.enter(award(1), free, 0).unwrap();
        queue.begin_next();
        let poor = Keys::generate().public_key;
        queue.enter(award(2), poor, 0).unwrap();
        let mut before = 0;
        // Each is another buyer, and all pay.
        for number in 10..100 {
            let rich = Keys::generate().public_key;
            queue.enter(award(number), rich, 1_000).unwrap();
            let last = queue.running[0].award;
            queue.leave(&last);
            if queue.begin_next() == Some(award(2)) {
                break;
            }
            before += 1;
        }
        assert!((10..=40).contains(&before), "{before} went before");
    }

    #[test]
    fn one_buyer_cannot_fill_the_queue() {
        let (greedy, other) = (Keys::generate().public_key, Keys::generate().public_key);
        let mut queue = Queue::new(1, 4);
        queue.enter(award(1), greedy, 0).unwrap();
        queue.begin_next();
        queue.enter(award(2), greedy, 0).unwrap();
        queue.enter(award(3), greedy, 0).unwrap();
        assert_eq!(queue.enter(award(4), greedy, 0), Err(Full::OneBuyer));
        queue.enter(award(5), other, 0).unwrap();
        queue.enter(award(6), other, 0).unwrap();
        assert_eq!(
            queue.enter(award(7), Keys::generate().public_key, 0),
            Err(Full::All)
        );
        assert!(queue.is_full());
    }

    #[test]
    fn a_buyer_alone_may_use_all_slots() {
        let buyer = Keys::generate().public_key;
        let mut queue = Queue::new(3, 0);
        for number in 1..=3 {
            assert_eq!(queue.enter(award(number), buyer, 0), Ok(0));
        }
        assert_eq!(queue.enter(award(4), buyer, 0), Err(Full::All));
        assert_eq!(std::iter::from_fn(|| queue.begin_next()).count(), 3);
    }

    #[test]
    fn leaving_the_middle_moves_the_others_up() {
        let buyers: Vec<_> = (0..4).map(|_| Keys::generate().public_key).collect();
        let mut queue = Queue::new(1, 4);
        for (number, buyer) in (1..).zip(&buyers) {
            queue.enter(award(number), *buyer, 0).unwrap();
            queue.begin_next();
        }
        queue.leave(&award(3));
        assert_eq!(order(&queue), [(award(2), 1), (award(4), 2)]);
        queue.leave(&award(9));
        assert_eq!(queue.queued(), 2, "a stranger's leaving changes nothing");
    }
}
