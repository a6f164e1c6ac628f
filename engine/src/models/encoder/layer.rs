//! One layer of an encoder.

use tch::{TchError, Tensor};

use super::Config;
use crate::error::LoadError;
use crate::linear::Linear;
use crate::loader::Loader;

#[derive(Debug)]
pub(super) struct Layer {
    /// Queries, keys and values, one after the other.
    inputs: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
    heads: i64,
}

impl Layer {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        config: &Config,
    ) -> Result<Self, LoadError> {
        let (width, inner) = (config.width, config.feed_forward);
        let parts =
            ["query", "key", "value"].map(|part| (format!("{name}.attention.self.{part}"), width));
        let inputs = Linear::load_stacked(loader, &parts, width, true)?;
        let mut linear =
            |part: &str, shape| Linear::load(loader, &format!("{name}.{part}"), shape, true);
        let output = linear("attention.output.dense", [width, width])?;
        let up = linear("intermediate.dense", [inner, width])?;
        let down = linear("output.dense", [width, inner])?;
        let attention_norm = format!("{name}.attention.output.LayerNorm");
        Ok(Self {
            inputs,
            output,
            attention_norm: LayerNorm::load(loader, &attention_norm, config)?,
            up,
            down,
            norm: LayerNorm::load(loader, &format!("{name}.output.LayerNorm"), config)?,
            heads: config.heads,
        })
    }

    /// Hidden states `[texts, tokens, width]` through the layer; `mask` is
    /// `[texts, tokens]`.
    pub(super) fn forward(
        &self,
        hidden: &Tensor,
        mask: Option<&Tensor>,
    ) -> Result<Tensor, TchError> {
        let attended = self.output.forward(&self.attend(hidden, mask)?)?;
        let hidden = self.attention_norm.forward(&hidden.f_add(&attended)?)?;
        let inner = self.up.forward(&hidden)?.f_gelu("none")?;
        self.norm
            .forward(&hidden.f_add(&self.down.forward(&inner)?)?)
    }

    fn attend(&self, hidden: &Tensor, mask: Option<&Tensor>) -> Result<Tensor, TchError> {
        let (texts, tokens, width) = hidden.size3()?;
        let inputs = self.inputs.forward(hidden)?;
        // [texts, tokens, 3 * width] to three of [texts, heads, tokens, head width]
        let inputs = inputs
            .f_view([texts, tokens, 3, self.heads, width / self.heads])?
            .f_permute([2, 0, 3, 1, 4])?;
        // The same for every head and every token that asks.
        let mask = mask
            .map(|mask| mask.f_view([texts, 1, 1, tokens]))
            .transpose()?;
        let attended = Tensor::f_scaled_dot_product_attention(
            &inputs.f_get(0)?,
            &inputs.f_get(1)?,
            &inputs.f_get(2)?,
            mask,
            0.0,
            false,
            None,
            false,
        )?;
        attended
            .f_transpose(1, 2)?
            .f_reshape([texts, tokens, width])
    }
}

#[derive(Debug)]
pub(super) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        name: &str,
        config: &Config,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            weight: loader.tensor(&format!("{name}.weight"), &[config.width])?,
            bias: loader.tensor(&format!("{name}.bias"), &[config.width])?,
            epsilon: config.norm_epsilon,
        })
    }

    pub(super) fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let width = self.weight.size();
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        input.f_layer_norm(width, weight, bias, self.epsilon, true)
    }
}
