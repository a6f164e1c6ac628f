//! `config.json`, as far as any family of decoders needs it.

use serde::{Deserialize, Deserializer};

use super::Unfit;
use super::rope::{RopeFile, RopeParameters};
use crate::models::decoder::{Activation, Config, LayerKind, Rope};

/// Layers: the largest models have some hundred.
pub(super) const MAX_LAYERS: i64 = 4096;
/// Of models whose config names none.
pub(super) const DEFAULT_THETA: f64 = 10_000.0;

/// The fields' names and meanings are transformers'.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ConfigFile {
    pub(super) num_hidden_layers: Option<i64>,
    pub(super) hidden_size: Option<i64>,
    pub(super) intermediate_size: Option<i64>,
    pub(super) num_attention_heads: Option<i64>,
    pub(super) num_key_value_heads: Option<i64>,
    pub(super) head_dim: Option<i64>,
    pub(super) vocab_size: Option<i64>,
    pub(super) max_position_embeddings: Option<i64>,
    pub(super) original_max_position_embeddings: Option<i64>,
    pub(super) rms_norm_eps: Option<f64>,
    pub(super) tie_word_embeddings: Option<bool>,
    #[serde(default)]
    pub(super) attention_bias: bool,
    #[serde(default)]
    pub(super) mlp_bias: bool,
    pub(super) hidden_act: Option<String>,
    pub(super) hidden_activation: Option<String>,

    // Rotary positions: in `rope_parameters` since transformers 5.
    pub(super) rope_theta: Option<f64>,
    pub(super) rope_local_base_freq: Option<f64>,
    pub(super) rope_scaling: Option<RopeFile>,
    pub(super) rope_parameters: Option<RopeParameters>,
    pub(super) partial_rotary_factor: Option<f64>,

    // Which layers see a window only. That a window is absent means something
    // else than that it is null.
    #[serde(default, deserialize_with = "present")]
    pub(super) sliding_window: Option<Option<i64>>,
    #[serde(default)]
    pub(super) use_sliding_window: bool,
    pub(super) max_window_layers: Option<i64>,
    pub(super) layer_types: Option<Vec<String>>,
    pub(super) sliding_window_pattern: Option<i64>,

    pub(super) query_pre_attn_scalar: Option<f64>,
    pub(super) attn_logit_softcapping: Option<f64>,
    pub(super) final_logit_softcapping: Option<f64>,
    #[serde(default)]
    pub(super) use_bidirectional_attention: Option<bool>,

    pub(super) num_experts: Option<i64>,
    pub(super) num_local_experts: Option<i64>,
    pub(super) quantization_config: Option<QuantizationFile>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct QuantizationFile {
    quant_method: Option<String>,
}

/// A field that is there, be it null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// What a decoder cannot do without.
fn required<T>(field: &str, value: Option<T>) -> Result<T, Unfit> {
    value.ok_or_else(|| Unfit::Damaged(format!("it has no {field}")))
}

impl ConfigFile {
    /// A plain decoder of these sizes: no biases, one kind of layer that sees
    /// everything. Families change what is otherwise with them.
    pub(super) fn decoder(&self) -> Result<Config, Unfit> {
        self.refuse_the_unknown()?;
        let layers = required("num_hidden_layers", self.num_hidden_layers)?;
        let width = required("hidden_size", self.hidden_size)?;
        let heads = required("num_attention_heads", self.num_attention_heads)?;
        let head_width = self.head_dim.or(width.checked_div(heads)).unwrap_or(0);
        Ok(Config {
            width,
            feed_forward: required("intermediate_size", self.intermediate_size)?,
            heads,
            kv_heads: self.num_key_value_heads.unwrap_or(heads),
            head_width,
            vocabulary: required("vocab_size", self.vocab_size)?,
            context: self.context()?,
            norm_epsilon: required("rms_norm_eps", self.rms_norm_eps)?,
            layers: layers_of(layers)?,
            ropes: vec![self.rope()?],
            attention_scale: scale_of(head_width as f64),
            attention_bias: false,
            attention_output_bias: false,
            feed_forward_bias: false,
            query_key_norm: false,
            norms_behind: false,
            norm_offset: false,
            activation: self.activation()?,
            embedding_scale: None,
            tied: self.tie_word_embeddings.unwrap_or(false),
        })
    }

    fn refuse_the_unknown(&self) -> Result<(), Unfit> {
        if self.num_experts.max(self.num_local_experts).unwrap_or(0) > 1 {
            return Err(Unfit::Unsupported("a mixture of experts".into()));
        }
        if let Some(file) = &self.quantization_config {
            let method = file.quant_method.as_deref().unwrap_or("unknown");
            return Err(Unfit::Unsupported(format!(
                "a folder of weights quantised by {method} (take a GGUF, or the model in bf16)"
            )));
        }
        if self.partial_rotary_factor.is_some_and(|part| part != 1.0) {
            return Err(Unfit::Unsupported(
                "rotary positions on a part of each head".into(),
            ));
        }
        Ok(())
    }

    /// Tokens that the model can hold.
    pub(super) fn context(&self) -> Result<i64, Unfit> {
        required("max_position_embeddings", self.max_position_embeddings)
    }

    fn activation(&self) -> Result<Activation, Unfit> {
        let name = self.hidden_activation.as_deref();
        match name.or(self.hidden_act.as_deref()) {
            None | Some("silu" | "swish") => Ok(Activation::Silu),
            Some("gelu_pytorch_tanh") => Ok(Activation::GeluTanh),
            Some(other) => Err(Unfit::Unsupported(format!(
                "the activation {other} (there are silu and gelu_pytorch_tanh)"
            ))),
        }
    }

    /// The rotary positions of all layers.
    fn rope(&self) -> Result<Rope, Unfit> {
        let rope = match (&self.rope_parameters, &self.rope_scaling) {
            (Some(rope), _) if rope.full_attention.is_some() => {
                let what = "rotary positions of its own for each type of layer";
                return Err(Unfit::Unsupported(what.into()));
            }
            (Some(rope), _) => &rope.all,
            (None, Some(rope)) => rope,
            (None, None) => &RopeFile::default(),
        };
        rope.rope(self, self.rope_theta)
    }

    /// For each layer whether it sees a window only, where the file says so.
    pub(super) fn sliding_layers(&self, layers: usize) -> Result<Option<Vec<bool>>, Unfit> {
        let Some(types) = &self.layer_types else {
            return Ok(None);
        };
        if types.len() != layers {
            let reason = format!("it has {layers} layers, and {} layer_types", types.len());
            return Err(Unfit::Damaged(reason));
        }
        let sliding = types.iter().map(|name| match name.as_str() {
            "full_attention" => Ok(false),
            "sliding_attention" => Ok(true),
            other => Err(Unfit::Unsupported(format!("a layer of type {other}"))),
        });
        sliding.collect::<Result<_, _>>().map(Some)
    }
}

/// So many layers, which see everything.
pub(super) fn layers_of(count: i64) -> Result<Vec<LayerKind>, Unfit> {
    match count {
        1..=MAX_LAYERS => Ok(vec![LayerKind::default(); count as usize]),
        _ => Err(Unfit::Damaged(format!("its layers cannot be {count}"))),
    }
}

/// What scores are multiplied by so that they keep their size.
pub(super) fn scale_of(width: f64) -> f64 {
    width.sqrt().recip()
}
