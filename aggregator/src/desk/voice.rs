//! What is said to buyers: encrypted, and heard only by those who listen now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use infernet_node::clock;
use infernet_node::link::Link;
use infernet_protocol::batch::{Answer, Question, Reply};
use infernet_protocol::event::Talk;
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::{Conversation, overhear, whisper};
use nostr::secp256k1::rand::rngs::OsRng;
use nostr::{EventId, Keys, PublicKey};

/// Buyers whose key is remembered; deriving one costs as much as a signature.
const MAX_CONVERSATIONS: usize = 1_024;

/// Says things to buyers. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Voice {
    keys: Keys,
    link: Link,
    conversations: Arc<Mutex<HashMap<PublicKey, Conversation>>>,
}

impl Voice {
    pub fn new(keys: Keys, link: Link) -> Self {
        Self {
            keys,
            link,
            conversations: Arc::default(),
        }
    }

    fn with(&self, buyer: &PublicKey) -> Option<Conversation> {
        let mut known = self
            .conversations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(conversation) = known.get(buyer) {
            return Some(conversation.clone());
        }
        let conversation = Conversation::between(self.keys.secret_key(), buyer).ok()?;
        if known.len() >= MAX_CONVERSATIONS {
            known.clear();
        }
        known.insert(*buyer, conversation.clone());
        Some(conversation)
    }

    /// What a buyer says in a talk, if it is anything.
    pub fn hear(&self, buyer: &PublicKey, content: &str) -> Option<Question> {
        let bytes = overhear(&self.with(buyer)?, content).ok()?;
        Question::from_bytes(&bytes).ok()
    }

    /// Says something to a buyer. That it is not heard does no harm: the buyer asks
    /// again.
    pub fn say(&self, buyer: &PublicKey, answer: &Answer) {
        let sealed = self
            .with(buyer)
            .and_then(|key| whisper(&key, &answer.to_bytes(), &mut OsRng).ok());
        let Some(content) = sealed else {
            tracing::warn!(%buyer, ?answer, "an answer that cannot be said");
            return;
        };
        let talk = Talk {
            reader: *buyer,
            content,
        };
        let unsigned = talk.to_unsigned(self.keys.public_key(), clock::now());
        let sent = unsigned.sign_with_keys(&self.keys);
        if let Err(error) = sent.map(|event| self.link.send(&event)) {
            tracing::debug!(%error, "an answer was not sent");
        }
    }

    /// Says something that was not asked for.
    pub fn tell(&self, buyer: &PublicKey, order: EventId, reply: Reply) {
        let answer = Answer {
            number: None,
            order: Some(order),
            reply,
        };
        self.say(buyer, &answer);
    }
}
