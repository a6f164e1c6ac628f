//! A GGUF's metadata, as far as any family of decoders needs it.

use super::Unfit;
use super::config_file::{DEFAULT_THETA, layers_of, scale_of};
use super::rope::unknown;
use crate::formats::Weights;
use crate::formats::gguf::Gguf;
use crate::formats::gguf::layout::DECODER;
use crate::models::decoder::{Activation, Config, Rope, RopeScaling, Yarn};

/// What a file says of its model, under its architecture's own keys.
pub(crate) struct Metadata<'a> {
    gguf: &'a Gguf,
}

impl<'a> Metadata<'a> {
    pub(crate) fn new(gguf: &'a Gguf) -> Self {
        Self { gguf }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.gguf.architecture())
    }

    /// A size that may be missing, but not be anything else.
    pub(super) fn size(&self, key: &str) -> Result<Option<i64>, Unfit> {
        let key = self.key(key);
        if self.gguf.get(&key).is_none() {
            return Ok(None);
        }
        let number = self.gguf.unsigned(&key).and_then(|n| i64::try_from(n).ok());
        let wrong = || Unfit::Damaged(format!("its {key} is no number that can be"));
        number.ok_or_else(wrong).map(Some)
    }

    /// A size that the model cannot do without.
    fn required(&self, key: &str) -> Result<i64, Unfit> {
        let missing = || Unfit::Damaged(format!("it has no number {}", self.key(key)));
        self.size(key)?.ok_or_else(missing)
    }

    pub(super) fn float(&self, key: &str) -> Option<f64> {
        self.gguf.float(&self.key(key))
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.gguf.text(&self.key(key))
    }

    /// A plain decoder of these sizes: one kind of layer that sees everything;
    /// biases where there are tensors of them.
    pub(super) fn decoder(&self) -> Result<Config, Unfit> {
        let (width, heads) = (
            self.required("embedding_length")?,
            self.required("attention.head_count")?,
        );
        let head_width = self
            .size("attention.key_length")?
            .or(width.checked_div(heads))
            .unwrap_or(0);
        self.refuse_the_unknown(head_width)?;
        let tokens = self.gguf.texts("tokenizer.ggml.tokens");
        let tokens = tokens.map_or(0, |tokens| tokens.len() as i64);
        let epsilon = self.float("attention.layer_norm_rms_epsilon");
        let has = |tensor: &str| self.gguf.has_tensor(tensor);
        Ok(Config {
            width,
            feed_forward: self.required("feed_forward_length")?,
            heads,
            kv_heads: self.size("attention.head_count_kv")?.unwrap_or(heads),
            head_width,
            vocabulary: self.size("vocab_size")?.unwrap_or(tokens),
            context: self.required("context_length")?,
            norm_epsilon: epsilon.ok_or_else(|| Unfit::Damaged("it has no norm epsilon".into()))?,
            layers: layers_of(self.required("block_count")?)?,
            ropes: vec![self.rope(head_width)?],
            attention_scale: scale_of(head_width as f64),
            attention_bias: has("blk.0.attn_q.bias"),
            attention_output_bias: has("blk.0.attn_output.bias"),
            feed_forward_bias: has("blk.0.ffn_gate.bias"),
            query_key_norm: false,
            norms_behind: false,
            norm_offset: false,
            activation: Activation::Silu,
            embedding_scale: None,
            tied: !has("output.weight"),
        })
    }

    fn refuse_the_unknown(&self, head_width: i64) -> Result<(), Unfit> {
        let what = if self.size("expert_count")?.unwrap_or(0) > 0 {
            "a mixture of experts"
        } else if self.other("attention.value_length", head_width)? {
            "values of another width than keys"
        } else if self.other("rope.dimension_count", head_width)? {
            "rotary positions on a part of each head"
        } else {
            return Ok(());
        };
        Err(Unfit::Unsupported(what.into()))
    }

    fn other(&self, key: &str, expected: i64) -> Result<bool, Unfit> {
        Ok(self.size(key)?.is_some_and(|size| size != expected))
    }

    fn rope(&self, head_width: i64) -> Result<Rope, Unfit> {
        let theta = self.float("rope.freq_base").unwrap_or(DEFAULT_THETA);
        let scaling = self.rope_scaling()?;
        if !self.gguf.has_tensor("rope_freqs.weight") {
            return Ok(Rope { theta, scaling });
        }
        if scaling != RopeScaling::None {
            let what = "rope scaling with factors for each frequency besides";
            return Err(Unfit::Unsupported(what.into()));
        }
        Ok(Rope {
            theta,
            scaling: RopeScaling::Factors(self.rope_factors(head_width)?),
        })
    }

    fn rope_scaling(&self) -> Result<RopeScaling, Unfit> {
        let missing = || Unfit::Damaged(format!("it has no {}", self.key("rope.scaling.factor")));
        let factor = || self.float("rope.scaling.factor").ok_or_else(missing);
        match self.text("rope.scaling.type") {
            None | Some("none") => Ok(RopeScaling::None),
            Some("linear") => Ok(RopeScaling::Linear(factor()?)),
            Some("yarn") => Ok(RopeScaling::Yarn(self.yarn(factor()?)?)),
            Some(other) => Err(unknown(other)),
        }
    }

    fn yarn(&self, factor: f64) -> Result<Yarn, Unfit> {
        let original = self.size("rope.scaling.original_context_length")?;
        let original = original.map_or_else(|| self.required("context_length"), Ok)?;
        let yarn = Yarn::new(factor, original as f64);
        let own = |key: &str| self.float(&format!("rope.scaling.{key}"));
        Ok(Yarn {
            most_turns: own("yarn_beta_fast").unwrap_or(yarn.most_turns),
            least_turns: own("yarn_beta_slow").unwrap_or(yarn.least_turns),
            amplitude: yarn.amplitude * own("yarn_attn_factor").unwrap_or(1.0),
            ..yarn
        })
    }

    /// What each frequency is divided by.
    fn rope_factors(&self, head_width: i64) -> Result<Vec<f32>, Unfit> {
        let damaged = |reason: String| Unfit::Damaged(format!("rope_freqs.weight: {reason}"));
        let tensors = self.gguf.laid_out(&DECODER);
        let factors = tensors
            .tensor("rope_freqs.weight", &[head_width / 2])
            .map_err(|error| damaged(error.to_string()))?;
        let factors = factors.f_to_kind(tch::Kind::Float);
        factors
            .and_then(|factors| Vec::try_from(&factors))
            .map_err(|error| damaged(crate::error::first_line(&error.to_string())))
    }
}
