//! What a model says of every token of a text that is there already.

use tch::{Kind, TchError};

use super::{Batch, Decoder, Prediction, Row, Store, predictions};

/// Tokens whose logits are held at a time: with the largest vocabularies, 32 MiB.
const TOKENS: usize = 32;

impl Decoder {
    /// Computes a row's tokens as [`Decoder::forward`] does, and what it says after each
    /// of them from number `first` of the row on: `see` is given that in pieces, in
    /// order.
    ///
    /// # Errors
    /// As [`Decoder::forward`], and what `see` says.
    pub(crate) fn inspect<E: From<TchError>>(
        &self,
        row: Row<'_>,
        first: usize,
        store: &mut Store,
        see: &mut dyn FnMut(Vec<Prediction>) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = [row];
        let batch = Batch::new(self, &rows)?;
        let hidden = self.hidden(&batch, store)?;
        let mut at = first;
        while at < row.tokens.len() {
            let count = TOKENS.min(row.tokens.len() - at);
            let states = self
                .norm
                .forward(&hidden.f_narrow(0, at as i64, count as i64)?)?;
            let logits = self.head.forward(&states)?.f_to_kind(Kind::Float)?;
            see(predictions(&logits, &states, |_| row.proves)?)?;
            at += count;
        }
        Ok(())
    }
}
