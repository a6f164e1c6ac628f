//! What was found in an answer, as it is kept between measuring and judging.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use infernet_engine::CheckText;
use infernet_protocol::inference::EndReason;
use infernet_protocol::verification::{ChunkDistance, Fault, TextFigures, Thresholds};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// What was found in an answer, with a clip beyond all margins.
#[derive(Serialize, Deserialize)]
pub struct Record {
    name: String,
    greedy: bool,
    /// Whether it is said to have ended of itself.
    stops: bool,
    /// How many tokens it has: margins are missing where a fault was found first.
    tokens: usize,
    margins: Vec<f32>,
    chunks: Vec<(u32, f64, f64)>,
    fault: Option<Fault>,
}

impl Record {
    pub fn new(name: &str, work: &CheckText, figures: &TextFigures) -> Self {
        let chunk = |c: &ChunkDistance| (c.exponents, c.mantissa_mean, c.mantissa_median);
        Self {
            name: name.into(),
            greedy: figures.greedy,
            stops: work.answer.ended == EndReason::Stop,
            tokens: work.answer.tokens.len(),
            margins: figures.margins.clone(),
            chunks: figures.chunks.iter().map(chunk).collect(),
            fault: figures.fault,
        }
    }

    /// What is found by a checker that was given these thresholds: ends that it would
    /// never draw are faults.
    pub fn figures(&self, thresholds: Option<&Thresholds>) -> TextFigures {
        let clip = thresholds.map(|thresholds| match self.greedy {
            true => thresholds.greedy.clip,
            false => thresholds.sampled.clip,
        });
        let last = self.margins.last().copied().map(f64::from);
        let is_false_end = self.stops && clip.zip(last).is_some_and(|(clip, last)| last >= clip);
        let mut margins = self.margins.clone();
        margins.resize(self.tokens, 0.0);
        TextFigures {
            margins,
            greedy: self.greedy,
            chunks: self.chunks.iter().map(distance).collect(),
            fault: self.fault.or(is_false_end.then_some(Fault::EndsFalsely)),
        }
    }
}

fn distance(&(exponents, mantissa_mean, mantissa_median): &(u32, f64, f64)) -> ChunkDistance {
    ChunkDistance {
        exponents,
        mantissa_mean,
        mantissa_median,
    }
}

/// All that were kept, by name, in the order in which the names come first.
pub fn read(path: &Path) -> Result<Vec<(String, Vec<Record>)>, Failure> {
    let mut read: Vec<(String, Vec<Record>)> = Vec::new();
    for line in BufReader::new(File::open(path)?).lines() {
        let record: Record = serde_json::from_str(&line?)?;
        match read.iter_mut().find(|(name, _)| *name == record.name) {
            Some((_, records)) => records.push(record),
            None => read.push((record.name.clone(), vec![record])),
        }
    }
    Ok(read)
}
