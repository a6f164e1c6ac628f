//! The bytes under a websocket: read at a bounded pace, and given up when the peer takes none of them.
//!
//! The pace of bytes is apart from that of messages, since frames without content are no messages and cost work too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::pace::Pace;

/// How long a peer may take nothing of what is written to it. Until then it holds a place, and in memory what it asked
/// for.
pub const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A transport that is read at a pace, and whose writes do not hang for ever.
#[derive(Debug)]
pub struct Transport<S> {
    inner: S,
    pace: Pace,
    /// Runs while a write hangs.
    hanging: Option<Pin<Box<Sleep>>>,
}

impl<S> Transport<S> {
    /// `inner`, of which so many bytes are read a second.
    pub fn new(inner: S, bytes_per_second: u32) -> Self {
        Self {
            inner,
            pace: Pace::new(bytes_per_second, bytes_per_second),
            hanging: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.pace.poll_ready(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        let bytes = buffer.filled().len() - before;
        self.pace.spend(u32::try_from(bytes).unwrap_or(u32::MAX));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.inner).poll_write(context, bytes) {
            self.hanging = None;
            return Poll::Ready(written);
        }
        let hanging = self
            .hanging
            .get_or_insert_with(|| Box::pin(sleep(TAKEN_WITHIN)));
        ready!(hanging.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_come_at_their_pace_and_none_is_lost() {
        let (mut peer, relay) = io::duplex(1_000);
        let mut transport = Transport::new(relay, 1_000);
        let began = Instant::now();
        let sending = tokio::spawn(async move { peer.write_all(&[7; 11_000]).await });
        let mut taken = Vec::new();
        transport.read_to_end(&mut taken).await.unwrap();
        sending.await.unwrap().unwrap();
        assert_eq!(taken, [7; 11_000]);
        let took = began.elapsed().as_secs_f64();
        assert!((9.0..=11.0).contains(&took), "took {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (mut peer, relay) = io::duplex(16);
        let mut transport = Transport::new(relay, 1_000);
        let writing = tokio::spawn(async move { transport.write_all(&[0; 100]).await });
        sleep(TAKEN_WITHIN / 2).await;
        peer.read_exact(&mut [0; 50]).await.unwrap();
        let began = Instant::now();
        let given_up = writing.await.unwrap().unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= TAKEN_WITHIN, "reading a part is reading");
    }
}
