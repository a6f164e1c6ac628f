//! Why the store cannot do what it was asked for.

use std::io;
use std::sync::Arc;

use crate::lock;

/// Why the store cannot do what it was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The folder cannot be had.
    #[error(transparent)]
    Folder(Arc<lock::Error>),
    /// The log cannot be read or written.
    #[error("{0}")]
    Io(Arc<io::Error>),
    /// The index cannot be read or written.
    #[error("its index: {0}")]
    Index(Arc<heed::Error>),
    /// The index holds something that is none of what belongs there.
    #[error("its index is damaged")]
    Damaged,
    /// The store of an older version cannot be taken over.
    #[error(
        "the older store in it cannot be read: {0}. Move its data.mdb away to begin without it"
    )]
    Import(String),
    /// More is asked for than was allowed.
    #[error("more events than were asked for")]
    TooMany,
    /// A search (NIP-50) was asked for.
    #[error("this store does not search")]
    Search,
    /// More comes in than the disk takes.
    #[error("too much at once: try again")]
    Busy,
    /// The store has ended.
    #[error("the store is closed")]
    Closed,
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<heed::Error> for Error {
    fn from(error: heed::Error) -> Self {
        Self::Index(Arc::new(error))
    }
}
