//! Llama: the decoder as it is.

use super::decoder::{self, Activation, LayerKind, Rope, RopeScaling};

/// A Llama's shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) layers: i64,
    pub(crate) width: i64,
    pub(crate) feed_forward: i64,
    pub(crate) heads: i64,
    pub(crate) kv_heads: i64,
    pub(crate) head_width: i64,
    pub(crate) vocabulary: i64,
    pub(crate) context: i64,
    pub(crate) rope_theta: f64,
    pub(crate) norm_epsilon: f64,
    pub(crate) attention_bias: bool,
    pub(crate) feed_forward_bias: bool,
    /// The embedding's matrix is used once more at the end.
    pub(crate) tied: bool,
}

impl From<Config> for decoder::Config {
    fn from(llama: Config) -> Self {
        let layers = usize::try_from(llama.layers).unwrap_or(0).min(1 << 16);
        Self {
            width: llama.width,
            feed_forward: llama.feed_forward,
            heads: llama.heads,
            kv_heads: llama.kv_heads,
            head_width: llama.head_width,
            vocabulary: llama.vocabulary,
            context: llama.context,
            norm_epsilon: llama.norm_epsilon,
            layers: vec![LayerKind::default(); layers],
            ropes: vec![Rope {
                theta: llama.rope_theta,
                scaling: RopeScaling::None,
            }],
            attention_scale: 1.0 / (llama.head_width.max(1) as f64).sqrt(),
            attention_bias: llama.attention_bias,
            attention_output_bias: llama.attention_bias,
            feed_forward_bias: llama.feed_forward_bias,
            query_key_norm: false,
            norms_behind: false,
            norm_offset: false,
            activation: Activation::Silu,
            embedding_scale: None,
            tied: llama.tied,
        }
    }
}
