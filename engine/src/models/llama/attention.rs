//! Attention with rotary positions, and the cache of keys and values.

use tch::{Device, Kind, TchError, Tensor};

use super::{Config, Llama, Placement};
use crate::error::LoadError;
use crate::linear::Linear;
use crate::loader::Loader;

/// The cache grows by doubling from this many tokens.
const FIRST_CACHE_TOKENS: i64 = 256;

/// The keys and values of one sequence.
#[derive(Debug)]
pub(crate) struct Cache {
    /// For each layer, keys and values `[kv_heads, room, head_width]`.
    pub(super) layers: Vec<[Tensor; 2]>,
    /// How many tokens are in it.
    pub(super) tokens: i64,
}

impl Cache {
    /// Makes room for `more` tokens, by doubling, within the context.
    pub(super) fn make_room(
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
pub(super) struct Span {
    /// Tokens before them.
    start: i64,
    /// How many run.
    pub(super) tokens: i64,
    /// Cosines and sines of their positions, `[tokens, head_width]`.
    rotary: [Tensor; 2],
    /// What each may see, to be added to its scores; `[group * tokens, start +
    /// tokens]`. Nothing for a single token, which sees all.
    mask: Option<Tensor>,
}

impl Span {
    pub(super) fn new(llama: &Llama, start: i64, tokens: i64) -> Result<Self, TchError> {
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
pub(super) struct Attention {
    query_key_value: Linear,
    output: Linear,
    heads: i64,
    kv_heads: i64,
    head_width: i64,
}

impl Attention {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        config: &Config,
        name: &str,
    ) -> Result<Self, LoadError> {
        let bias = config.attention_bias;
        let queries = config.heads * config.head_width;
        let values = config.kv_heads * config.head_width;
        let parts = [("q_proj", queries), ("k_proj", values), ("v_proj", values)]
            .map(|(part, outputs)| (format!("{name}.{part}"), outputs));
        Ok(Self {
            query_key_value: Linear::load_stacked(loader, &parts, config.width, bias)?,
            output: Linear::load(
                loader,
                &format!("{name}.o_proj"),
                [config.width, queries],
                bias,
            )?,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_width: config.head_width,
        })
    }

    /// `[tokens, width]` to the same. The query heads that share a key head are
    /// folded into its rows, so that keys and values are never repeated.
    pub(super) fn forward(
        &self,
        input: &Tensor,
        span: &Span,
        cache: &mut [Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let rotated_heads = self.heads + self.kv_heads;
        // [heads of queries, keys and values, tokens, head width]
        let all = self
            .query_key_value
            .forward(input)?
            .f_reshape([span.tokens, rotated_heads + self.kv_heads, self.head_width])?
            .f_transpose(0, 1)?;
        let rotated = rotate(&all.f_narrow(0, 0, rotated_heads)?, &span.rotary)?;
        let rows = span.tokens * self.heads / self.kv_heads;
        let queries = rotated.f_narrow(0, 0, self.heads)?;
        let queries = queries.f_reshape([1, self.kv_heads, rows, self.head_width])?;
        let keys = rotated.f_narrow(0, self.heads, self.kv_heads)?;
        let keys = remember(&mut cache[0], &keys, span)?;
        let values = all.f_narrow(0, rotated_heads, self.kv_heads)?;
        let values = remember(&mut cache[1], &values, span)?;
        let mask = span.mask.as_ref();
        let attended = Tensor::f_scaled_dot_product_attention(
            &queries, &keys, &values, mask, 0.0, false, None, false,
        )?;
        let attended = attended
            .f_reshape([self.heads, span.tokens, self.head_width])?
            .f_transpose(0, 1)?
            .f_reshape([span.tokens, self.heads * self.head_width])?;
        self.output.forward(&attended)
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
pub(super) struct Rotary {
    /// f32 `[head_width / 2]`.
    frequencies: Tensor,
}

impl Rotary {
    pub(super) fn new(config: &Config, device: Device) -> Result<Self, TchError> {
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
    pub(super) fn at(&self, start: i64, tokens: i64, kind: Kind) -> Result<[Tensor; 2], TchError> {
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
