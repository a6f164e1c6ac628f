//! An encoder's shapes, as `config.json` says them.

use serde::Deserialize;

use super::Family;
use crate::models::validate_sizes;

/// The token that pads where `config.json` names none, as transformers has it
/// for the families in which it counts.
const USUAL_PADDING: i64 = 1;

/// The part of an encoder's `config.json` that is needed.
#[derive(Deserialize)]
pub(crate) struct ConfigFile {
    num_hidden_layers: i64,
    hidden_size: i64,
    intermediate_size: i64,
    num_attention_heads: i64,
    vocab_size: i64,
    max_position_embeddings: i64,
    type_vocab_size: i64,
    layer_norm_eps: f64,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<i64>,
}

impl ConfigFile {
    /// The token that pads.
    pub(super) fn padding(&self) -> i64 {
        self.pad_token_id.unwrap_or(USUAL_PADDING)
    }

    /// What it wants and the engine does not do.
    pub(crate) fn unsupported(&self) -> Option<String> {
        let other = |value: &Option<String>, known: &str| value.clone().filter(|it| it != known);
        if let Some(activation) = other(&self.hidden_act, "gelu") {
            return Some(format!("the activation {activation}"));
        }
        other(&self.position_embedding_type, "absolute")
            .map(|kind| format!("positions of type {kind}"))
    }
}

/// An encoder's shapes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) layers: i64,
    pub(crate) width: i64,
    pub(crate) feed_forward: i64,
    pub(crate) heads: i64,
    pub(crate) vocabulary: i64,
    /// How many tokens a text can have.
    pub(crate) positions: i64,
    /// Rows of the table of positions before a text's first.
    pub(crate) first_position: i64,
    pub(crate) token_types: i64,
    pub(crate) norm_epsilon: f64,
}

impl Config {
    /// The shapes of a family's model.
    ///
    /// # Errors
    /// When they fit no model.
    pub(crate) fn new(family: &Family, file: &ConfigFile) -> Result<Self, String> {
        let first_position = (family.first_position)(file);
        let config = Self {
            layers: file.num_hidden_layers,
            width: file.hidden_size,
            feed_forward: file.intermediate_size,
            heads: file.num_attention_heads,
            vocabulary: file.vocab_size,
            positions: file.max_position_embeddings.saturating_sub(first_position),
            first_position,
            token_types: file.type_vocab_size,
            norm_epsilon: file.layer_norm_eps,
        };
        config.validate().map(|()| config)
    }

    fn validate(&self) -> Result<(), String> {
        if !(0..self.vocabulary).contains(&self.first_position) {
            return Err("its padding token is not in its vocabulary".into());
        }
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
