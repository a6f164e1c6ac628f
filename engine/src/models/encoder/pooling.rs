//! From the tokens' vectors to the text's.

use tch::{Kind, TchError, Tensor};

/// How the tokens' vectors become the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one, of the token `[CLS]` or `<s>`.
    First,
}

/// What follows the last layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) pooling: Pooling,
    /// Whether the vector's length becomes 1.
    pub(crate) normalize: bool,
}

impl Summary {
    /// The vectors `[texts, width]` of hidden states `[texts, tokens, width]` in
    /// f32, of which `mask` `[texts, tokens]` says where there are tokens.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let vectors = match self.pooling {
            Pooling::Mean => mean(hidden, mask)?,
            Pooling::First => hidden.f_select(1, 0)?,
        };
        if !self.normalize {
            return Ok(vectors);
        }
        let lengths = vectors.f_norm_scalaropt_dim(2.0, [-1_i64].as_slice(), true)?;
        vectors.f_div(&lengths.f_clamp_min(1e-12)?)
    }
}

fn mean(hidden: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
    let tokens = [1_i64];
    let Some(mask) = mask else {
        return hidden.f_mean_dim(tokens.as_slice(), false, Kind::Float);
    };
    let mask = mask.f_unsqueeze(-1)?.f_to_kind(Kind::Float)?;
    let sum = hidden
        .f_mul(&mask)?
        .f_sum_dim_intlist(tokens.as_slice(), false, Kind::Float)?;
    sum.f_div(&mask.f_sum_dim_intlist(tokens.as_slice(), false, Kind::Float)?)
}
