//! Who takes part in the tests, and how they sign.

use infernet_protocol::event::Body;
use nostr::{Event, Keys, SecretKey, Timestamp};

/// When everything in the tests is signed.
pub const NOW: Timestamp = Timestamp::from_secs(1_790_000_000);

fn keys(n: u8) -> Keys {
    Keys::new(SecretKey::from_slice(&[n; 32]).unwrap())
}

pub fn buyer() -> Keys {
    keys(1)
}

pub fn provider() -> Keys {
    keys(2)
}

pub fn stranger() -> Keys {
    keys(3)
}

/// The event that carries a body, whatever the body says.
pub fn event<B: Body>(body: &B, author: &Keys) -> Event {
    let unsigned = body.to_unsigned(author.public_key(), NOW);
    unsigned.sign_with_keys(author).unwrap()
}
