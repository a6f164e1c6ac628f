//! Products with a model's matrices.

use tch::{TchError, Tensor};

use crate::error::LoadError;
use crate::loader::{Loader, on_device};

/// A matrix, and what is added after multiplying by it.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Option<Tensor>,
}

impl Linear {
    /// Loads `{name}.weight` `[out, in]` and, with `bias`, `{name}.bias` `[out]`.
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        [outputs, inputs]: [i64; 2],
        bias: bool,
    ) -> Result<Self, LoadError> {
        let weight = loader.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => Some(loader.tensor(&format!("{name}.bias"), &[outputs])?),
            false => None,
        };
        Ok(Self { weight, bias })
    }

    /// Loads several matrices of the same input as one, their outputs one after
    /// the other: one large product is faster than several small ones.
    pub(crate) fn load_stacked(
        loader: &mut Loader<'_>,
        parts: &[(String, i64)],
        inputs: i64,
        bias: bool,
    ) -> Result<Self, LoadError> {
        let mut weights = Vec::with_capacity(parts.len());
        let mut biases = Vec::new();
        for (name, outputs) in parts {
            let part = Self::load(loader, name, [*outputs, inputs], bias)?;
            weights.push(part.weight);
            biases.extend(part.bias);
        }
        let stack = |tensors: &[Tensor]| Tensor::f_cat(tensors, 0).map_err(on_device);
        Ok(Self {
            weight: stack(&weights)?,
            bias: match bias {
                true => Some(stack(&biases)?),
                false => None,
            },
        })
    }

    /// `[.., in]` to `[.., out]`.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_linear(&self.weight, self.bias.as_ref())
    }
}
