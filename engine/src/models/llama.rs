//! Llama-family text generation: rotary positions, grouped-query attention,
//! gated feed-forward, RMS norms.

use infernet_protocol::inference::TokenId;
use tch::{Device, Kind, TchError, Tensor};

use super::{Linear, Loader, Placement};
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};

/// The cache grows by doubling from this many tokens.
const FIRST_CACHE_TOKENS: i64 = 256;

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
        /// Far above any model's width, and small enough that no product of two
        /// overflows.
        const MAX_SIZE: i64 = 1 << 24;
        let sizes = [
            ("layers", self.layers),
            ("width", self.width),
            ("feed-forward width", self.feed_forward),
            ("heads", self.heads),
            ("key-value heads", self.kv_heads),
            ("head width", self.head_width),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ];
        if let Some((name, size)) = sizes
            .iter()
            .find(|(_, size)| !(1..=MAX_SIZE).contains(size))
        {
            return Err(format!("its {name} cannot be {size}"));
        }
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
        let rotary = Rotary::new(&config, placement.device)
            .map_err(|error| LoadError::Device(error.to_string()))?;
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

/// The keys and values of one sequence.
#[derive(Debug)]
pub(crate) struct Cache {
    /// For each layer, keys and values `[kv_heads, room, head_width]`.
    layers: Vec<[Tensor; 2]>,
    /// How many tokens are in it.
    tokens: i64,
}

impl Cache {
    /// Makes room for `more` tokens, by doubling, within the context.
    fn make_room(
        &mut self,
        more: i64,
        config: &Config,
        placement: Placement,
    ) -> Result<(), TchError> {
        let needed = self.tokens + more;
        let room = match self.layers.first() {
            Some([keys, _]) => keys.size()[1],
            None => 0,
        };
        if needed <= room {
            return Ok(());
        }
        let room = needed
            .max(room * 2)
            .max(FIRST_CACHE_TOKENS)
            .min(config.context.max(needed));
        let shape = [config.kv_heads, room, config.head_width];
        let empty = || Tensor::f_empty(shape, (placement.kind, placement.device));
        let mut layers = Vec::with_capacity(config.layers as usize);
        for number in 0..config.layers as usize {
            let grown = [empty()?, empty()?];
            if let Some(old) = self.layers.get(number) {
                for (new, old) in grown.iter().zip(old) {
                    let filled = old.f_narrow(1, 0, self.tokens)?;
                    new.f_narrow(1, 0, self.tokens)?.f_copy_(&filled)?;
                }
            }
            layers.push(grown);
        }
        self.layers = layers;
        Ok(())
    }
}

/// What all layers need to know of the tokens that run.
struct Span {
    /// Tokens before them.
    start: i64,
    /// How many run.
    tokens: i64,
    /// Cosines and sines of their positions, `[tokens, head_width]`.
    rotary: [Tensor; 2],
    /// What each may see, to be added to its scores; `[group * tokens, start +
    /// tokens]`. Nothing for a single token, which sees all.
    mask: Option<Tensor>,
}

impl Span {
    fn new(llama: &Llama, start: i64, tokens: i64) -> Result<Self, TchError> {
        let Placement { device, kind } = llama.placement;
        let mask = match tokens {
            1 => None,
            _ => {
                let all = [tokens, start + tokens];
                let hidden = Tensor::f_full(all, f64::NEG_INFINITY, (kind, device))?;
                let group = llama.config.heads / llama.config.kv_heads;
                Some(hidden.f_triu(start + 1)?.f_repeat([group, 1])?)
            }
        };
        Ok(Self {
            start,
            tokens,
            rotary: llama.rotary.at(start, tokens, kind)?,
            mask,
        })
    }
}

#[derive(Debug)]
struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    feed_forward_norm: RmsNorm,
    gate: Linear,
    up: Linear,
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
            gate: Linear::load(loader, &name("mlp.gate_proj"), [inner, width], bias)?,
            up: Linear::load(loader, &name("mlp.up_proj"), [inner, width], bias)?,
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
        let gated = self.gate.forward(&normed)?.f_silu()?;
        let inner = gated.f_mul(&self.up.forward(&normed)?)?;
        hidden.f_add(&self.down.forward(&inner)?)
    }
}

#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    kv_heads: i64,
    group: i64,
    head_width: i64,
}

impl Attention {
    fn load(loader: &mut Loader<'_>, config: &Config, name: &str) -> Result<Self, LoadError> {
        let bias = config.attention_bias;
        let queries = config.heads * config.head_width;
        let values = config.kv_heads * config.head_width;
        let name = |part: &str| format!("{name}.{part}");
        Ok(Self {
            query: Linear::load(loader, &name("q_proj"), [queries, config.width], bias)?,
            key: Linear::load(loader, &name("k_proj"), [values, config.width], bias)?,
            value: Linear::load(loader, &name("v_proj"), [values, config.width], bias)?,
            output: Linear::load(loader, &name("o_proj"), [config.width, queries], bias)?,
            kv_heads: config.kv_heads,
            group: config.heads / config.kv_heads,
            head_width: config.head_width,
        })
    }

    /// `[tokens, width]` to the same. The query heads that share a key head are
    /// folded into its rows, so that keys and values are never repeated.
    fn forward(
        &self,
        input: &Tensor,
        span: &Span,
        cache: &mut [Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let queries = self.heads(&self.query.forward(input)?, self.kv_heads * self.group)?;
        let queries = rotate(&queries, &span.rotary)?.f_reshape([
            1,
            self.kv_heads,
            self.group * span.tokens,
            self.head_width,
        ])?;
        let keys = self.heads(&self.key.forward(input)?, self.kv_heads)?;
        let keys = remember(&mut cache[0], &rotate(&keys, &span.rotary)?, span)?;
        let values = self.heads(&self.value.forward(input)?, self.kv_heads)?;
        let values = remember(&mut cache[1], &values, span)?;
        let mask = span.mask.as_ref();
        let attended = Tensor::f_scaled_dot_product_attention(
            &queries, &keys, &values, mask, 0.0, false, None, false,
        )?;
        let heads = self.kv_heads * self.group;
        let attended = attended
            .f_reshape([heads, span.tokens, self.head_width])?
            .f_transpose(0, 1)?
            .f_reshape([span.tokens, heads * self.head_width])?;
        self.output.forward(&attended)
    }

    /// `[tokens, heads * head_width]` to `[heads, tokens, head_width]`.
    fn heads(&self, input: &Tensor, heads: i64) -> Result<Tensor, TchError> {
        input
            .f_reshape([-1, heads, self.head_width])?
            .f_transpose(0, 1)
    }
}

/// Adds keys or values `[kv_heads, tokens, head_width]` to the cache and gives
/// all there are, with a batch dimension before.
fn remember(cache: &mut Tensor, new: &Tensor, span: &Span) -> Result<Tensor, TchError> {
    cache.f_narrow(1, span.start, span.tokens)?.f_copy_(new)?;
    cache
        .f_narrow(1, 0, span.start + span.tokens)?
        .f_unsqueeze(0)
}

/// Cosines and sines of positions.
#[derive(Debug)]
struct Rotary {
    /// f32 `[head_width / 2]`.
    frequencies: Tensor,
}

impl Rotary {
    fn new(config: &Config, device: Device) -> Result<Self, TchError> {
        let options = (Kind::Float, Device::Cpu);
        let width = config.head_width;
        let exponents = Tensor::f_arange_start_step(0, width, 2, options)?.f_div_scalar(width)?;
        let theta = Tensor::f_full([1], config.rope_theta, options)?;
        let frequencies = theta.f_pow(&exponents)?.f_reciprocal()?;
        Ok(Self {
            frequencies: frequencies.f_to_device(device)?,
        })
    }

    /// For `tokens` positions from `start` on: `[tokens, head_width]` each, both
    /// halves of the width alike.
    fn at(&self, start: i64, tokens: i64, kind: Kind) -> Result<[Tensor; 2], TchError> {
        let options = (Kind::Float, self.frequencies.device());
        let positions = Tensor::f_arange_start(start, start + tokens, options)?;
        let angles = positions.f_outer(&self.frequencies)?;
        let angles = Tensor::f_cat(&[&angles, &angles], 1)?;
        Ok([
            angles.f_cos()?.f_to_kind(kind)?,
            angles.f_sin()?.f_to_kind(kind)?,
        ])
    }
}

/// Rotates heads `[heads, tokens, head_width]` by their positions.
fn rotate(input: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Result<Tensor, TchError> {
    let half = input.size()[2] / 2;
    let first = input.f_narrow(2, 0, half)?;
    let second = input.f_narrow(2, half, half)?;
    let turned = Tensor::f_cat(&[&second.f_neg()?, &first], 2)?;
    input.f_mul(cosines)?.f_add(&turned.f_mul(sines)?)
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
        let exact = input.f_to_kind(Kind::Float)?;
        let mean = exact
            .f_square()?
            .f_mean_dim([-1_i64].as_slice(), true, Kind::Float)?;
        let scale = mean.f_add_scalar(self.epsilon)?.f_rsqrt()?;
        let normed = exact.f_mul(&scale)?.f_to_kind(input.f_kind()?)?;
        self.weight.f_mul(&normed)
    }
}
