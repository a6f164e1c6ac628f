//! The families of models, one file each.

pub(crate) mod bert;
pub(crate) mod llama;

use tch::{Device, Kind, TchError, Tensor};

use crate::error::{LoadError, first_line};
use crate::formats::Weights;

/// Where and in what number format a model is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    pub(crate) kind: Kind,
}

/// Far above any model's, and small enough that no product of two overflows.
const MAX_SIZE: i64 = 1 << 24;

/// Refuses sizes that no model has.
fn validate_sizes(sizes: &[(&str, i64)]) -> Result<(), String> {
    match sizes
        .iter()
        .find(|(_, size)| !(1..=MAX_SIZE).contains(size))
    {
        Some((name, size)) => Err(format!("its {name} cannot be {size}")),
        None => Ok(()),
    }
}

/// Puts the weights of one model in their place and counts them.
pub(crate) struct Loader<'a> {
    weights: &'a dyn Weights,
    placement: Placement,
    parameters: u64,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a dyn Weights, placement: Placement) -> Self {
        Self {
            weights,
            placement,
            parameters: 0,
        }
    }

    /// How many weights were loaded.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters
    }

    /// The tensor of this name and shape, in the model's number format. In the
    /// processor's memory and already in that format, it stays in its file.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        let tensor = self.weights.tensor(name, shape)?;
        self.parameters += tensor.numel() as u64;
        tensor
            .f_to_kind(self.placement.kind)
            .and_then(|tensor| tensor.f_to_device(self.placement.device))
            .map_err(on_device)
    }
}

/// What the device refuses while a model is put on it.
fn on_device(error: TchError) -> LoadError {
    LoadError::Device(first_line(&error.to_string()))
}

/// A matrix, and what is added after multiplying by it.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
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
