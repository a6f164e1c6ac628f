//! The log that is written first: what is in it when [`Log::sync`] answers is on the disk.
//!
//! It is a folder of segments, each named by the number of its first frame. A segment is only ever written by the
//! process that made it: the next one begins another, so that nothing ever stands behind a torn end. Segments go
//! once the index has all of theirs.
//!
//! **Invariant:** a number is written once, also when writing it failed: what a failed batch left behind in a
//! segment can never be taken for a later one.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::{self, Contents, Entry, Operation};
use super::key::Number;

/// A segment that is as long is followed by another.
const SEGMENT: u64 = 32 << 20;

/// How a segment's file name ends.
const SUFFIX: &str = "log";

/// How the name of a damaged segment ends, which is kept for the operator to look at.
const DAMAGED: &str = "damaged";

/// The log, open for writing.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    /// The segment that is written, and how far it is good.
    open: Option<(File, u64)>,
    /// Every segment there is, with the number of its first frame.
    segments: VecDeque<(Number, PathBuf)>,
    next: Number,
    buffer: Vec<u8>,
}

impl Log {
    /// A log in `folder`, which is there and whose segments were all read and removed; the first frame gets the
    /// number `next`.
    pub fn new(folder: PathBuf, next: Number) -> Self {
        Self {
            folder,
            open: None,
            segments: VecDeque::new(),
            next,
            buffer: Vec::new(),
        }
    }

    /// Puts an operation down, to be written by the next [`Log::sync`].
    pub fn append(&mut self, operation: Operation) -> Entry {
        let number = self.next;
        self.next += 1;
        let entry = Entry { number, operation };
        frame::write(&entry, &mut self.buffer);
        entry
    }

    /// Writes what waits, and answers when it is on the disk.
    ///
    /// # Errors
    /// When the disk is full or fails. What waited is forgotten then, and the next call begins anew.
    pub fn sync(&mut self) -> io::Result<()> {
        let written = self.write();
        if written.is_err() {
            self.abandon();
        }
        self.buffer.clear();
        written
    }

    fn write(&mut self) -> io::Result<()> {
        if self
            .open
            .as_ref()
            .is_none_or(|(_, length)| *length >= SEGMENT)
        {
            self.begin()?;
        }
        if let Some((file, length)) = &mut self.open {
            file.write_all_at(&self.buffer, *length)?;
            file.sync_data()?;
            *length += self.buffer.len() as u64;
        }
        Ok(())
    }

    /// Begins a segment, whose first frame is the first that waits.
    fn begin(&mut self) -> io::Result<()> {
        let first = self.first_waiting();
        let path = self.folder.join(format!("{first:020}.{SUFFIX}"));
        // As the index is: not everybody may read everything.
        let mut options = File::options();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        self.segments.push_back((first, path));
        self.open = Some((file, 0));
        sync_folder(&self.folder)
    }

    /// The number of the first frame that waits.
    fn first_waiting(&self) -> Number {
        let number = self
            .buffer
            .get(12..20)
            .and_then(|number| number.first_chunk());
        number.map_or(self.next, |number| Number::from_be_bytes(*number))
    }

    /// Leaves a segment that cannot be written for another. Where its good part ends is no longer known for sure once
    /// a sync failed, so nothing more is written to it.
    fn abandon(&mut self) {
        // Either gives the room back, as far as the disk does as it is told.
        match self.open.take() {
            // Else there would be one more with every try on a full disk.
            Some((_, 0)) => {
                if let Some((_, path)) = self.segments.pop_back() {
                    let _ = fs::remove_file(path);
                }
            }
            Some((file, length)) => _ = file.set_len(length),
            None => {}
        }
    }

    /// Drops the segments of which the index has every frame up to `applied`.
    ///
    /// # Errors
    /// When a file cannot be removed. It is tried again with the next call.
    pub fn retire(&mut self, applied: Number) -> io::Result<()> {
        while let [(_, path), (next, _), ..] = self.segments.make_contiguous() {
            if *next > applied + 1 {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => _ = self.segments.pop_front(),
            }
        }
        Ok(())
    }
}

/// Puts on the disk which files there are in a folder.
///
/// # Errors
/// When the disk fails.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The segments in `folder`, oldest first.
///
/// # Errors
/// When the folder cannot be read.
pub fn segments(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == SUFFIX) {
            segments.push(path);
        }
    }
    // Their names are numbers of the same length.
    segments.sort();
    Ok(segments)
}

/// Reads a segment, and says what of it is damaged.
///
/// # Errors
/// When it cannot be read.
pub fn read(segment: &Path) -> io::Result<Contents> {
    let contents = frame::read(&fs::read(segment)?);
    let file = segment.display();
    for bytes in &contents.damaged {
        tracing::error!(%file, from = bytes.start, to = bytes.end, "the log is damaged here: events that were acknowledged may be lost; what follows is read, and the file is kept");
    }
    if contents.torn > 0 {
        tracing::warn!(%file, bytes = contents.torn, "the end of the log is incomplete, as after a crash: what was not acknowledged yet is dropped");
    }
    Ok(contents)
}

/// Removes a segment that the index has; one with damage inside is set aside under another name.
///
/// # Errors
/// When the disk does not allow it.
pub fn remove(segment: &Path, contents: &Contents) -> io::Result<()> {
    if contents.damaged.is_empty() {
        return fs::remove_file(segment);
    }
    fs::rename(segment, segment.with_extension(DAMAGED))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::EventId;

    use super::*;

    fn removal() -> Operation {
        Operation::Remove([EventId::all_zeros()].into())
    }

    /// The numbers in all segments, in order.
    fn numbers(folder: &Path) -> Vec<Number> {
        let segments = segments(folder).unwrap();
        let contents = segments.iter().flat_map(|path| read(path).unwrap().entries);
        contents.map(|entry| entry.number).collect()
    }

    #[test]
    fn what_was_synced_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path().to_owned(), 5);
        for _ in 0..2 {
            log.append(removal());
            log.append(removal());
            log.sync().unwrap();
        }
        log.append(removal());
        assert_eq!(numbers(folder.path()), [5, 6, 7, 8]);
    }

    #[test]
    fn a_failed_batch_is_forgotten_and_the_next_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path().to_owned(), 1);
        log.append(removal());
        log.sync().unwrap();
        // A segment that cannot be written, and a folder in which none can be made.
        let path = log.segments[0].1.clone();
        log.open = Some((File::open(path).unwrap(), 29));
        for room in [true, false] {
            if !room {
                log.folder = folder.path().join("none");
                log.open = None;
            }
            log.append(removal());
            log.sync().unwrap_err();
            assert!(log.buffer.is_empty());
        }
        log.folder = folder.path().to_owned();
        log.append(removal());
        log.sync().unwrap();
        assert_eq!(numbers(folder.path()), [1, 4]);
    }

    #[test]
    fn segments_go_once_the_index_has_all_of_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::new(folder.path().to_owned(), 1);
        for _ in 0..3 {
            log.append(removal());
            log.append(removal());
            log.sync().unwrap();
            log.open = None;
        }
        for (applied, left) in [
            (1, vec![1, 2, 3, 4, 5, 6]),
            (3, vec![3, 4, 5, 6]),
            (6, vec![5, 6]),
        ] {
            log.retire(applied).unwrap();
            assert_eq!(numbers(folder.path()), left);
        }
    }
}
