//! The gated feed-forward (<https://arxiv.org/abs/2002.05202>).

use tch::{TchError, Tensor};

use super::{Activation, Config};
use crate::error::LoadError;
use crate::kernels;
use crate::linear::Linear;
use crate::loader::Loader;

#[derive(Debug)]
pub(super) struct FeedForward {
    gate_up: Linear,
    down: Linear,
    inner: i64,
    activation: Activation,
}

impl FeedForward {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        config: &Config,
        name: &str,
    ) -> Result<Self, LoadError> {
        let (width, inner) = (config.width, config.feed_forward);
        let bias = config.feed_forward_bias;
        let parts = ["gate_proj", "up_proj"].map(|part| (format!("{name}.{part}"), inner));
        let down = format!("{name}.down_proj");
        Ok(Self {
            gate_up: Linear::load_stacked(loader, &parts, width, bias)?,
            down: Linear::load(loader, &down, [width, inner], bias)?,
            inner,
            activation: config.activation,
        })
    }

    /// `[tokens, width]` to the same.
    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let both = self.gate_up.forward(input)?;
        if kernels::serve(&both) {
            return self.down.forward(&kernels::gate(&both, self.activation)?);
        }
        let gate = both.f_narrow(1, 0, self.inner)?;
        let gate = match self.activation {
            Activation::Silu => gate.f_silu()?,
            Activation::GeluTanh => gate.f_gelu("tanh")?,
        };
        let up = both.f_narrow(1, self.inner, self.inner)?;
        self.down.forward(&gate.f_mul(&up)?)
    }
}
