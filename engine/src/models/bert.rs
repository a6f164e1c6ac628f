//! BERT sentence embeddings: absolute positions, two-way attention, layer
//! norms after each block, and one vector from all tokens.

use infernet_protocol::inference::TokenId;
use tch::{Device, Kind, TchError, Tensor};

use super::{Placement, validate_sizes};
use crate::error::LoadError;
use crate::formats::{MappedFile, Weights};
use crate::linear::Linear;
use crate::loader::{Loader, on_device};

/// How the tokens' vectors become the text's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// Their mean.
    Mean,
    /// The first one, of the token `[CLS]`.
    First,
}

/// A BERT's shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) layers: i64,
    pub(crate) width: i64,
    pub(crate) feed_forward: i64,
    pub(crate) heads: i64,
    pub(crate) vocabulary: i64,
    pub(crate) positions: i64,
    pub(crate) token_types: i64,
    pub(crate) norm_epsilon: f64,
    pub(crate) pooling: Pooling,
    pub(crate) normalize: bool,
}

impl Config {
    /// Refuses shapes that fit no model.
    pub(crate) fn validate(&self) -> Result<(), String> {
        validate_sizes(&[
            ("layers", self.layers),
            ("width", self.width),
            ("feed-forward width", self.feed_forward),
            ("heads", self.heads),
            ("vocabulary", self.vocabulary),
            ("positions", self.positions),
            ("token types", self.token_types),
        ])?;
        if self.width % self.heads != 0 {
            return Err(format!(
                "its width {} cannot be cut into {} heads",
                self.width, self.heads
            ));
        }
        Ok(())
    }
}

/// A loaded BERT.
#[derive(Debug)]
pub(crate) struct Bert {
    config: Config,
    device: Device,
    words: Tensor,
    /// Of every position, with the one token type in use added: `[positions, width]`.
    positions: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    // Last, since tensors above may lie in the files.
    _files: Vec<MappedFile>,
}

impl Bert {
    /// Loads the weights; says how many there are.
    pub(crate) fn load(
        config: Config,
        weights: &dyn Weights,
        placement: Placement,
    ) -> Result<(Self, u64), LoadError> {
        let mut loader = Loader::new(weights, placement);
        // A file saved from a larger model carries its name before each tensor.
        let root = match weights.contains("bert.embeddings.word_embeddings.weight") {
            true => "bert.",
            false => "",
        };
        let width = config.width;
        let mut table = |name: &str, rows| {
            loader.tensor(
                &format!("{root}embeddings.{name}_embeddings.weight"),
                &[rows, width],
            )
        };
        let words = table("word", config.vocabulary)?;
        let positions = table("position", config.positions)?;
        let types = table("token_type", config.token_types)?;
        let positions = types
            .f_narrow(0, 0, 1)
            .and_then(|first| positions.f_add(&first))
            .map_err(on_device)?;
        let norm = LayerNorm::load(&mut loader, &format!("{root}embeddings.LayerNorm"), &config)?;
        let layers = (0..config.layers)
            .map(|number| {
                let name = format!("{root}encoder.layer.{number}");
                Layer::load(&mut loader, &name, &config)
            })
            .collect::<Result<_, _>>()?;
        let parameters = loader.parameters();
        let bert = Self {
            config,
            device: placement.device,
            words,
            positions,
            norm,
            layers,
            _files: weights.files(),
        };
        Ok((bert, parameters))
    }

    /// The vector of one text: f32, of the model's width. The caller keeps
    /// within the positions.
    pub(crate) fn embed(&self, tokens: &[TokenId]) -> Result<Vec<f32>, TchError> {
        let ids: Vec<i64> = tokens.iter().map(|&token| i64::from(token)).collect();
        let ids = Tensor::f_from_slice(&ids)?.f_to_device(self.device)?;
        let words = Tensor::f_embedding(&self.words, &ids, -1, false, false)?;
        let positions = self.positions.f_narrow(0, 0, ids.size1()?)?;
        let mut hidden = self.norm.forward(&words.f_add(&positions)?)?;
        for layer in &self.layers {
            hidden = layer.forward(&hidden)?;
        }
        self.pool(&hidden.f_to_kind(Kind::Float)?)
    }

    /// One vector from hidden states `[tokens, width]`.
    fn pool(&self, hidden: &Tensor) -> Result<Vec<f32>, TchError> {
        let mut vector = match self.config.pooling {
            Pooling::Mean => hidden.f_mean_dim([0_i64].as_slice(), false, Kind::Float)?,
            Pooling::First => hidden.f_get(0)?,
        };
        if self.config.normalize {
            let length = vector.f_norm()?.f_clamp_min(1e-12)?;
            vector = vector.f_div(&length)?;
        }
        let vector = vector.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut values = vec![0.0; vector.numel()];
        let length = values.len();
        vector.f_copy_data(&mut values, length)?;
        Ok(values)
    }
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: LayerNorm,
    up: Linear,
    down: Linear,
    norm: LayerNorm,
    heads: i64,
}

impl Layer {
    fn load(loader: &mut Loader<'_>, name: &str, config: &Config) -> Result<Self, LoadError> {
        let (width, inner) = (config.width, config.feed_forward);
        let mut linear =
            |part: &str, shape| Linear::load(loader, &format!("{name}.{part}"), shape, true);
        let square = [width, width];
        Ok(Self {
            query: linear("attention.self.query", square)?,
            key: linear("attention.self.key", square)?,
            value: linear("attention.self.value", square)?,
            output: linear("attention.output.dense", square)?,
            up: linear("intermediate.dense", [inner, width])?,
            down: linear("output.dense", [width, inner])?,
            attention_norm: LayerNorm::load(
                loader,
                &format!("{name}.attention.output.LayerNorm"),
                config,
            )?,
            norm: LayerNorm::load(loader, &format!("{name}.output.LayerNorm"), config)?,
            heads: config.heads,
        })
    }

    /// Hidden states `[tokens, width]` through the layer.
    fn forward(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let attended = self.output.forward(&self.attend(hidden)?)?;
        let hidden = self.attention_norm.forward(&hidden.f_add(&attended)?)?;
        let inner = self.up.forward(&hidden)?.f_gelu("none")?;
        self.norm
            .forward(&hidden.f_add(&self.down.forward(&inner)?)?)
    }

    fn attend(&self, hidden: &Tensor) -> Result<Tensor, TchError> {
        let shape = hidden.size();
        // [tokens, width] to [1, heads, tokens, head width]
        let heads = |part: &Linear| {
            part.forward(hidden)?
                .f_reshape([1, shape[0], self.heads, -1])?
                .f_transpose(1, 2)
        };
        let attended = Tensor::f_scaled_dot_product_attention::<Tensor>(
            &heads(&self.query)?,
            &heads(&self.key)?,
            &heads(&self.value)?,
            None,
            0.0,
            false,
            None,
            false,
        )?;
        attended.f_transpose(1, 2)?.f_reshape(shape.as_slice())
    }
}

#[derive(Debug)]
struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl LayerNorm {
    fn load(loader: &mut Loader<'_>, name: &str, config: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            weight: loader.tensor(&format!("{name}.weight"), &[config.width])?,
            bias: loader.tensor(&format!("{name}.bias"), &[config.width])?,
            epsilon: config.norm_epsilon,
        })
    }

    fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        let width = self.weight.size();
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        input.f_layer_norm(width, weight, bias, self.epsilon, true)
    }
}
