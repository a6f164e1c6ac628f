//! Puts a model's weights where it is computed.

use tch::{TchError, Tensor};

use crate::error::{LoadError, first_line};
use crate::formats::Weights;
use crate::models::Placement;

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
pub(crate) fn on_device(error: TchError) -> LoadError {
    LoadError::Device(first_line(&error.to_string()))
}
