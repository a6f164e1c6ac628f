//! One batch through the network, and what becomes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use infernet_protocol::inference::{EndReason, TokenId};

use crate::error::Error;
use crate::models::decoder::Row;
use crate::serve::{Drawing, Network, Sequence};

use super::Scheduler;

/// The logits of a row, if it draws.
type Outcome = Result<Option<Vec<f32>>, Error>;
/// The token that follows a row, if it draws.
type Drawn = Result<Option<TokenId>, Error>;

/// Greedy draws of a batch that are worth more than one thread: each takes a few
/// hundredths of a millisecond, one with noise a hundred times as much.
const MANY_DRAWS: usize = 16;

impl<N: Network> Scheduler<N> {
    /// Computes what was planned, and says what there is to say.
    pub(super) fn compute(&mut self) {
        let highest = self.highest_price();
        let rows: Vec<Row<'_>> = self.running.iter().filter_map(planned).collect();
        let outcomes = run(&mut self.network, &rows);
        let drawings = self.running.iter().filter(|s| planned(s).is_some());
        let drawings: Vec<_> = drawings.map(Sequence::drawing).zip(outcomes).collect();
        let mut drawn = draw_all(&drawings, self.limits.threads).into_iter();
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
                    let drawn = drawn.next().unwrap_or_else(|| Err(missing()));
                    self.settle(sequence, drawn);
                }
            }
        }
    }

    /// What becomes of a request whose piece was computed.
    fn settle(&mut self, mut sequence: Sequence, drawn: Drawn) {
        let ended = drawn.and_then(|drawn| {
            sequence.computed(&mut self.blocks);
            match drawn {
                Some(id) => guarded(|| Ok(sequence.say(&self.text, id))),
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

/// Draws the tokens of a batch, on several threads where that is quicker.
fn draw_all(drawings: &[(Drawing, Outcome)], threads: usize) -> Vec<Drawn> {
    let noisy = drawings.iter().filter(|(drawing, _)| drawing.is_noisy());
    if threads < 2 || (noisy.count() < 2 && drawings.len() < MANY_DRAWS) {
        return drawings.iter().map(draw).collect();
    }
    let share = drawings.len().div_ceil(threads);
    let drawn = guarded(|| {
        thread::scope(|scope| {
            let draws = |share: &'_ [(Drawing, Outcome)]| -> Vec<Drawn> {
                share.iter().map(draw).collect()
            };
            let shares = drawings.chunks(share);
            let workers: Vec<_> = shares
                .map(|share| scope.spawn(move || draws(share)))
                .collect();
            let failed = |_| Error::Computation("a thread panicked".into());
            let drawn = workers.into_iter().map(|w| w.join().map_err(failed));
            Ok(drawn.collect::<Result<Vec<_>, Error>>()?.concat())
        })
    });
    // The system may give no more threads.
    drawn.unwrap_or_else(|_| drawings.iter().map(draw).collect())
}

fn draw((drawing, outcome): &(Drawing, Outcome)) -> Drawn {
    match outcome {
        Ok(Some(logits)) => guarded(|| drawing.draw(logits)).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error.clone()),
    }
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

#[cfg(test)]
mod tests {
    use infernet_protocol::inference::Sampling;

    use super::*;

    #[test]
    fn drawing_on_several_threads_changes_nothing() {
        let drawings: Vec<(Drawing, Outcome)> = (0..7)
            .map(|row| {
                let sampling = Sampling {
                    temperature: 1.0,
                    seed: row,
                    ..Sampling::default()
                };
                let outcome = match row {
                    2 => Ok(None),
                    3 => Err(Error::Stopped),
                    4 => Ok(Some(vec![f32::NAN; 50])),
                    _ => Ok(Some(vec![0.0; 50])),
                };
                let position = 3;
                (Drawing { sampling, position }, outcome)
            })
            .collect();
        let alone = draw_all(&drawings, 1);
        assert!(matches!(alone[0], Ok(Some(_))) && alone[2] == Ok(None));
        assert!(alone[3] == Err(Error::Stopped) && alone[4].is_err());
        for threads in 2..10 {
            assert_eq!(draw_all(&drawings, threads), alone);
        }
    }
}
