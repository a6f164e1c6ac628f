//! What models' work is judged by.

use std::collections::HashMap;

use infernet_protocol::event::ModelThresholds;
use infernet_protocol::inference::{Dtype, ModelId};
use infernet_protocol::verification::{Activations, Margins, Thresholds};

/// What is known of some models: each file is the content of an event of kind 38502.
const BUNDLED: [&str; 0] = [];

/// For models that nobody has measured: wide enough for bf16 against f32, and still too
/// narrow for 4 bits or for another model. Activations as their authors advise.
pub const WIDE: Thresholds = Thresholds {
    sampled: WIDE_MARGINS,
    greedy: WIDE_MARGINS,
    activations: Activations {
        exponents: 38.0,
        worst_exponents: 64.0,
        mantissa_mean: 10.0,
        mantissa_median: 8.0,
    },
    least_cosine: 0.99,
};

const WIDE_MARGINS: Margins = Margins {
    clip: 8.0,
    accept: 0.05,
    reject: 0.2,
    window: 0.6,
    pooled: 0.02,
};

/// The thresholds that an aggregator judges by, and publishes.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    of: HashMap<(ModelId, Dtype), ModelThresholds>,
}

impl Shelf {
    /// Those that come with the program.
    pub fn bundled() -> Self {
        let mut shelf = Self::default();
        for text in BUNDLED {
            // A test reads them all.
            if let Ok(thresholds) = serde_json::from_str(text) {
                shelf.put(thresholds);
            }
        }
        shelf
    }

    /// Puts thresholds in the place of what was there for their model and format.
    pub fn put(&mut self, thresholds: ModelThresholds) {
        let key = (thresholds.model, thresholds.dtype);
        self.of.insert(key, thresholds);
    }

    /// What to judge work of this model in this format by.
    pub fn of(&self, model: &ModelId, dtype: Dtype) -> Thresholds {
        let known = self.of.get(&(*model, dtype));
        known.map_or(WIDE, |known| known.thresholds)
    }

    /// All of them, to be published.
    pub fn all(&self) -> impl Iterator<Item = &ModelThresholds> {
        self.of.values()
    }
}
