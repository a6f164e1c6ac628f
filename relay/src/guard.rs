//! Stands between a websocket's transport and the session that reads it.
//!
//! The session's library bounds neither the size of a message nor, usefully, their rate, and it drops a connection
//! without a word. So a [`Guard`] ends the stream at a message over the bound, reads a peer that sends too fast more
//! slowly (it loses nothing, it waits), ends the stream between two messages when the relay stops, and says goodbye.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::frames::{Scanner, TooLarge};
use crate::options::{Limits, MAX_MESSAGE_BYTES};

/// How long a goodbye may take, and how long what a peer still sends is read and dropped after it: closing at once
/// would reset the connection, and the goodbye be lost.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of a notice; with it a frame's header stays four bytes long.
const MAX_NOTICE_BYTES: usize = 1_000;

/// Why the relay ends a connection, which it tells the peer as a NOTICE and as a websocket close code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Farewell {
    /// A message was larger than the bound.
    TooLarge,
    /// A message could not be read.
    Unreadable(String),
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
            Self::Failed => "error: the relay failed to serve that; try again".to_owned(),
            Self::Stopping => "error: the relay is stopping".to_owned(),
        }
    }

    /// Two unmasked frames: the NOTICE as text, and the close.
    fn frames(&self) -> Vec<u8> {
        let mut notice = serde_json::json!(["NOTICE", self.notice()]).to_string();
        if notice.len() > MAX_NOTICE_BYTES {
            notice = serde_json::json!(["NOTICE", "invalid: unreadable message"]).to_string();
        }
        let mut frames = vec![0x81, 126];
        frames.extend((notice.len() as u16).to_be_bytes());
        frames.extend(notice.as_bytes());
        frames.extend([0x88, 2]);
        frames.extend(self.code().to_be_bytes());
        frames
    }
}

/// A transport that bounds what is read from it. Writing goes straight through.
#[derive(Debug)]
pub struct Guard<S> {
    transport: S,
    scanner: Scanner,
    pace: Pace,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    farewell: Option<Farewell>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `transport`, a websocket just upgraded, until `stop`.
    pub fn new(transport: S, limits: &Limits, stop: CancellationToken) -> Self {
        Self {
            transport,
            scanner: Scanner::new(MAX_MESSAGE_BYTES),
            pace: Pace::new(limits.messages_per_second, limits.burst),
            stop: Box::pin(stop.cancelled_owned()),
            farewell: None,
        }
    }

    /// Tells the peer why its connection ends, if it was this side or `failure` that ended it, and closes it.
    pub async fn part(mut self, failure: Option<Farewell>) {
        let Some(farewell) = self.farewell.take().or(failure) else {
            return;
        };
        let goodbye = async {
            self.transport.write_all(&farewell.frames()).await?;
            self.transport.shutdown().await?;
            io::copy(&mut self.transport, &mut io::sink()).await
        };
        // A peer that is gone, or does not hang up, has had its chance.
        let _ = timeout(LINGER, goodbye).await;
    }

    /// Ends the stream, as the session sees it.
    fn end(&mut self, farewell: Farewell) -> Poll<io::Result<()>> {
        self.farewell = Some(farewell);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.farewell.is_some() {
            return Poll::Ready(Ok(()));
        }
        if self.scanner.between_messages() && self.stop.as_mut().poll(context).is_ready() {
            return self.end(Farewell::Stopping);
        }
        ready!(self.pace.poll_ready(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        match self.scanner.advance(&buffer.filled()[before..]) {
            Ok(frames) => self.pace.spend(frames),
            Err(TooLarge) => {
                buffer.set_filled(before);
                return self.end(Farewell::TooLarge);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.transport).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

/// How fast messages are taken: a steady rate, with a burst that fills again as fast as it may be spent.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    burst: Duration,
    /// When all that was taken so far would have come at the steady rate.
    due: Instant,
    wait: Pin<Box<Sleep>>,
}

impl Pace {
    fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        let now = Instant::now();
        Self {
            interval,
            burst: interval * burst,
            due: now,
            wait: Box::pin(sleep_until(now)),
        }
    }

    fn spend(&mut self, messages: u32) {
        self.due = self.due.max(Instant::now()) + self.interval * messages;
        let resume = self.due.checked_sub(self.burst).unwrap_or(self.due);
        self.wait.as_mut().reset(resume);
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.wait.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;

    use super::*;

    /// A masked frame of two bytes of text.
    const SMALL: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];

    fn limits() -> Limits {
        Limits {
            messages_per_second: 10,
            burst: 5,
            ..Limits::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_sender_is_read_at_the_steady_rate() {
        let (mut peer, relay) = io::duplex(SMALL.len());
        let mut guard = Guard::new(relay, &limits(), CancellationToken::new());
        let sending = tokio::spawn(async move {
            for _ in 0..105 {
                peer.write_all(&SMALL).await.unwrap();
            }
        });
        let began = Instant::now();
        let mut taken = Vec::new();
        guard.read_to_end(&mut taken).await.unwrap();
        sending.await.unwrap();
        assert_eq!(taken.len(), 105 * SMALL.len(), "nothing is lost");
        let took = began.elapsed().as_secs_f64();
        assert!((9.5..=10.5).contains(&took), "took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_end_of_a_message() {
        let (mut peer, relay) = io::duplex(1_024);
        let stop = CancellationToken::new();
        let mut guard = Guard::new(relay, &limits(), stop.clone());
        peer.write_all(&SMALL[..5]).await.unwrap();
        let mut taken = [0; 64];
        assert_eq!(guard.read(&mut taken).await.unwrap(), 5);
        stop.cancel();
        peer.write_all(&SMALL[5..]).await.unwrap();
        assert_eq!(guard.read(&mut taken).await.unwrap(), 3);
        assert_eq!(guard.read(&mut taken).await.unwrap(), 0, "now it ends");
        assert_eq!(guard.farewell, Some(Farewell::Stopping));
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_message_ends_the_stream_and_the_peer_is_told() {
        let (mut peer, relay) = io::duplex(1_024);
        let mut guard = Guard::new(relay, &limits(), CancellationToken::new());
        peer.write_all(&[0x81, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
            .await
            .unwrap();
        let mut taken = [0; 64];
        assert_eq!(guard.read(&mut taken).await.unwrap(), 0);
        let parting = tokio::spawn(guard.part(None));
        let mut goodbye = Vec::new();
        peer.read_to_end(&mut goodbye).await.unwrap();
        drop(peer);
        parting.await.unwrap();
        let text = String::from_utf8_lossy(&goodbye[4..goodbye.len() - 4]);
        assert!(text.starts_with("[\"NOTICE\",\"invalid: "), "{text}");
        assert!(goodbye.ends_with(&[0x88, 2, 0x03, 0xf1]));
    }
}
