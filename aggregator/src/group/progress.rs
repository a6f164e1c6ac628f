//! How far the work on a group is, as its buyer and the owner see it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use infernet_protocol::batch::Progress;
use infernet_protocol::money::Msat;

use crate::tally::{Checked, Done, Ended};

/// How far the work on a group is.
#[derive(Debug)]
pub(crate) struct Gauge(Mutex<State>);

#[derive(Debug)]
struct State {
    progress: Progress,
    /// Work of all its lines, and of those that have ended since it began
    /// (`shards::weight`).
    weight: u64,
    ended: u64,
    began: Option<Instant>,
}

impl Gauge {
    /// Of a group of so many lines.
    pub fn new(lines: u64) -> Self {
        let progress = Progress {
            lines,
            ..Progress::default()
        };
        Self(Mutex::new(State {
            progress,
            weight: 0,
            ended: 0,
            began: None,
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work begins, or goes on: so much is left, and so much was done before.
    pub fn start<'a>(&self, left: u64, before: impl IntoIterator<Item = (&'a Ended, u64)>) {
        let mut state = self.state();
        state.progress = Progress {
            lines: state.progress.lines,
            running: state.progress.running,
            ..Progress::default()
        };
        state.weight = left;
        state.ended = 0;
        state.began = Some(Instant::now());
        for (ended, lines) in before {
            match ended {
                Ended::Done(done) => state.count(done),
                Ended::Failed { .. } => state.count_failed(lines),
            }
        }
    }

    /// So many lines are with a provider, until what is answered is dropped.
    pub fn begins(self: &Arc<Self>, lines: u64) -> AtWork {
        self.state().progress.running += lines;
        AtWork {
            gauge: self.clone(),
            lines,
        }
    }

    /// A shard was done, of so much work.
    pub fn ended(&self, done: &Done, weight: u64) {
        let mut state = self.state();
        state.ended += weight;
        state.count(done);
    }

    /// So many lines could not be done.
    pub fn failed(&self, lines: u64) {
        self.state().count_failed(lines);
    }

    /// How far it is.
    pub fn read(&self) -> Progress {
        let state = self.state();
        Progress {
            seconds_left: state.seconds_left(),
            // Two may have a shard at the same time.
            running: state.progress.running.min(state.progress.lines),
            ..state.progress
        }
    }
}

impl State {
    fn count(&mut self, done: &Done) {
        let answered = u64::from(done.answered);
        self.progress.done += answered + u64::from(done.failed);
        self.progress.failed += u64::from(done.failed);
        if done.checked != Checked::Inconclusive {
            self.progress.verified += answered;
        }
        let cost = self.progress.cost_msat.checked_add(done.cost);
        self.progress.cost_msat = cost.unwrap_or(Msat::MAX);
    }

    fn count_failed(&mut self, lines: u64) {
        self.progress.done += lines;
        self.progress.failed += lines;
    }

    /// By the speed since the work began.
    fn seconds_left(&self) -> Option<u64> {
        let seconds = self.began?.elapsed().as_secs_f64();
        let left = self.weight.saturating_sub(self.ended);
        (self.ended > 0).then(|| (seconds * left as f64 / self.ended as f64).ceil() as u64)
    }
}

/// Lines that are with a provider.
#[derive(Debug)]
pub(crate) struct AtWork {
    gauge: Arc<Gauge>,
    lines: u64,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut state = self.gauge.state();
        state.progress.running = state.progress.running.saturating_sub(self.lines);
    }
}
