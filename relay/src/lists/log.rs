//! The changes on the disk: a line of JSON each, in the order in which they were made. What they come to is written
//! anew at each start, so that the file stays as long as the lists.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::state::{Change, State};

/// The file, in the relay's folder.
pub const NAME: &str = "lists.jsonl";

/// Bytes of the file: all lists full, with the longest reasons, three times over.
const MAX_BYTES: u64 = 1 << 30;

/// Why the lists cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A line is no change.
    #[error("{}:{line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// The file, open at its end.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    bytes: u64,
}

impl Log {
    /// Opens the file in `folder`, made if it is not there, and answers what the changes in it come to.
    ///
    /// # Errors
    /// When it cannot be read or written, or says something else.
    pub fn open(folder: &Path) -> Result<(Self, State), Error> {
        let state = read(folder)?;
        let path = folder.join(NAME);
        let failed = |source| Error::Io {
            path: path.clone(),
            source,
        };
        let (file, bytes) = rewrite(folder, &path, &state.changes()).map_err(failed)?;
        Ok((Self { path, file, bytes }, state))
    }

    /// Adds a change, which is on the disk when this answers.
    ///
    /// # Errors
    /// When the disk fails; the file is as it was then.
    pub fn append(&mut self, change: &Change) -> Result<(), Error> {
        let line = line(change).map_err(|source| self.failed(source))?;
        if self.bytes + line.len() as u64 > MAX_BYTES {
            let full = "this file is full of changes: restart the relay, which sums them up";
            return Err(self.failed(io::Error::other(full)));
        }
        if let Err(source) = self.write(&line) {
            // It was none.
            let _ = self.file.set_len(self.bytes);
            return Err(self.failed(source));
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        // Half a line that a failed change left would make this one unreadable, and with it the file.
        self.file.set_len(self.bytes)?;
        self.file.write_all(line)?;
        self.file.sync_data()
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::Io {
            path: self.path.clone(),
            source,
        }
    }
}

fn line(change: &Change) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(change)?;
    line.push(b'\n');
    Ok(line)
}

/// What the file in `folder` comes to; nothing, if there is none. A line without an end was broken off, and never
/// answered.
///
/// # Errors
/// When it cannot be read, or says something else.
pub fn read(folder: &Path) -> Result<State, Error> {
    let path = folder.join(NAME);
    let failed = |source| Error::Io {
        path: path.clone(),
        source,
    };
    let mut state = State::default();
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
        file => file.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.len() > MAX_BYTES {
        return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    let mut lines = BufReader::new(file.take(MAX_BYTES));
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        lines.read_until(b'\n', &mut text).map_err(failed)?;
        if !text.ends_with(b"\n") {
            break;
        }
        let change = serde_json::from_slice(&text);
        state.apply(change.map_err(|source| Error::Line {
            path: path.clone(),
            line,
            source,
        })?);
    }
    Ok(state)
}

/// Puts a new file in the old one's place, in one step, and answers it with its length.
fn rewrite(folder: &Path, path: &Path, changes: &[Change]) -> io::Result<(File, u64)> {
    let mut text = Vec::new();
    for change in changes {
        text.extend(line(change)?);
    }
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()?;
    let file = OpenOptions::new().append(true).open(path)?;
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_a_failed_change_left_does_not_spoil_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(folder.path()).unwrap();
        log.append(&Change::Name("one".to_owned())).unwrap();
        log.file.write_all(b"{\"name\":\"half").unwrap();
        log.append(&Change::Name("two".to_owned())).unwrap();
        let state = read(folder.path()).unwrap();
        assert_eq!(state.face.name.as_deref(), Some("two"));
    }
}
