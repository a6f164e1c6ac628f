//! One websocket to a relay on this machine.

use anyhow::{Context, Result, bail};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::said::Said;

/// Bytes of a connection's buffers: thousands of them are open at a time.
const BUFFER_BYTES: usize = 8 << 10;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: WebSocketStream<TcpStream>,
}

impl Connection {
    /// Connects to `ws://host:port`.
    ///
    /// # Errors
    /// If the relay cannot be reached, or speaks no websocket.
    pub async fn open(url: &str) -> Result<Self> {
        let stream = TcpStream::connect(host(url)).await;
        Self::over(stream.context("no connection")?, url).await
    }

    /// The same for one for which the system keeps little: who does not read falls behind at once.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn open_narrow(url: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(BUFFER_BYTES as u32)?;
        let stream = socket.connect(host(url).parse()?).await;
        Self::over(stream.context("no connection")?, url).await
    }

    async fn over(stream: TcpStream, url: &str) -> Result<Self> {
        stream.set_nodelay(true)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(BUFFER_BYTES);
        let url = format!("ws://{}/", host(url));
        let (socket, _) = client_async_with_config(url, stream, Some(config)).await?;
        Ok(Self { socket })
    }

    /// Puts a message into the buffer.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn feed(&mut self, message: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.socket.feed(Message::Text(message.into())).await?)
    }

    /// Sends what is in the buffer.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn flush(&mut self) -> Result<()> {
        Ok(self.socket.flush().await?)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn send(&mut self, message: impl Into<Utf8Bytes>) -> Result<()> {
        Ok(self.socket.send(Message::Text(message.into())).await?)
    }

    /// The next text.
    ///
    /// # Errors
    /// If the connection ends: [`Ended`] with what the relay gave as its reason.
    pub async fn next(&mut self) -> Result<Utf8Bytes> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Close(frame))) => bail!(Ended(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => bail!(error),
                None => bail!(Ended(None)),
            }
        }
    }

    /// The next text, if it has come.
    ///
    /// # Errors
    /// As [`Connection::next`].
    pub fn try_next(&mut self) -> Result<Option<Utf8Bytes>> {
        self.next().now_or_never().transpose()
    }

    /// Subscribes by a filter in JSON and waits until all that is stored has come; answers how much.
    ///
    /// # Errors
    /// If the relay refuses, or the connection ends.
    pub async fn request(&mut self, id: &str, filter: &str) -> Result<usize> {
        self.send(format!(r#"["REQ","{id}",{filter}]"#)).await?;
        let mut count = 0;
        loop {
            match Said::read(&self.next().await?) {
                Said::Event(_) => count += 1,
                Said::Eose => return Ok(count),
                Said::Closed(why) | Said::Notice(why) => bail!("{why}"),
                Said::Ok(..) | Said::Other(_) => {}
            }
        }
    }

    /// Ends a subscription.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn close(&mut self, id: &str) -> Result<()> {
        self.send(format!(r#"["CLOSE","{id}"]"#)).await
    }
}

fn host(url: &str) -> &str {
    url.trim_start_matches("ws://").trim_end_matches('/')
}

/// The relay has ended the connection.
#[derive(Debug)]
pub struct Ended(pub Option<CloseFrame>);

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(frame) => write!(f, "the relay has closed: {} {}", frame.code, frame.reason),
            None => write!(f, "the relay is gone"),
        }
    }
}

impl std::error::Error for Ended {}
