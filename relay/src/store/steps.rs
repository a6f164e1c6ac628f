//! Operations that go into the index at start, when nothing else uses it.

use super::Error;
use super::frame::Entry;
use super::index::Index;
use super::pending::Pending;
use super::verdict::Known;

/// Operations of one transaction, and their bytes in memory.
const MOST: (usize, usize) = (4_096, 64 << 20);

/// Operations on their way into the index, some at a time.
pub struct Steps<'a> {
    index: &'a Index,
    entries: Vec<Entry>,
    staged: Pending,
    applied: usize,
}

impl<'a> Steps<'a> {
    /// None yet.
    pub fn new(index: &'a Index) -> Self {
        Self {
            index,
            entries: Vec::new(),
            staged: Pending::default(),
            applied: 0,
        }
    }

    /// Looks at what the index has, or gets.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn known<T>(&self, look: impl FnOnce(&Known<'_>) -> Result<T, Error>) -> Result<T, Error> {
        look(&Known {
            view: &self.index.view()?,
            pending: [&Pending::default(), &self.staged],
        })
    }

    /// Takes in one more.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn put(&mut self, entry: Entry) -> Result<(), Error> {
        self.staged.push(entry.clone());
        self.entries.push(entry);
        match self.entries.len() >= MOST.0 || self.staged.bytes() >= MOST.1 {
            true => self.apply(),
            false => Ok(()),
        }
    }

    /// Puts what is left into the index.
    ///
    /// # Errors
    /// When the index cannot be written.
    pub fn apply(&mut self) -> Result<(), Error> {
        self.index.apply(&self.entries)?;
        self.applied += self.entries.len();
        self.entries.clear();
        self.staged = Pending::default();
        Ok(())
    }

    /// How many the index has by now.
    pub fn applied(&self) -> usize {
        self.applied
    }
}
