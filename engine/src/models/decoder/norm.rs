//! RMS norms (<https://arxiv.org/abs/1910.07467>).

use tch::{Kind, TchError, Tensor};

use super::Config;
use crate::error::LoadError;
use crate::kernels;
use crate::loader::{Loader, on_device};

#[derive(Debug)]
pub(super) struct RmsNorm {
    /// `[width]`, the family's offset added.
    pub(super) weight: Tensor,
    pub(super) epsilon: f64,
}

impl RmsNorm {
    /// Loads `{name}.weight` `[width]`.
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        width: i64,
        config: &Config,
    ) -> Result<Self, LoadError> {
        let mut weight = loader.tensor(&format!("{name}.weight"), &[width])?;
        if config.norm_offset || loader.has_kernels() {
            // Our kernels take f32; and one more than a small weight loses it in
            // bf16.
            weight = weight.f_to_kind(Kind::Float).map_err(on_device)?;
        }
        if config.norm_offset {
            weight = weight.f_add_scalar(1).map_err(on_device)?;
        }
        Ok(Self {
            weight,
            epsilon: config.norm_epsilon,
        })
    }

    /// `[.., width]` to the same; in f32 inside, whatever the number format.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let kind = input.kind();
        if input.dim() == 2 && kernels::serve(input) {
            return kernels::rms_norm(input, &self.weight, self.epsilon);
        }
        if self.weight.kind() == kind {
            return input.f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon);
        }
        let input = input.f_to_kind(self.weight.kind())?;
        input
            .f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)?
            .f_to_kind(kind)
    }

    /// Adds `more` to `sum` `[tokens, width]`, and norms that.
    pub(super) fn forward_sum(&self, sum: &mut Tensor, more: &Tensor) -> Result<Tensor, TchError> {
        if kernels::serve(sum) {
            return kernels::add_and_norm(sum, more, &self.weight, self.epsilon);
        }
        *sum = sum.f_add(more)?;
        self.forward(sum)
    }
}
