//! One layer: attention, then the feed-forward, each normed and added.

use tch::{TchError, Tensor};

use super::attention::Attention;
use super::batch::Batch;
use super::feed_forward::FeedForward;
use super::norm::RmsNorm;
use super::{Config, LayerKind};
use crate::error::LoadError;
use crate::loader::Loader;

#[derive(Debug)]
pub(super) struct Layer {
    attention_norm: RmsNorm,
    attention: Attention,
    /// Norms what attention gives, in families that do.
    norm_behind_attention: Option<RmsNorm>,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
    norm_behind_feed_forward: Option<RmsNorm>,
}

impl Layer {
    pub(super) fn load(
        loader: &mut Loader<'_>,
        config: &Config,
        number: usize,
        kind: LayerKind,
    ) -> Result<Self, LoadError> {
        let name = |part: &str| format!("model.layers.{number}.{part}");
        let behind = config.norms_behind;
        let mut norm = |part: &str| RmsNorm::load(loader, &name(part), config.width, config);
        // Of families with norms behind, the one behind attention has the name
        // that others give to the one before the feed-forward.
        let before = match behind {
            true => "pre_feedforward_layernorm",
            false => "post_attention_layernorm",
        };
        let (attention_norm, feed_forward_norm) = (norm("input_layernorm")?, norm(before)?);
        let (norm_behind_attention, norm_behind_feed_forward) = match behind {
            true => (
                Some(norm("post_attention_layernorm")?),
                Some(norm("post_feedforward_layernorm")?),
            ),
            false => (None, None),
        };
        Ok(Self {
            attention_norm,
            attention: Attention::load(loader, config, &name("self_attn"), kind)?,
            norm_behind_attention,
            feed_forward_norm,
            feed_forward: FeedForward::load(loader, config, &name("mlp"))?,
            norm_behind_feed_forward,
        })
    }

    /// Hidden states `[tokens, width]` through the layer, whose keys and values
    /// are in `cache`.
    pub(super) fn forward(
        &self,
        mut hidden: Tensor,
        batch: &Batch<'_>,
        cache: &mut [Tensor; 2],
    ) -> Result<Tensor, TchError> {
        let normed = self.attention_norm.forward(&hidden)?;
        let mut attended = self.attention.forward(&normed, batch, cache)?;
        if let Some(norm) = &self.norm_behind_attention {
            attended = norm.forward(&attended)?;
        }
        let normed = self.feed_forward_norm.forward_sum(&mut hidden, &attended)?;
        let mut fed = self.feed_forward.forward(&normed)?;
        if let Some(norm) = &self.norm_behind_feed_forward {
            fed = norm.forward(&fed)?;
        }
        hidden.f_add(&fed)
    }
}
