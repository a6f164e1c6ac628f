//! Why something cannot be done now, through no fault of a buyer's.

use crate::{store, treasury};

/// Why something cannot be done now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The store, or a file, refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The books, or the wallet, refuse.
    #[error(transparent)]
    Money(#[from] treasury::Error),
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}
