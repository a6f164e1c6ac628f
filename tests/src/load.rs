//! Load on a relay: events that were signed before the clock starts, and connections cheap enough to share two cores
//! with what is measured. Nothing that comes back is verified; it is counted and timed.

mod audience;
mod connection;
mod cpu;
mod events;
mod figures;
mod flood;
mod junk;
mod listen;
mod publish;
mod said;
mod sendings;

pub use self::audience::{Audience, Delivery, Listening};
pub use self::connection::{Connection, Ended};
pub use self::cpu::Cpu;
pub use self::events::{Population, Ready};
pub use self::figures::{Times, percentile};
pub use self::flood::{Flood, Flooded};
pub use self::junk::junk;
pub use self::listen::{Heard, Listener};
pub use self::publish::{Outcome, pipeline, steady, stop_and_wait};
pub use self::said::{Said, event_number};
pub use self::sendings::Sendings;
