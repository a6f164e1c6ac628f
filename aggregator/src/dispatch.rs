//! Whom to give work: the places at providers, and who has them.
//!
//! [`Floor`] knows who sells what ([`Offer`]), how much each provider is doing for us
//! and how fast it was. A shard asks for a [`Seat`]; it is given one at the provider
//! that price, reputation, speed and free places make the best, or waits until there
//! is one.

mod choice;
mod floor;
mod judges;
mod offer;

pub use choice::Choice;
pub use floor::{Floor, Seat, Standing};
pub use offer::{Need, Offer};
