//! How probable a model finds a text that is there already.

use infernet_protocol::inference::TokenId;
use tch::{Kind, TchError, Tensor};

use super::{Batch, Decoder, Row, Store};

/// Tokens whose logits are held at a time: with the largest vocabularies, 64 MiB.
const TOKENS: usize = 64;

impl Decoder {
    /// Computes a row's tokens as [`Decoder::forward`] does, and the logarithm of how
    /// probable each of `next` is: `next[i]` after `row.tokens[i]` and all before it.
    /// There are as many of one as of the other.
    ///
    /// # Errors
    /// As [`Decoder::forward`].
    pub(crate) fn score(
        &self,
        row: Row<'_>,
        next: &[TokenId],
        store: &mut Store,
    ) -> Result<Vec<f32>, TchError> {
        let rows = [row];
        let batch = Batch::new(self, &rows)?;
        let hidden = self.hidden(&batch, store)?;
        let mut scores = Vec::with_capacity(next.len());
        for (number, next) in next.chunks(TOKENS).enumerate() {
            let hidden = hidden.f_narrow(0, (number * TOKENS) as i64, next.len() as i64)?;
            let logits = self.head.forward(&self.norm.forward(&hidden)?)?;
            let logs = logits.f_log_softmax(-1, Kind::Float)?;
            let next: Vec<i64> = next.iter().map(|&token| i64::from(token)).collect();
            let next = Tensor::f_from_slice(&next)?.f_to_device(logs.device())?;
            let chosen = logs.f_gather(1, &next.f_unsqueeze(1)?, false)?;
            scores.extend(Vec::<f32>::try_from(chosen.f_squeeze_dim(1)?)?);
        }
        Ok(scores)
    }
}
