//! One batch through the network, and what becomes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use half::bf16;
use infernet_protocol::inference::{EndReason, TokenId};

use crate::error::Error;
use crate::models::decoder::{Prediction, Row};
use crate::sampling::Margin;
use crate::serve::{Asked, Drawing, Network, Read, Sequence};

use super::Scheduler;

/// What is said of the token after a row, if it draws.
type Outcome = Result<Option<Prediction>, Error>;
/// The token that follows a row, if it draws.
type Drawn = Result<Option<TokenId>, Error>;
/// How far a token is from the one drawn there, and the state that it is drawn from.
type Judged = (Margin, Option<Vec<bf16>>);

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
        let drawn = draw_all(&drawings, self.limits.threads);
        let mut drawn = drawn.into_iter().zip(drawings.into_iter().map(|(_, o)| o));
        let mut read = read_all(&mut self.network, &self.running, self.limits.threads).into_iter();
        for sequence in std::mem::take(&mut self.running) {
            if sequence.piece == 0 {
                self.running.push(sequence);
                continue;
            }
            self.charge(&sequence, highest);
            let missing = || Error::Computation("a row has no outcome".into());
            match sequence.asked().is_some() {
                true => {
                    let read = read.next().unwrap_or_else(|| Err(missing()));
                    self.settle_read(sequence, read);
                }
                false => {
                    let drawn = drawn.next();
                    let (drawn, outcome) = drawn.unwrap_or_else(|| (Err(missing()), Ok(None)));
                    self.settle(sequence, drawn, outcome);
                }
            }
        }
    }

    /// What becomes of a request whose piece was computed.
    fn settle(&mut self, mut sequence: Sequence, drawn: Drawn, outcome: Outcome) {
        let ended = drawn.and_then(|drawn| {
            sequence.computed(&mut self.blocks);
            let Some(id) = drawn else { return Ok(None) };
            let state = outcome?.and_then(|prediction| prediction.state);
            guarded(|| {
                sequence.prove(state.as_deref());
                Ok(sequence.say(&self.text, id))
            })
        });
        self.go_on(sequence, ended);
    }

    /// What becomes of a text whose piece was read.
    fn settle_read(&mut self, mut sequence: Sequence, read: Result<Read, Error>) {
        let ended = read.and_then(|read| guarded(|| Ok(sequence.read(&mut self.blocks, read))));
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
    (sequence.piece > 0 && sequence.asked().is_none()).then(|| sequence.row())
}

/// Draws the tokens of a batch, on several threads where that is quicker.
fn draw_all(drawings: &[(Drawing, Outcome)], threads: usize) -> Vec<Drawn> {
    let noisy = drawings.iter().filter(|(drawing, _)| drawing.is_noisy());
    match noisy.count() < 2 && drawings.len() < MANY_DRAWS {
        true => drawings.iter().map(draw).collect(),
        false => in_parallel(drawings, threads, draw),
    }
}

/// What comes of each item, on so many threads.
fn in_parallel<T: Sync, R: Send + Clone>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    if threads < 2 || items.len() < 2 {
        return items.iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    let done = guarded(|| {
        thread::scope(|scope| {
            let work = &work;
            let shares = items.chunks(share);
            let workers: Vec<_> = shares
                .map(|share| scope.spawn(move || share.iter().map(work).collect::<Vec<R>>()))
                .collect();
            let failed = |_| Error::Computation("a thread panicked".into());
            let done = workers.into_iter().map(|w| w.join().map_err(failed));
            Ok(done.collect::<Result<Vec<_>, Error>>()?.concat())
        })
    });
    // The system may give no more threads.
    done.unwrap_or_else(|_| items.iter().map(work).collect())
}

fn draw((drawing, outcome): &(Drawing, Outcome)) -> Drawn {
    match outcome {
        Ok(Some(said)) => guarded(|| drawing.draw(&said.logits)).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error.clone()),
    }
}

/// Reads the pieces of the texts that are read, one after the other.
fn read_all<N: Network>(
    network: &mut N,
    running: &[Sequence],
    threads: usize,
) -> Vec<Result<Read, Error>> {
    let planned = running.iter().filter(|sequence| sequence.piece > 0);
    let asked = planned.filter_map(|sequence| Some((sequence.row(), sequence.asked()?)));
    asked
        .map(|(row, asked)| guarded(|| read(network, row, &asked, threads)))
        .collect()
}

fn read<N: Network>(
    network: &mut N,
    row: Row<'_>,
    asked: &Asked<'_>,
    threads: usize,
) -> Result<Read, Error> {
    let (first, next, drawing) = match *asked {
        Asked::Score { next } => return network.score(row, next).map(Read::Scores),
        Asked::Check {
            first,
            next,
            drawing,
        } => (first, next, drawing),
    };
    let mut judged: Vec<Judged> = Vec::with_capacity(next.len());
    network.inspect(row, first, &mut |said| {
        let places = judged.len()..;
        let said: Vec<_> = places.zip(said).collect();
        let margin = |(place, said): &(usize, Prediction)| match next.get(*place) {
            Some(&token) => drawing.after(*place).margin(&said.logits, token),
            None => Err(Error::Computation("too much was said of a row".into())),
        };
        let margins = in_parallel(&said, threads, |said| guarded(|| margin(said)));
        for (margin, (_, said)) in margins.into_iter().zip(said) {
            judged.push((margin?, said.state));
        }
        Ok(())
    })?;
    match judged.len() == next.len() {
        true => Ok(Read::Margins(judged)),
        false => Err(Error::Computation("too little was said of a row".into())),
    }
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
    let said = guarded(|| network.forward(rows))?;
    let drawing = rows.iter().filter(|row| row.draws).count();
    if said.len() != drawing {
        return Err(Error::Computation(format!(
            "{drawing} rows draw, and of {} something is said",
            said.len()
        )));
    }
    let mut said = said.into_iter();
    let outcome = |row: &Row<'_>| Ok(row.draws.then(|| said.next()).flatten());
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
        let said = |logit| Prediction {
            logits: vec![logit; 50],
            state: None,
        };
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
                    4 => Ok(Some(said(f32::NAN))),
                    _ => Ok(Some(said(0.0))),
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
