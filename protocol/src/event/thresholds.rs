//! Kind 38502: what to judge a model's work by.

use std::collections::BTreeMap;

use nostr::{PublicKey, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::announcement::validate_name;
use super::verdict::validate_figures;
use super::{Body, Refusal, V1, tag};
use crate::bounds::MAX_RECORD_BYTES;
use crate::inference::{Dtype, ModelId};
use crate::kinds;
use crate::verification::Thresholds;

/// What to judge the work of a model in a number format by, as its author measured it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelThresholds {
    /// The protocol's version.
    pub v: V1,
    /// Its name among its author's: [`ModelThresholds::id_of`] model and format.
    pub id: String,
    /// The model.
    pub model: ModelId,
    /// What the model is called.
    pub name: String,
    /// The number format of those who are judged.
    pub dtype: Dtype,
    /// The engine that it was measured with, and its version.
    pub engine: String,
    /// The thresholds.
    pub thresholds: Thresholds,
    /// What they rest on: numbers by name, such as how many honest answers were
    /// measured and how far the worst of them was.
    pub measured: BTreeMap<String, f64>,
}

impl ModelThresholds {
    /// The name that thresholds of this model in this format have: `model:dtype`.
    pub fn id_of(model: &ModelId, dtype: Dtype) -> String {
        format!("{model}:{dtype}")
    }
}

impl Body for ModelThresholds {
    const KIND: u16 = kinds::THRESHOLDS;
    const MAX_CONTENT_BYTES: usize = MAX_RECORD_BYTES;

    fn tags(&self) -> Vec<Tag> {
        vec![tag(["d", &self.id]), tag(["m", &self.model.to_string()])]
    }

    fn alt(&self) -> String {
        format!("How work of {} is judged", self.name)
    }

    fn validate(&self, _author: &PublicKey, _created_at: Timestamp) -> Result<(), Refusal> {
        validate_name("name", &self.name)?;
        validate_name("engine", &self.engine)?;
        self.thresholds.validate()?;
        validate_figures(&self.measured)?;
        match self.id == Self::id_of(&self.model, self.dtype) {
            true => Ok(()),
            false => Err(Refusal::Invalid(
                "its id is not that of its model and format",
            )),
        }
    }
}
