//! Encoders: every token attends to all others of its text, and one vector
//! comes of all. Absolute positions, layer norms behind each block, as BERT
//! (arXiv:1810.04805) began it.
//!
//! A family is a file of its own beside this one, named in [`FAMILIES`].

mod bert;
mod config;
mod layer;
mod pooling;
mod roberta;

use infernet_protocol::inference::TokenId;
use tch::{Device, Kind, TchError, Tensor};

pub(crate) use config::{Config, ConfigFile};
pub(crate) use pooling::{Pooling, Summary};

use super::{Placement, bytes, wide};
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};
use crate::loader::{self, Loader, on_device};
use layer::{Layer, LayerNorm};

/// All families there are.
const FAMILIES: [&Family; 2] = [&bert::FAMILY, &roberta::FAMILY];

/// What sets a family of encoders apart from the others.
#[derive(Debug)]
pub(crate) struct Family {
    /// Its name in a manifest.
    pub(crate) name: &'static str,
    /// What `config.json` calls its models.
    architectures: &'static [&'static str],
    /// What stands before each tensor's name in a file saved from a larger model.
    root: &'static str,
    /// The row of the table of positions that a text's first token takes.
    first_position: fn(&ConfigFile) -> i64,
}

impl Family {
    /// The family that an architecture of `config.json` belongs to.
    pub(crate) fn find(architecture: &str) -> Option<&'static Self> {
        let is_it = |family: &&&Self| family.architectures.contains(&architecture);
        FAMILIES.iter().find(is_it).copied()
    }

    /// The architectures of `config.json` that there are.
    pub(crate) fn all() -> impl Iterator<Item = &'static str> {
        let all = FAMILIES.iter().flat_map(|family| family.architectures);
        all.copied()
    }
}

/// A loaded encoder.
#[derive(Debug)]
pub(crate) struct Encoder {
    summary: Summary,
    device: Device,
    words: Tensor,
    /// From a text's first token on, with the one token type in use added:
    /// `[positions, width]`.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    // Last, since tensors above may lie in the files.
    _files: Vec<MappedFile>,
}

impl Encoder {
    /// Loads the weights; says how many there are.
    pub(crate) fn load(
        family: &Family,
        config: &Config,
        summary: Summary,
        weights: &dyn Weights,
        placement: Placement,
    ) -> Result<(Self, u64), LoadError> {
        loader::require(weights_bytes(config, placement), placement)?;
        let mut loader = Loader::new(weights, placement);
        let rooted = format!("{}embeddings.word_embeddings.weight", family.root);
        let root = match weights.contains(&rooted) {
            true => family.root,
            false => "",
        };
        let mut table = |name: &str, rows| {
            let name = format!("{root}embeddings.{name}_embeddings.weight");
            loader.tensor(&name, &[rows, config.width])
        };
        let words = table("word", config.vocabulary)?;
        let positions = table("position", config.first_position + config.positions)?;
        let types = table("token_type", config.token_types)?;
        let positions = positions
            .f_narrow(0, config.first_position, config.positions)
            .and_then(|positions| positions.f_add(&types.f_narrow(0, 0, 1)?))
            .map_err(on_device)?;
        let norm = LayerNorm::load(&mut loader, &format!("{root}embeddings.LayerNorm"), config)?;
        let layers = (0..config.layers)
            .map(|number| {
                let name = format!("{root}encoder.layer.{number}");
                Layer::load(&mut loader, &name, config)
            })
            .collect::<Result<_, _>>()?;
        let parameters = loader.parameters();
        let encoder = Self {
            summary,
            device: placement.device,
            words,
            positions,
            norm,
            layers,
            _files: weights.files(),
        };
        Ok((encoder, parameters))
    }

    /// The device that it computes on.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// The vectors of some texts, in their order: f32, of the model's width. The
    /// caller gives at least one text, none empty or longer than the positions,
    /// and of lengths near one another, since all take as long as the longest.
    pub(crate) fn embed(&self, texts: &[&[TokenId]]) -> Result<Vec<Vec<f32>>, TchError> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let mut ids = vec![0_i64; texts.len() * longest];
        for (row, text) in ids.chunks_exact_mut(longest.max(1)).zip(texts) {
            for (id, &token) in row.iter_mut().zip(*text) {
                *id = token.into();
            }
        }
        let shape = [texts.len() as i64, longest as i64];
        let ids = Tensor::f_from_slice(&ids)?
            .f_view(shape)?
            .f_to_device(self.device)?;
        let mask = self.mask(texts, longest)?;
        let words = Tensor::f_embedding(&self.words, &ids, -1, false, false)?;
        let positions = self.positions.f_narrow(0, 0, longest as i64)?;
        let mut hidden = self.norm.forward(&words.f_add(&positions)?)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden, mask.as_ref())?;
        }
        let vectors = self
            .summary
            .forward(&hidden.f_to_kind(Kind::Float)?, mask.as_ref())?;
        rows(&vectors)
    }

    /// Which of the places hold a token, `[texts, longest]`; `None` where all do.
    fn mask(&self, texts: &[&[TokenId]], longest: usize) -> Result<Option<Tensor>, TchError> {
        if texts.iter().all(|text| text.len() == longest) {
            return Ok(None);
        }
        let lengths: Vec<i64> = texts.iter().map(|text| text.len() as i64).collect();
        let lengths = Tensor::f_from_slice(&lengths)?.f_view([-1, 1])?;
        let places = Tensor::f_arange(longest as i64, (Kind::Int64, Device::Cpu))?;
        let mask = places.f_lt_tensor(&lengths)?.f_to_device(self.device)?;
        Ok(Some(mask))
    }
}

/// The memory that the weights take, in bytes, but for norms and biases, which are
/// next to nothing.
fn weights_bytes(config: &Config, placement: Placement) -> u64 {
    let width = wide(config.width);
    let layer = width * (4 * width + 2 * wide(config.feed_forward));
    let tables = width * (wide(config.vocabulary) + wide(config.positions));
    bytes(wide(config.layers) * layer * placement.bits_of_weights() + tables * placement.bits())
}

/// The rows of a matrix of f32.
fn rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, TchError> {
    let matrix = matrix.f_to_device(Device::Cpu)?.f_contiguous()?;
    let (_, width) = matrix.size2()?;
    let mut values = vec![0.0; matrix.numel()];
    let length = values.len();
    matrix.f_copy_data(&mut values, length)?;
    let width = usize::try_from(width).unwrap_or(1).max(1);
    Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
}
