//! Grouped-query attention over the paged store.

use tch::{Kind, TchError, Tensor};

use super::batch::{Batch, Part, Row};
use super::norm::RmsNorm;
use super::rotary::rotate;
use super::{Config, LayerKind, store};
use crate::error::LoadError;
use crate::kernels::{self, HeadNorms};
use crate::linear::Linear;
use crate::loader::Loader;

#[derive(Debug)]
pub(super) struct Attention {
    query_key_value: Linear,
    output: Linear,
    /// Of queries and of keys, head by head.
    norms: Option<[RmsNorm; 2]>,
    heads: i64,
    kv_heads: i64,
    head_width: i64,
    scale: f64,
    window: Option<i64>,
    rope: usize,
}

impl Attention {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        config: &Config,
        name: &str,
        kind: LayerKind,
    ) -> Result<Self, LoadError> {
        let queries = config.heads * config.head_width;
        let values = config.kv_heads * config.head_width;
        let parts = [("q_proj", queries), ("k_proj", values), ("v_proj", values)]
            .map(|(part, outputs)| (format!("{name}.{part}"), outputs));
        let mut norm = |part: &str| {
            RmsNorm::load(loader, &format!("{name}.{part}"), config.head_width, config)
        };
        let norms = match config.query_key_norm {
            true => Some([norm("q_norm")?, norm("k_norm")?]),
            false => None,
        };
        Ok(Self {
            query_key_value: Linear::load_stacked(
                loader,
                &parts,
                config.width,
                config.attention_bias,
            )?,
            output: Linear::load(
                loader,
                &format!("{name}.o_proj"),
                [config.width, queries],
                config.attention_output_bias,
            )?,
            norms,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_width: config.head_width,
            scale: config.attention_scale,
            window: kind.window,
            rope: kind.rope,
        })
    }

    /// `[tokens, width]` to the same; adds the tokens' keys and values to the
    /// cache.
    pub(super) fn forward(
        &self,
        input: &Tensor,
        batch: &Batch<'_>,
        cache: &mut [Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let tokens = batch.tokens();
        let all = self.query_key_value.forward(input)?;
        let all = all.f_reshape([tokens, self.heads + 2 * self.kv_heads, self.head_width])?;
        if batch.fixed.is_none() && self.by_kernels(&all) {
            let norms = self.norms.as_ref().map(|[query, key]| HeadNorms {
                query: &query.weight,
                key: &key.weight,
                epsilon: query.epsilon,
            });
            let angles = &batch.rotary[self.rope];
            let queries =
                kernels::rotate_and_keep(&all, angles, norms.as_ref(), &batch.slots, cache)?;
            let attended = self.attend(&queries, batch, cache)?;
            return self.output.forward(&attended);
        }
        let rotated = self.rotated(&all, &batch.rotary[self.rope])?;
        let queries = rotated.f_narrow(1, 0, self.heads)?;
        let keys = rotated.f_narrow(1, self.heads, self.kv_heads)?;
        let values = all.f_narrow(1, self.heads + self.kv_heads, self.kv_heads)?;
        if let Some(fixed) = &batch.fixed {
            let found = fixed.attend([&queries, &keys, &values], cache, self.scale, self.window)?;
            return self.output.forward(&found);
        }
        store::put(&cache[0], &batch.slots, &keys)?;
        store::put(&cache[1], &batch.slots, &values)?;
        let attended = self.attend(&queries, batch, cache)?;
        self.output.forward(&attended)
    }

    fn by_kernels(&self, input: &Tensor) -> bool {
        kernels::serve(input) && self.head_width <= kernels::MAX_HEAD_WIDTH
    }

    /// Queries and keys, `[tokens, heads + kv_heads, head_width]`, normed where
    /// the family does so, and rotated.
    fn rotated(&self, all: &Tensor, positions: &[Tensor; 2]) -> Result<Tensor, TchError> {
        let both = all.f_narrow(1, 0, self.heads + self.kv_heads)?;
        let Some([query_norm, key_norm]) = &self.norms else {
            return rotate(&both, positions);
        };
        let queries = query_norm.forward(&both.f_narrow(1, 0, self.heads)?)?;
        let keys = key_norm.forward(&both.f_narrow(1, self.heads, self.kv_heads)?)?;
        rotate(&Tensor::f_cat(&[queries, keys], 1)?, positions)
    }

    /// What queries `[tokens, heads, head_width]` find, part by part: `[tokens,
    /// heads * head_width]`.
    fn attend(
        &self,
        queries: &Tensor,
        batch: &Batch<'_>,
        cache: &[Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let (mut begin, mut found) = (0, Vec::with_capacity(batch.parts.len()));
        for part in &batch.parts {
            let tokens = match part {
                Part::Alone(row, _) => row.tokens.len(),
                Part::Singles(sight) => sight.lengths.len(),
            } as i64;
            let own = queries.f_narrow(0, begin, tokens)?;
            found.push(match part {
                Part::Alone(row, table) => self.attend_row(&own, row, table, cache)?,
                Part::Singles(sight) => {
                    kernels::attend(&own, cache, sight, self.window, self.scale)?
                }
            });
            begin += tokens;
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            _ => Tensor::f_cat(&found, 0),
        }
    }

    /// The same for one row. The query heads that share a key head are folded
    /// into its rows, so that keys and values are never repeated.
    fn attend_row(
        &self,
        queries: &Tensor,
        row: &Row<'_>,
        table: &Tensor,
        cache: &[Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let (tokens, end) = (row.tokens.len() as i64, row.end() as i64);
        let group = self.heads / self.kv_heads;
        let folded = queries.f_transpose(0, 1)?.f_reshape([
            1,
            self.kv_heads,
            group * tokens,
            self.head_width,
        ])?;
        let keys = store::gather(&cache[0], table, end)?.f_unsqueeze(0)?;
        let values = store::gather(&cache[1], table, end)?.f_unsqueeze(0)?;
        let mask = self.mask(row, queries.kind(), queries.device())?;
        let found = Tensor::f_scaled_dot_product_attention(
            &folded,
            &keys,
            &values,
            mask.as_ref(),
            0.0,
            false,
            Some(self.scale),
            false,
        )?;
        found
            .f_reshape([self.heads, tokens, self.head_width])?
            .f_transpose(0, 1)?
            .f_reshape([tokens, self.heads * self.head_width])
    }

    /// What each of a row's tokens may see, to be added to its scores: `[group *
    /// tokens, start + tokens]`. `None` where it is all.
    fn mask(
        &self,
        row: &Row<'_>,
        kind: Kind,
        device: tch::Device,
    ) -> Result<Option<Tensor>, TchError> {
        let (tokens, start, end) = (row.tokens.len() as i64, row.start as i64, row.end() as i64);
        let window = self.window.filter(|window| *window < end);
        if tokens == 1 && window.is_none() {
            return Ok(None);
        }
        let hidden = Tensor::f_full([tokens, end], f64::NEG_INFINITY, (kind, device))?;
        let mut mask = hidden.f_triu(start + 1)?;
        if let Some(window) = window {
            mask = mask.f_add(&hidden.f_tril(start - window)?)?;
        }
        mask.f_repeat([self.heads / self.kv_heads, 1]).map(Some)
    }
}
