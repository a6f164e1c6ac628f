//! Why a session ends, and what the client is told of it: a NOTICE, and a websocket close code (RFC 6455 §7.4.1).

use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::options::MAX_MESSAGE_BYTES;

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client went, or its connection broke.
    Gone,
    /// The relay stops.
    Stopping,
    /// A message was larger than the bound.
    TooLarge,
    /// A message was no text, or no websocket's message at all.
    NoText,
    /// Too many messages could not be read, or were forged.
    Nonsense,
    /// The client read too slowly for what it has subscribed to.
    TooSlow,
    /// The operator blocked the client's address.
    Blocked,
}

impl End {
    /// The NOTICE and the close code, if anybody is there to be told.
    pub fn words(self) -> Option<(String, CloseCode)> {
        let (notice, code) = match self {
            Self::Gone => return None,
            Self::Stopping => ("error: the relay is stopping".to_owned(), CloseCode::Away),
            Self::TooLarge => {
                let notice =
                    format!("invalid: a message may have {MAX_MESSAGE_BYTES} bytes at most");
                (notice, CloseCode::Size)
            }
            Self::NoText => {
                let notice = "invalid: unreadable message: it is no text in UTF-8".to_owned();
                (notice, CloseCode::Invalid)
            }
            Self::Nonsense => {
                let notice = "invalid: too many messages that are unreadable or wrong".to_owned();
                (notice, CloseCode::Invalid)
            }
            Self::TooSlow => {
                let notice = "error: you read more slowly than events come; connect again, and \
                              ask for what you missed"
                    .to_owned();
                (notice, CloseCode::Again)
            }
            Self::Blocked => {
                let notice = "blocked: this relay takes nothing from your address".to_owned();
                (notice, CloseCode::Policy)
            }
        };
        Some((notice, code))
    }

    /// How long the client may take to take these words. One that reads slowly has others to read before them.
    pub fn patience(self) -> Duration {
        match self {
            Self::TooSlow => Duration::from_secs(10),
            _ => Duration::from_secs(1),
        }
    }
}
