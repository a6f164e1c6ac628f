//! The last words of the relay on a connection, which the session's library would drop without any.

use crate::options::MAX_MESSAGE_BYTES;

/// Bytes of a notice: nobody needs more, and the length of its frame fits two bytes.
const MAX_NOTICE_BYTES: usize = 1_000;

/// Why the relay ends a connection, which it tells the peer as a NOTICE and as a websocket close code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// A message was larger than the bound.
    TooLarge,
    /// A message could not be read.
    Unreadable(String),
    /// A message asked for what this relay does not do.
    Unsupported,
    /// The relay failed.
    Failed,
    /// The relay stops.
    Stopping,
}

impl Farewell {
    /// The close code of RFC 6455 §7.4.1.
    fn code(&self) -> u16 {
        match self {
            Self::Stopping => 1001,
            Self::Unreadable(_) => 1007,
            Self::Unsupported => 1008,
            Self::TooLarge => 1009,
            Self::Failed => 1011,
        }
    }

    fn notice(&self) -> String {
        match self {
            Self::TooLarge => {
                format!("invalid: a message may have {MAX_MESSAGE_BYTES} bytes at most")
            }
            Self::Unreadable(reason) => format!("invalid: unreadable message: {reason}"),
            Self::Unsupported => {
                "error: this relay does not search, reconcile or count so broadly".to_owned()
            }
            Self::Failed => "error: the relay failed to serve that; try again".to_owned(),
            Self::Stopping => "error: the relay is stopping".to_owned(),
        }
    }

    /// Two unmasked frames: the NOTICE as text, and the close.
    pub fn frames(&self) -> Vec<u8> {
        let mut notice = serde_json::json!(["NOTICE", self.notice()]).to_string();
        if notice.len() > MAX_NOTICE_BYTES {
            notice = serde_json::json!(["NOTICE", "invalid: unreadable message"]).to_string();
        }
        let mut frames = vec![0x81];
        match notice.len() as u16 {
            short @ ..126 => frames.push(short as u8),
            long => {
                frames.push(126);
                frames.extend(long.to_be_bytes());
            }
        }
        frames.extend(notice.as_bytes());
        frames.extend([0x88, 2]);
        frames.extend(self.code().to_be_bytes());
        frames
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::StreamExt;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;

    #[tokio::test]
    async fn a_websocket_client_reads_every_farewell() {
        let reasons = [
            "",
            "expected `,`",
            &"\u{1}".repeat(400),
            &"x".repeat(70_000),
        ];
        let unreadable = reasons.map(|reason| Farewell::Unreadable(reason.to_owned()));
        let others = [
            Farewell::TooLarge,
            Farewell::Unsupported,
            Farewell::Failed,
            Farewell::Stopping,
        ];
        for farewell in others.into_iter().chain(unreadable) {
            let stream = std::io::Cursor::new(farewell.frames());
            let mut client = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
            let notice = client.next().await.unwrap().unwrap();
            let notice: serde_json::Value =
                serde_json::from_str(notice.to_text().unwrap()).unwrap();
            assert_eq!(notice[0], "NOTICE");
            let prefix = notice[1].as_str().unwrap().split_once(": ").unwrap().0;
            assert!(["invalid", "error"].contains(&prefix), "{notice}");
            let Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
                panic!("no close after {notice}");
            };
            assert_eq!(u16::from(close.code), farewell.code());
        }
    }
}
