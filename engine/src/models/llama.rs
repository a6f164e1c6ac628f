//! Llama-family text generation: rotary positions, grouped-query attention,
//! gated feed-forward, RMS norms.

mod attention;

use infernet_protocol::inference::TokenId;
use tch::{Device, Kind, TchError, Tensor};

use super::{Placement, validate_sizes};
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};
use crate::linear::Linear;
use crate::loader::{Loader, on_device};
use attention::{Attention, Rotary, Span};

pub(crate) use attention::Cache;

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

impl Config {
    /// Refuses shapes that fit no model, so that the code below may rely on
    /// them.
    pub(crate) fn validate(&self) -> Result<(), String> {
        validate_sizes(&[
            ("layers", self.layers),
            ("width", self.width),
            ("feed-forward width", self.feed_forward),
            ("heads", self.heads),
            ("key-value heads", self.kv_heads),
            ("head width", self.head_width),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ])?;
        if self.heads % self.kv_heads != 0 {
            return Err(format!(
                "its {} heads cannot share {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.head_width % 2 != 0 {
            return Err(format!("its head width {} is odd", self.head_width));
        }
        if !(self.rope_theta > 0.0 && self.norm_epsilon >= 0.0) {
            return Err("its rope theta or norm epsilon is no such number".into());
        }
        Ok(())
    }
}

/// A loaded Llama.
#[derive(Debug)]
pub(crate) struct Llama {
    config: Config,
    placement: Placement,
    embedding: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    rotary: Rotary,
    // Last, since tensors above may lie in the files.
    _files: Vec<MappedFile>,
}

impl Llama {
    /// Loads the weights; says how many there are.
    pub(crate) fn load(
        config: Config,
        weights: &dyn Weights,
        placement: Placement,
    ) -> Result<(Self, u64), LoadError> {
        let mut loader = Loader::new(weights, placement);
        let shape = [config.vocabulary, config.width];
        let embedding = loader.tensor("model.embed_tokens.weight", &shape)?;
        let layers = (0..config.layers)
            .map(|number| Layer::load(&mut loader, &config, number))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(&mut loader, "model.norm", &config)?;
        let head = match config.tied {
            true => Linear {
                weight: embedding.shallow_clone(),
                bias: None,
            },
            false => Linear::load(&mut loader, "lm_head", shape, false)?,
        };
        let rotary = Rotary::new(&config, placement.device).map_err(on_device)?;
        let parameters = loader.parameters();
        let llama = Self {
            config,
            placement,
            embedding,
            layers,
            norm,
            head,
            rotary,
            _files: weights.files(),
        };
        Ok((llama, parameters))
    }

    /// Can this token be computed?
    pub(crate) fn has(&self, token: TokenId) -> bool {
        i64::from(token) < self.config.vocabulary
    }

    /// An empty cache for one sequence.
    pub(crate) fn cache(&self) -> Cache {
        Cache {
            layers: Vec::new(),
            tokens: 0,
        }
    }

    /// Runs tokens that follow those in the cache, and adds them to it. Gives
    /// the logits of what follows the last of them: f32, one for each token of
    /// the vocabulary. The caller keeps within the context.
    pub(crate) fn forward(
        &self,
        tokens: &[TokenId],
        cache: &mut Cache,
    ) -> Result<Vec<f32>, TchError> {
        let hidden = self.hidden(tokens, cache)?;
        let last = hidden.f_narrow(0, tokens.len() as i64 - 1, 1)?;
        let logits = self.head.forward(&self.norm.forward(&last)?)?;
        let logits = logits.f_to_kind(Kind::Float)?.f_reshape([-1])?;
        // The one place where the device is waited for.
        let logits = logits.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0.0; logits.numel()];
        let length = values.len();
        logits.f_copy_data(&mut values, length)?;
        Ok(values)
    }

    /// Runs tokens for their place in the cache alone.
    pub(crate) fn prefill(&self, tokens: &[TokenId], cache: &mut Cache) -> Result<(), TchError> {
        self.hidden(tokens, cache).map(drop)
    }

    /// Hidden states `[tokens, width]` after the last layer.
    fn hidden(&self, tokens: &[TokenId], cache: &mut Cache) -> Result<Tensor, TchError> {
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(self.placement.device)?;
        let mut hidden = Tensor::f_embedding(&self.embedding, &ids, -1, false, false)?;
        cache.make_room(ids.size1()?, &self.config, self.placement)?;
        let span = Span::new(self, cache.tokens, ids.size1()?)?;
        for (layer, cache) in self.layers.iter().zip(&mut cache.layers) {
            hidden = layer.forward(hidden, &span, cache)?;
        }
        cache.tokens += span.tokens;
        Ok(hidden)
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

impl Layer {
    fn load(loader: &mut Loader<'_>, config: &Config, number: i64) -> Result<Self, LoadError> {
        let name = |part: &str| format!("model.layers.{number}.{part}");
        let (width, inner) = (config.width, config.feed_forward);
        let bias = config.feed_forward_bias;
        Ok(Self {
            attention_norm: RmsNorm::load(loader, &name("input_layernorm"), config)?,
            attention: Attention::load(loader, config, &name("self_attn"))?,
            feed_forward_norm: RmsNorm::load(loader, &name("post_attention_layernorm"), config)?,
            gate_up: Linear::load_stacked(
                loader,
                &[(name("mlp.gate_proj"), inner), (name("mlp.up_proj"), inner)],
                width,
                bias,
            )?,
            down: Linear::load(loader, &name("mlp.down_proj"), [width, inner], bias)?,
        })
    }

    /// Hidden states `[tokens, width]` through the layer.
    fn forward(
        &self,
        hidden: Tensor,
        span: &Span,
        cache: &mut [Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let attended =
            self.attention
                .forward(&self.attention_norm.forward(&hidden)?, span, cache)?;
        let hidden = hidden.f_add(&attended)?;
        let normed = self.feed_forward_norm.forward(&hidden)?;
        let both = self.gate_up.forward(&normed)?;
        let half = both.size()[1] / 2;
        let gate = both.f_narrow(1, 0, half)?.f_silu()?;
        let inner = gate.f_mul(&both.f_narrow(1, half, half)?)?;
        hidden.f_add(&self.down.forward(&inner)?)
    }
}

#[derive(Debug)]
struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    fn load(loader: &mut Loader<'_>, name: &str, config: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            weight: loader.tensor(&format!("{name}.weight"), &[config.width])?,
            epsilon: config.norm_epsilon,
        })
    }

    /// Normed in f32, whatever the model's number format.
    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        input.f_rms_norm(self.weight.size(), Some(&self.weight), self.epsilon)
    }
}
