//! One relay's connection: kept, read from, written to.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::desk::{Desk, Line};
use super::error::plain;
use super::outstanding::Outstanding;
use super::reader::Reader;
use super::socket::{self, Socket};
use super::standing::Memory;
use super::writer::Writer;
use super::{FAREWELL, Options};

/// Events that may wait to be written to one relay: some seconds of several streams, and 16 MiB at the very most.
const MAX_UNWRITTEN: usize = 256;

/// How long a connection must have held for the next attempt to come soon again.
const STEADY: Duration = Duration::from_secs(10);

/// Keeps a relay connected until the link stops.
pub(super) async fn keep(desk: Arc<Desk>, relay: usize) {
    let mut failures = 0;
    let mut memory = Memory::default();
    while !desk.stop.is_cancelled() {
        let mut held = Duration::ZERO;
        let opened = tokio::select! {
            opened = socket::open(desk.url(relay)) => opened,
            () = desk.stop.cancelled() => return,
        };
        match opened {
            Ok(socket) => {
                let begun = Instant::now();
                session(&desk, relay, socket, &mut memory).await;
                held = begun.elapsed();
            }
            Err(why) => {
                let why = plain(&why);
                tracing::debug!(relay = %desk.url(relay), why, "cannot connect");
                desk.failed(relay, &why);
            }
        }
        failures = if held >= STEADY { 0 } else { failures + 1 };
        tokio::select! {
            () = sleep(pause(&desk.options, failures)) => {}
            () = desk.stop.cancelled() => return,
        }
    }
}

/// The pause before the next attempt: it doubles with every failure in a row, and varies by a quarter, so that not
/// all clients of a relay that restarts come back in the same moment.
fn pause(options: &Options, failures: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let pause = options.retry_first.saturating_mul(doubled);
    let pause = pause.min(options.retry_most);
    pause.mul_f64(rand::random_range(0.75..=1.0))
}

/// One connection from its opening to its end.
async fn session(desk: &Desk, relay: usize, socket: Socket, memory: &mut Memory) {
    let (sink, mut stream) = socket.split();
    let (requests, requested) = mpsc::unbounded_channel();
    let (events, to_write) = mpsc::channel(MAX_UNWRITTEN);
    let outstanding = Arc::new(Outstanding::new());
    let mut writer = Writer::new(sink, requested, to_write, outstanding.clone());
    let mut reader = Reader::new(desk, relay, outstanding, memory);
    desk.connected(relay, Line::new(requests, events));
    let why = tokio::select! {
        error = writer.run() => error,
        why = reader.run(&mut stream) => why,
        () = desk.stop.cancelled() => {
            // Whether the relay still listens is its own affair.
            let _ = timeout(FAREWELL, writer.farewell(&mut stream)).await;
            "stopped".to_owned()
        }
    };
    desk.lost(relay, &plain(&why));
}

#[cfg(test)]
mod tests {
    use nostr::Keys;

    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let options = Options::new([], Keys::generate());
        let longest = [1, 1, 2, 4, 8, 16, 30, 30].map(Duration::from_secs);
        for (failures, longest) in (0..).zip(longest) {
            let pause = pause(&options, failures);
            assert!(
                (longest.mul_f64(0.74)..=longest).contains(&pause),
                "{pause:?}"
            );
        }
        assert!(pause(&options, u32::MAX) <= options.retry_most);
    }
}
