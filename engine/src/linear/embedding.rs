//! What tokens are looked up in, which many models use once more at the end.

use tch::{TchError, Tensor};

use super::int8::Int8;
use super::{Linear, Matrix, Packing};
use crate::error::LoadError;
use crate::loader::Loader;

/// A row for each token of the vocabulary.
#[derive(Debug)]
pub(crate) struct Embedding(Table);

#[derive(Debug)]
enum Table {
    /// `[vocabulary, width]`.
    Dense(Tensor),
    Int8(Int8),
}

impl Embedding {
    /// Loads `{name}.weight` `[vocabulary, width]`; where weights are packed, in
    /// eight bits.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        shape: [i64; 2],
    ) -> Result<Self, LoadError> {
        let name = format!("{name}.weight");
        let packed = loader.packing() != Packing::None && Int8::fits(shape);
        Ok(Self(match packed {
            true => Table::Int8(Int8::load(loader, &[(name, shape)])?),
            false => Table::Dense(loader.tensor(&name, &shape)?),
        }))
    }

    /// The rows of tokens (int64 `[tokens]`), `[tokens, width]`, in the number
    /// format of activations.
    ///
    /// # Errors
    /// When one is beyond the vocabulary.
    pub(crate) fn look_up(&self, tokens: &Tensor) -> Result<Tensor, TchError> {
        match &self.0 {
            Table::Dense(rows) => Tensor::f_embedding(rows, tokens, -1, false, false),
            Table::Int8(rows) => rows.rows(tokens),
        }
    }

    /// The same matrix as what gives logits, in the same memory.
    pub(crate) fn head(&self) -> Linear {
        Linear {
            matrix: match &self.0 {
                Table::Dense(rows) => Matrix::Dense(rows.shallow_clone()),
                Table::Int8(rows) => Matrix::Int8(rows.shallow_clone()),
            },
            bias: None,
        }
    }
}
