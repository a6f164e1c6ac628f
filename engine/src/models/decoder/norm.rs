//! RMS norms (<https://arxiv.org/abs/1910.07467>).

use tch::{Kind, TchError, Tensor};

use super::Config;
use crate::error::LoadError;
use crate::loader::{Loader, on_device};

#[derive(Debug)]
pub(super) struct RmsNorm {
    /// `[width]`, the family's offset added.
    weight: Tensor,
    epsilon: f64,
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
        if config.norm_offset {
            // In f32: one more than a small weight loses it in bf16.
            let offset = weight
                .f_to_kind(Kind::Float)
                .and_then(|w| w.f_add_scalar(1));
            weight = offset.map_err(on_device)?;
        }
        Ok(Self {
            weight,
            epsilon: config.norm_epsilon,
        })
    }

    /// `[.., width]` to the same; in f32 inside, whatever the number format.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let kind = input.kind();
        if self.weight.kind() == kind {
            return input.f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon);
        }
        let input = input.f_to_kind(self.weight.kind())?;
        input
            .f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)?
            .f_to_kind(kind)
    }
}
