//! Stands between a websocket's transport and the session that reads it.
//!
//! The session's library bounds neither the size of a message nor, usefully, their rate, and it drops a connection
//! without a word. So a [`Guard`] ends the stream at a message over the bound, reads a peer that sends too fast more
//! slowly (it loses nothing, it waits), lets others have their turn after every read, gives up a peer that does not read, ends the stream between two messages when
//! the relay stops, and says goodbye.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::farewell::Farewell;
use crate::frames::{Scanner, TooLarge};
use crate::options::{Limits, MAX_MESSAGE_BYTES};
use crate::pace::Pace;

/// How long a goodbye may take, and how long what a peer still sends is read and dropped after it: closing at once
/// would reset the connection, and the goodbye be lost.
const LINGER: Duration = Duration::from_secs(1);

/// How long a peer may take nothing of what is written to it. Until then it holds a place, and in memory what it asked
/// for.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);

/// A transport that bounds what is read from it, and how long a write may hang.
#[derive(Debug)]
pub struct Guard<S> {
    transport: S,
    scanner: Scanner,
    pace: Pace,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Runs while a write hangs.
    hanging: Option<Pin<Box<Sleep>>>,
    farewell: Option<Farewell>,
    /// Whether something was read since the last turn was given up: a message can be costly, and a peer that always
    /// has the next one ready would keep the thread.
    had_its_turn: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    /// Guards `transport`, a websocket just upgraded, until `stop`.
    pub fn new(transport: S, limits: &Limits, stop: CancellationToken) -> Self {
        Self {
            transport,
            scanner: Scanner::new(MAX_MESSAGE_BYTES),
            pace: Pace::new(limits.messages_per_second, limits.burst),
            stop: Box::pin(stop.cancelled_owned()),
            hanging: None,
            farewell: None,
            had_its_turn: false,
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
        if std::mem::take(&mut self.had_its_turn) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(self.pace.poll_ready(context));
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.transport).poll_read(context, buffer))?;
        self.had_its_turn = true;
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
        if let Poll::Ready(written) = Pin::new(&mut self.transport).poll_write(context, bytes) {
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
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;
    use tokio::time::Instant;

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

    #[tokio::test]
    async fn a_peer_with_much_to_say_lets_others_have_their_turn() {
        let (mut peer, relay) = io::duplex(10 * SMALL.len());
        peer.write_all(&SMALL.repeat(10)).await.unwrap();
        let mut guard = Guard::new(relay, &Limits::default(), CancellationToken::new());
        let mut taken = [0; SMALL.len()];
        for _ in 0..10 {
            guard.read_exact(&mut taken).await.unwrap();
            let next = std::pin::pin!(guard.read_u8());
            assert!(
                futures::poll!(next).is_pending(),
                "it took the next turn too"
            );
        }
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
        assert_eq!(goodbye, Farewell::TooLarge.frames());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (mut peer, relay) = io::duplex(16);
        let mut guard = Guard::new(relay, &limits(), CancellationToken::new());
        let writing = tokio::spawn(async move { guard.write_all(&[0; 100]).await });
        sleep(TAKEN_WITHIN / 2).await;
        peer.read_exact(&mut [0; 50]).await.unwrap();
        let began = Instant::now();
        let given_up = writing.await.unwrap().unwrap_err();
        assert_eq!(given_up.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= TAKEN_WITHIN, "reading a part is reading");
    }
}
