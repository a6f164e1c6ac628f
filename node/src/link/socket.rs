//! Opening a websocket to a relay.

use std::time::Duration;

use nostr::RelayUrl;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

/// How long name resolution, TCP, TLS and the websocket's handshake may take together.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The largest message that is read at all; a larger one ends the connection. Far above what is let in, because a
/// lax relay that stores one huge event must not be able to cut us off each time it serves it.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// How much is read at once. The library's own size would have it take fresh memory from the system for almost every
/// message.
const READ_BYTES: usize = 16 << 10;

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects to `url`; the error is in words.
pub(super) async fn open(url: &RelayUrl) -> Result<Socket, String> {
    // rustls asks for one provider for the whole process; somebody else's choice is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let without_nagle = true;
    let connecting = connect_async_with_config(url.as_str(), Some(config), without_nagle);
    match timeout(HANDSHAKE, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", HANDSHAKE.as_secs())),
    }
}
