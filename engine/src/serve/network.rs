//! What a scheduler has compute.

use infernet_protocol::inference::TokenId;

use crate::error::Error;
use crate::models::decoder::{Decoder, Prediction, Row, Store};

/// A model with the cache of its keys and values.
pub(crate) trait Network: Send {
    /// Can this token be computed?
    fn has(&self, token: TokenId) -> bool;

    /// Computes the rows' tokens together and keeps their keys and values in the
    /// rows' blocks. Gives what it says after each row that draws, in their order.
    ///
    /// # Errors
    /// When it fails. What these rows' tokens have in the cache is then undefined,
    /// and all else as it was, so that they can be computed again.
    fn forward(&mut self, rows: &[Row<'_>]) -> Result<Vec<Prediction>, Error>;

    /// Computes a row's tokens alone and keeps them as [`Network::forward`] does. Gives
    /// the natural logarithm of how probable each of `next` is: `next[i]` after
    /// `row.tokens[i]` and all before it.
    ///
    /// # Errors
    /// As [`Network::forward`].
    fn score(&mut self, row: Row<'_>, next: &[TokenId]) -> Result<Vec<f32>, Error>;

    /// Computes a row's tokens alone and keeps them as [`Network::forward`] does. Gives
    /// `see` what it says after each of them from number `first` of the row on, in
    /// pieces that are bounded, in order.
    ///
    /// # Errors
    /// As [`Network::forward`], and what `see` says.
    fn inspect(
        &mut self,
        row: Row<'_>,
        first: usize,
        see: &mut dyn FnMut(Vec<Prediction>) -> Result<(), Error>,
    ) -> Result<(), Error>;
}

/// A model on libtorch.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) decoder: Box<Decoder>,
    pub(crate) store: Store,
}

impl Network for Loaded {
    fn has(&self, token: TokenId) -> bool {
        self.decoder.has(token)
    }

    fn forward(&mut self, rows: &[Row<'_>]) -> Result<Vec<Prediction>, Error> {
        Ok(self.decoder.forward(rows, &mut self.store)?)
    }

    fn score(&mut self, row: Row<'_>, next: &[TokenId]) -> Result<Vec<f32>, Error> {
        Ok(self.decoder.score(row, next, &mut self.store)?)
    }

    fn inspect(
        &mut self,
        row: Row<'_>,
        first: usize,
        see: &mut dyn FnMut(Vec<Prediction>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.decoder.inspect(row, first, &mut self.store, see)
    }
}
