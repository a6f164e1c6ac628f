//! Reading a whole batch file once, before anything is asked of anybody: what it wants, how large it is, and which of
//! its lines cannot be done.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, BufReader};
use std::path::Path;

use infernet_protocol::batch::Size;
use infernet_protocol::inference::Task;
use infernet_protocol::payload::Work;
use infernet_protocol::seal::Digest;
use sha2::{Digest as _, Sha256};

use super::Error;
use super::line::{Flaw, Line, duplicate, not_text, too_long};
use super::reader::{Raw, Reader};
use crate::request::size_of;

/// Bytes that are read from the disk at a time.
pub(super) const BUFFER_BYTES: usize = 1 << 18;

/// What a batch file is about. Its size in memory does not grow with the file, but for 8 bytes (16 while it is read)
/// for each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Hash of the file.
    pub sha256: Digest,
    /// The kind of work; none if no line can be done.
    pub task: Option<Task>,
    /// The model that is asked for; empty if no line can be done.
    pub model: String,
    /// The size of what can be done.
    pub size: Size,
    /// Lines that cannot be done.
    pub flawed: u64,
    /// Lines whose id an earlier one has, in order.
    duplicates: Vec<u64>,
}

impl Scan {
    /// Reads a file. `model`, if there is one, stands for whatever model the lines name.
    ///
    /// # Errors
    /// [`Error::Input`] if it cannot be read; [`Error::Mixed`] if its lines want different tasks or models.
    pub fn of(path: &Path, model: Option<&str>) -> Result<Self, Error> {
        let failed = |source| Error::Input {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            let why = "it is read more than once, so it must be a file, not a folder or a pipe";
            return Err(failed(io::Error::other(why)));
        }
        let mut reading = Reading::new(model);
        let mut reader = Reader::new(BufReader::with_capacity(BUFFER_BYTES, file));
        let mut hash = Sha256::new();
        loop {
            let number = reader.lines;
            let raw = reader.next(|bytes| hash.update(bytes)).map_err(failed)?;
            let Some(raw) = raw else { break };
            reading.take(raw, number)?;
        }
        let mut scan = reading.scan;
        scan.sha256 = Digest::from_bytes(hash.finalize().into());
        Ok(scan)
    }

    /// The line with this number, as this scan judges it.
    pub(super) fn line(
        &self,
        raw: &Raw<'_>,
        number: u64,
        model: Option<&str>,
    ) -> Result<Line, Flaw> {
        let line = read(raw, model)?;
        match self.duplicates.binary_search(&number) {
            Ok(_) => Err(duplicate(&line.custom_id)),
            Err(_) => Ok(line),
        }
    }

    /// Lines of the file.
    pub const fn lines(&self) -> u64 {
        self.size.lines + self.flawed
    }
}

fn read(raw: &Raw<'_>, model: Option<&str>) -> Result<Line, Flaw> {
    match raw {
        Raw::TooLong => Err(too_long()),
        Raw::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes).map_err(|_| not_text())?;
            Line::read(text, model)
        }
    }
}

/// A scan that is going on.
struct Reading<'a> {
    scan: Scan,
    model: Option<&'a str>,
    /// Of each id 64 bits, under a key that nobody knows: two different ones of a million lines are taken for the same
    /// once in forty million files.
    seen: HashSet<u64>,
    hasher: RandomState,
    /// The first line that can be done.
    first: u64,
}

impl<'a> Reading<'a> {
    fn new(model: Option<&'a str>) -> Self {
        Self {
            scan: Scan {
                sha256: Digest::from_bytes([0; 32]),
                task: None,
                model: String::new(),
                size: Size::default(),
                flawed: 0,
                duplicates: Vec::new(),
            },
            model,
            seen: HashSet::new(),
            hasher: RandomState::new(),
            first: 0,
        }
    }

    fn take(&mut self, raw: Raw<'_>, number: u64) -> Result<(), Error> {
        let Ok(line) = read(&raw, self.model) else {
            self.scan.flawed += 1;
            return Ok(());
        };
        if !self.seen.insert(self.hasher.hash_one(&line.custom_id)) {
            self.scan.duplicates.push(number);
            self.scan.flawed += 1;
            return Ok(());
        }
        match self.scan.task {
            None => {
                self.scan.task = Some(line.task());
                self.scan.model.clone_from(&line.model);
                self.first = number;
            }
            Some(task) if task != line.task() || self.scan.model != line.model => {
                return Err(Error::Mixed {
                    first: (self.first + 1, named(task, &self.scan.model)),
                    other: (number + 1, named(line.task(), &line.model)),
                });
            }
            Some(_) => {}
        }
        add(&mut self.scan.size, &line.work);
        Ok(())
    }
}

fn named(task: Task, model: &str) -> String {
    format!("{task} with {model}")
}

/// Counts a line in.
pub(super) fn add(size: &mut Size, work: &Work) {
    let limits = size_of(work);
    let (input, output) = (
        u64::from(limits.input_tokens),
        u64::from(limits.output_tokens),
    );
    size.lines += 1;
    size.input_tokens = size.input_tokens.saturating_add(input);
    size.output_tokens = size.output_tokens.saturating_add(output);
    size.longest = size.longest.max(input + output);
}

/// Opens a file at a place in it.
pub(super) fn open_at(path: &Path, byte: u64) -> io::Result<BufReader<File>> {
    use std::io::{Seek, SeekFrom};
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(byte))?;
    Ok(BufReader::with_capacity(BUFFER_BYTES, file))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn embed(id: &str, model: &str) -> String {
        format!(
            r#"{{"custom_id":"{id}","url":"/v1/embeddings","body":{{"model":"{model}","input":"abc"}}}}"#
        )
    }

    fn scan(lines: &[String]) -> Result<Scan, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.jsonl");
        std::fs::write(&path, lines.join("\n")).unwrap();
        Scan::of(&path, None)
    }

    #[test]
    fn what_can_be_done_is_counted_and_the_rest_too() {
        let lines = [
            embed("a", "m"),
            "{".into(),
            embed("a", "m"),
            embed("b", "m"),
        ];
        let scan = scan(&lines).unwrap();
        assert_eq!((scan.size.lines, scan.flawed, scan.lines()), (2, 2, 4));
        assert_eq!((scan.size.input_tokens, scan.size.longest), (6, 3));
        assert_eq!(
            (scan.task, scan.model.as_str()),
            (Some(Task::Embedding), "m")
        );
        assert_eq!(scan.duplicates, [2]);
        let again = scan.line(&Raw::Bytes(lines[2].as_bytes()), 2, None);
        assert_eq!(again.err().unwrap().code, "duplicate_custom_id");
        assert!(scan.line(&Raw::Bytes(lines[0].as_bytes()), 0, None).is_ok());
    }

    #[test]
    fn lines_that_want_different_models_are_not_one_batch() {
        let error = scan(&[embed("a", "m"), embed("b", "n")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("line 1") && error.contains("embedding with n"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_read_again_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Scan::of(folder.path(), None).unwrap_err().to_string();
        assert!(error.contains("must be a file"), "{error}");
    }

    #[test]
    fn a_file_of_rubbish_is_a_batch_of_nothing() {
        let scan = scan(&["{".into(), "}".into()]).unwrap();
        assert_eq!((scan.task, scan.size.lines, scan.flawed), (None, 0, 2));
    }
}
