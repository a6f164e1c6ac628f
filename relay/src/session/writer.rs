//! Writes to one client what its outbox holds, and its last words.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use futures::stream::{SplitSink, SplitStream};
use tokio::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::{self, Message};

use super::farewell::End;
use super::outbox::{Outbox, Parcel};
use super::transport::Transport;

/// How long what a client still sends is read and dropped after the last words: closing at once would reset the
/// connection, and the words be lost.
const LINGER: Duration = Duration::from_secs(1);

/// One websocket.
pub type Socket<S> = WebSocketStream<Transport<S>>;

/// Writes to one client.
pub struct Writer<S> {
    sink: SplitSink<Socket<S>, Message>,
    outbox: Arc<Outbox>,
    /// Taken out of the outbox and not handed to the socket yet.
    batch: VecDeque<Parcel>,
    /// Messages and bytes whose room is given back when they are written.
    unwritten: (usize, usize),
    space: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// Writes to `sink` what comes into `outbox`.
    pub fn new(sink: SplitSink<Socket<S>, Message>, outbox: Arc<Outbox>) -> Self {
        Self {
            sink,
            outbox,
            batch: VecDeque::new(),
            unwritten: (0, 0),
            space: BytesMut::new(),
        }
    }

    /// Writes, for ever. It may be dropped at any time and goes on where it was.
    ///
    /// # Errors
    /// When the connection is lost, or the peer takes nothing for too long.
    pub async fn run(&mut self) -> tungstenite::Error {
        loop {
            if self.unwritten == (0, 0) {
                let bytes = self.outbox.take(&mut self.batch).await;
                self.unwritten = (self.batch.len(), bytes);
            }
            if let Err(error) = self.write_batch().await {
                return error;
            }
        }
    }

    async fn write_batch(&mut self) -> Result<(), tungstenite::Error> {
        while !self.batch.is_empty() {
            poll_fn(|context| self.sink.poll_ready_unpin(context)).await?;
            let parcel = self.batch.pop_front();
            if let Some(text) = parcel.and_then(|parcel| parcel.into_bytes(&mut self.space)) {
                self.sink.start_send_unpin(frame(text))?;
            }
        }
        self.sink.flush().await?;
        let (messages, bytes) = std::mem::take(&mut self.unwritten);
        self.outbox.give_back(messages, bytes);
        Ok(())
    }

    /// Writes what is left, tells the client why its session ends, and closes the connection.
    pub async fn part(mut self, stream: SplitStream<Socket<S>>, end: End) {
        let Some((notice, code)) = end.words() else {
            // Where the client closed, the websocket has an answer to that ready.
            let _ = timeout(end.patience(), self.sink.flush()).await;
            return;
        };
        let said = async {
            if end == End::TooSlow {
                self.batch.clear();
            } else {
                self.write_batch().await?;
                while self.outbox.take_now(&mut self.batch) > 0 {
                    self.write_batch().await?;
                }
            }
            self.sink
                .feed(frame(super::say::notice(&notice).into()))
                .await?;
            let close = CloseFrame {
                code,
                reason: "".into(),
            };
            self.sink.send(Message::Close(Some(close))).await
        };
        // A peer that is gone, or does not read, has had its chance.
        if let Ok(Ok(())) = timeout(end.patience(), said).await {
            linger(self.sink, stream).await;
        }
    }
}

fn frame(text: Bytes) -> Message {
    // The text is ours, so nobody has to look whether it is UTF-8.
    Message::Frame(Frame::message(text, OpCode::Data(Data::Text), true))
}

/// Ends the connection on this side, and waits a moment until the peer does.
async fn linger<S>(sink: SplitSink<Socket<S>, Message>, stream: SplitStream<Socket<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // They are two halves of one.
    let Ok(mut socket) = stream.reunite(sink) else {
        return;
    };
    let transport = socket.get_mut();
    let ending = async {
        transport.shutdown().await?;
        io::copy(transport, &mut io::sink()).await
    };
    let _ = timeout(LINGER, ending).await;
}
