//! One batch through the network, and what becomes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use infernet_protocol::inference::EndReason;

use crate::error::Error;
use crate::models::decoder::Row;
use crate::serve::{Network, Sequence};

use super::Scheduler;

/// The logits of a row, if it draws.
type Outcome = Result<Option<Vec<f32>>, Error>;

impl<N: Network> Scheduler<N> {
    /// Computes what was planned, and says what there is to say.
    pub(super) fn compute(&mut self) {
        let highest = self.highest_price();
        let rows: Vec<Row<'_>> = self.running.iter().filter_map(planned).collect();
        let mut outcomes = run(&mut self.network, &rows).into_iter();
        let mut scores = score(&mut self.network, &self.running).into_iter();
        for sequence in std::mem::take(&mut self.running) {
            if sequence.piece == 0 {
                self.running.push(sequence);
                continue;
            }
            self.charge(&sequence, highest);
            let missing = || Error::Computation("a row has no outcome".into());
            match sequence.scored_next().is_some() {
                true => {
                    let scores = scores.next().unwrap_or_else(|| Err(missing()));
                    self.settle_scored(sequence, scores);
                }
                false => {
                    let outcome = outcomes.next().unwrap_or_else(|| Err(missing()));
                    self.settle(sequence, outcome);
                }
            }
        }
    }

    /// What becomes of a request whose piece was computed.
    fn settle(&mut self, mut sequence: Sequence, outcome: Outcome) {
        let ended = outcome.and_then(|logits| {
            sequence.computed(&mut self.blocks);
            match logits {
                Some(logits) => guarded(|| sequence.draw(&self.text, &logits)),
                None => Ok(None),
            }
        });
        self.go_on(sequence, ended);
    }

    /// What becomes of a text whose piece was scored.
    fn settle_scored(&mut self, mut sequence: Sequence, scores: Result<Vec<f32>, Error>) {
        let ended = scores.map(|scores| sequence.scored(&mut self.blocks, scores));
        self.go_on(sequence, ended);
    }

    fn go_on(&mut self, sequence: Sequence, ended: Result<Option<EndReason>, Error>) {
        match ended {
            Ok(None) => self.running.push(sequence),
            Ok(Some(reason)) => self.dismiss(sequence).end(reason),
            Err(error) => self.dismiss(sequence).fail(error),
        }
    }
}

fn planned(sequence: &Sequence) -> Option<Row<'_>> {
    (sequence.piece > 0 && sequence.scored_next().is_none()).then(|| sequence.row())
}

/// Scores the pieces of the texts that are scored, one after the other.
fn score<N: Network>(network: &mut N, running: &[Sequence]) -> Vec<Result<Vec<f32>, Error>> {
    let planned = running.iter().filter(|sequence| sequence.piece > 0);
    let scored = planned.filter_map(|sequence| Some((sequence.row(), sequence.scored_next()?)));
    scored
        .map(|(row, next)| guarded(|| network.score(row, next)))
        .collect()
}

/// Computes rows together; if that fails, one by one, so that only those fail that
/// fail alone.
fn run<N: Network>(network: &mut N, rows: &[Row<'_>]) -> Vec<Outcome> {
    if rows.is_empty() {
        return Vec::new();
    }
    match forward(network, rows) {
        Ok(outcomes) => outcomes,
        Err(error) if rows.len() == 1 => vec![Err(error)],
        Err(error) => {
            tracing::warn!(%error, rows = rows.len(), "a batch failed; its rows are tried alone");
            let alone = |row| forward(network, std::slice::from_ref(row));
            let alone = rows.iter().map(alone);
            alone
                .map(|outcome| outcome.and_then(|mut rows| rows.pop().unwrap_or(Ok(None))))
                .collect()
        }
    }
}

/// Computes rows together: an outcome for each.
fn forward<N: Network>(network: &mut N, rows: &[Row<'_>]) -> Result<Vec<Outcome>, Error> {
    let logits = guarded(|| network.forward(rows))?;
    let drawing = rows.iter().filter(|row| row.draws).count();
    if logits.len() != drawing {
        return Err(Error::Computation(format!(
            "{drawing} rows draw, and {} have logits",
            logits.len()
        )));
    }
    let mut logits = logits.into_iter();
    let outcome = |row: &Row<'_>| Ok(row.draws.then(|| logits.next()).flatten());
    Ok(rows.iter().map(outcome).collect())
}

/// One request that makes a library panic must not end the others.
fn guarded<T>(step: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(step))
        .unwrap_or_else(|_| Err(Error::Computation("it panicked".into())))
}
