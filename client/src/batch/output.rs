//! The output: one line for each of the input, in its order, group by group.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use infernet_protocol::batch::{Done, LineOutcome};
use serde_json::Value;

use super::cut::Rules;
use super::journal::{Place, Tally};
use super::outcome::Sheet;
use super::reader::Reader;
use super::scan::open_at;

/// The output of a batch.
pub(super) struct Output {
    file: File,
    /// Its bytes.
    pub bytes: u64,
    input: PathBuf,
    rules: Rules,
    sheet: Sheet,
}

impl Output {
    /// Opens the output behind what is known to be whole; the rest of it is cut away.
    pub fn open(
        path: &Path,
        bytes: u64,
        input: &Path,
        rules: Rules,
        sheet: Sheet,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if file.metadata()?.len() < bytes {
            return Err(io::Error::other("what was written to it before is gone"));
        }
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        let input = input.to_owned();
        Ok(Self {
            file,
            bytes,
            input,
            rules,
            sheet,
        })
    }

    /// Appends the lines between two places, and returns once they are on the disk. `outcomes` are those of the lines
    /// that could be given to somebody, or why none of them was done.
    pub fn append(
        &mut self,
        (begin, end): (Place, Place),
        outcomes: &Result<Done, String>,
    ) -> io::Result<Tally> {
        let mut reader = Reader::at(open_at(&self.input, begin.byte)?, begin.byte, begin.line);
        let mut out = BufWriter::new(&mut self.file);
        let (mut written, mut bytes, mut next) = (Tally::default(), 0, 0);
        while reader.offset < end.byte {
            let number = reader.lines;
            let Some(line) = self.rules.next(&mut reader)? else {
                break;
            };
            let answer = match (&line, outcomes) {
                (Err(flaw), _) => {
                    written.flawed += 1;
                    self.sheet.flawed(number, flaw)
                }
                (Ok(line), Err(why)) => {
                    written.failed += 1;
                    self.sheet.failed(number, line, why)
                }
                (Ok(line), Ok(outcomes)) => {
                    let outcome = outcomes.get(next);
                    next += 1;
                    written.tokens += outcome.map_or(0, tokens);
                    match outcome.is_some_and(is_done) {
                        true => written.done += 1,
                        false => written.failed += 1,
                    }
                    match outcome {
                        Some(outcome) => self.sheet.answer(number, line, outcome),
                        None => self
                            .sheet
                            .failed(number, line, "the aggregator left it out"),
                    }
                }
            };
            bytes += write(&mut out, &answer)?;
        }
        out.flush()?;
        drop(out);
        self.file.sync_data()?;
        self.bytes += bytes;
        Ok(written)
    }
}

fn is_done(outcome: &LineOutcome) -> bool {
    match outcome {
        LineOutcome::Text(text) => text.error.is_none(),
        LineOutcome::Vectors { .. } => true,
        LineOutcome::Failed { .. } => false,
    }
}

const fn tokens(outcome: &LineOutcome) -> u64 {
    match outcome {
        LineOutcome::Text(text) => text.tokens.len() as u64,
        LineOutcome::Vectors { .. } | LineOutcome::Failed { .. } => 0,
    }
}

fn write(out: &mut impl Write, line: &Value) -> io::Result<u64> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    Ok(text.len() as u64)
}
