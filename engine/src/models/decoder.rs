//! The decoder that all families of text generation share: rotary positions,
//! grouped-query attention over a paged cache, a gated feed-forward, RMS norms.
//! What families differ in are fields of its [`Config`].
//!
//! One call computes tokens of many sequences together: whatever does not look
//! at other tokens runs on all of them at once, and attention on each sequence.

mod attention;
mod batch;
mod config;
mod feed_forward;
mod fixed;
mod inspect;
mod layer;
mod norm;
mod rotary;
mod score;
mod size;
mod store;

use half::bf16;
use infernet_protocol::inference::TokenId;
use tch::{Device, Kind, TchError, Tensor};

use super::Placement;
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};
use crate::linear::{Embedding, Linear};
use crate::loader::{self, Loader, on_device};
use batch::Batch;
use layer::Layer;
use norm::RmsNorm;
use rotary::Rotary;

pub(crate) use batch::Row;
pub(crate) use config::{Activation, Config, LayerKind, Rope, RopeScaling, Yarn};
pub(crate) use store::{BLOCK_TOKENS, Store};

/// What a model says of the token that comes next.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Prediction {
    /// One for each token of the vocabulary.
    pub(crate) logits: Vec<f32>,
    /// The state that they are made of, after the last norm, if it was asked for.
    pub(crate) state: Option<Vec<bf16>>,
}

/// A loaded model that generates text.
#[derive(Debug)]
pub(crate) struct Decoder {
    config: Config,
    placement: Placement,
    embedding: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    /// One for each of the config's ropes.
    rotary: Vec<Rotary>,
    // Last, since tensors above may lie in the files.
    _files: Vec<MappedFile>,
}

impl Decoder {
    /// Loads the weights; says how many there are. The config is valid.
    ///
    /// # Errors
    /// A weight that is missing or of another shape, and what the device refuses.
    pub(crate) fn load(
        config: Config,
        weights: &dyn Weights,
        placement: Placement,
    ) -> Result<(Self, u64), LoadError> {
        loader::require(size::bytes(&config, placement), placement)?;
        let mut loader = Loader::new(weights, placement);
        let shape = [config.vocabulary, config.width];
        let embedding = Embedding::load(&mut loader, "model.embed_tokens", shape)?;
        let layers = config
            .layers
            .iter()
            .enumerate()
            .map(|(number, kind)| Layer::load(&mut loader, &config, number, *kind))
            .collect::<Result<_, _>>()?;
        let norm = RmsNorm::load(&mut loader, "model.norm", config.width, &config)?;
        let head = match config.tied {
            true => embedding.head(),
            false => Linear::load_head(&mut loader, "lm_head", shape)?,
        };
        let rotary = config
            .ropes
            .iter()
            .map(|rope| Rotary::new(rope, config.head_width, placement.device).map_err(on_device))
            .collect::<Result<_, _>>()?;
        let parameters = loader.parameters();
        let decoder = Self {
            config,
            placement,
            embedding,
            layers,
            norm,
            head,
            rotary,
            _files: weights.files(),
        };
        Ok((decoder, parameters))
    }

    /// Can this token be computed?
    pub(crate) fn has(&self, token: TokenId) -> bool {
        i64::from(token) < self.config.vocabulary
    }

    /// Room for the keys and values of so many blocks of [`BLOCK_TOKENS`] tokens.
    ///
    /// # Errors
    /// When the device has no room for it.
    pub(crate) fn store(&self, blocks: usize) -> Result<Store, TchError> {
        Store::new(&self.config, self.placement, blocks)
    }

    /// What a block takes in the store, all layers together, in bytes.
    pub(crate) fn bytes_per_block(&self) -> u64 {
        store::bytes_per_block(&self.config, self.placement.kind)
    }

    /// Computes the rows' tokens together and keeps their keys and values in the
    /// rows' blocks. Gives what it says of the token after the last one of each row
    /// that draws, in their order.
    ///
    /// # Errors
    /// What libtorch says. What the store holds of these rows' tokens is then
    /// undefined, and that of others' as it was.
    pub(crate) fn forward(
        &self,
        rows: &[Row<'_>],
        store: &mut Store,
    ) -> Result<Vec<Prediction>, TchError> {
        let Some(mut steps) = store.steps.take() else {
            return self.forward_freely(rows, store);
        };
        let predictions = fixed::forward(self, rows, store, &mut steps);
        store.steps = Some(steps);
        predictions
    }

    /// The same, in whatever shapes the rows have.
    fn forward_freely(
        &self,
        rows: &[Row<'_>],
        store: &mut Store,
    ) -> Result<Vec<Prediction>, TchError> {
        let batch = Batch::new(self, rows)?;
        let hidden = self.hidden(&batch, store)?;
        let Some(last) = batch.drawing(&hidden)? else {
            return Ok(Vec::new());
        };
        let last = self.norm.forward(&last)?;
        let logits = self.head.forward(&last)?.f_to_kind(Kind::Float)?;
        let proves: Vec<_> = rows.iter().filter(|row| row.draws).collect();
        predictions(&logits, &last, |row| proves[row].proves)
    }

    /// Hidden states `[tokens, width]` after the last layer.
    fn hidden(&self, batch: &Batch<'_>, store: &mut Store) -> Result<Tensor, TchError> {
        let mut hidden = self.embedding.look_up(&batch.ids)?;
        if let Some(scale) = self.config.embedding_scale {
            // Rounded to the number format first, as transformers does.
            let scale = Tensor::f_full([1], scale, (hidden.kind(), hidden.device()))?;
            hidden = hidden.f_mul(&scale)?;
        }
        for (layer, cache) in self.layers.iter().zip(store.layers()) {
            hidden = layer.forward(hidden, batch, cache)?;
        }
        Ok(hidden)
    }
}

/// What the rows of `logits`, f32 `[rows, vocabulary]`, say; with those of `states`
/// `[rows, width]` that are wanted.
fn predictions(
    logits: &Tensor,
    states: &Tensor,
    is_wanted: impl Fn(usize) -> bool,
) -> Result<Vec<Prediction>, TchError> {
    let logits = to_rows(logits)?;
    let states = match (0..logits.len()).any(&is_wanted) {
        true => to_rows(&states.f_to_kind(Kind::BFloat16)?.f_to_kind(Kind::Float)?)?,
        false => Vec::new(),
    };
    let mut states = states.into_iter().enumerate();
    let predict = |logits| {
        let state = states.next().filter(|&(row, _)| is_wanted(row));
        let round = |state: Vec<f32>| state.into_iter().map(bf16::from_f32).collect();
        let state = state.map(|(_, state)| round(state));
        Prediction { logits, state }
    };
    Ok(logits.into_iter().map(predict).collect())
}

/// The rows of an f32 matrix, in the processor's memory. The one place where the
/// device is waited for.
fn to_rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, TchError> {
    let matrix = matrix.f_to_device(Device::Cpu)?.f_contiguous()?;
    let (rows, width) = matrix.size2()?;
    let width = usize::try_from(width).unwrap_or(0);
    (0..rows)
        .map(|row| {
            let mut values = vec![0.0; width];
            matrix.f_get(row)?.f_copy_data(&mut values, width)?;
            Ok(values)
        })
        .collect()
}
