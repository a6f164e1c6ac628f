//! Rotary positions as `config.json` describes them.

use serde::Deserialize;

use super::Unfit;
use super::config_file::{ConfigFile, DEFAULT_THETA};
use crate::models::decoder::{Rope, RopeScaling, Yarn};

/// `rope_parameters`: for all layers, or for each type of layer.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RopeParameters {
    pub(super) full_attention: Option<RopeFile>,
    pub(super) sliding_attention: Option<RopeFile>,
    #[serde(flatten)]
    pub(super) all: RopeFile,
}

/// `rope_scaling`, or `rope_parameters`, which holds theta too.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct RopeFile {
    rope_theta: Option<f64>,
    rope_type: Option<String>,
    /// What older files call it; some have both.
    r#type: Option<String>,
    factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    attention_factor: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    truncate: Option<bool>,
    partial_rotary_factor: Option<f64>,
}

impl Rope {
    /// Not stretched.
    pub(super) fn plain(theta: f64) -> Self {
        Self {
            theta,
            scaling: RopeScaling::None,
        }
    }
}

impl RopeFile {
    /// The rotary positions of a model with this config. `theta` is for files
    /// that have it elsewhere.
    pub(super) fn rope(&self, config: &ConfigFile, theta: Option<f64>) -> Result<Rope, Unfit> {
        if self.partial_rotary_factor.is_some_and(|part| part != 1.0) {
            return Err(Unfit::Unsupported(
                "rotary positions on a part of each head".into(),
            ));
        }
        let theta = self.rope_theta.or(theta).unwrap_or(DEFAULT_THETA);
        let kind = self.rope_type.as_ref().or(self.r#type.as_ref());
        let scaling = match kind.map(String::as_str) {
            None | Some("default") => RopeScaling::None,
            Some("linear") => RopeScaling::Linear(number("factor", self.factor)?),
            Some("llama3") => RopeScaling::Llama3 {
                factor: number("factor", self.factor)?,
                low_frequency_factor: number("low_freq_factor", self.low_freq_factor)?,
                high_frequency_factor: number("high_freq_factor", self.high_freq_factor)?,
                original_context: self.original_context(config)?,
            },
            Some("yarn") => RopeScaling::Yarn(self.yarn(config)?),
            Some(other) => return Err(unknown(other)),
        };
        Ok(Rope { theta, scaling })
    }

    /// The context before it was stretched, in tokens.
    fn original_context(&self, config: &ConfigFile) -> Result<f64, Unfit> {
        let elsewhere = config.original_max_position_embeddings;
        match self.original_max_position_embeddings {
            Some(own) => Ok(own),
            None => elsewhere
                .map_or_else(|| config.context(), Ok)
                .map(|n| n as f64),
        }
    }

    fn yarn(&self, config: &ConfigFile) -> Result<Yarn, Unfit> {
        let original_context = self.original_context(config)?;
        let factor = match self.factor {
            Some(factor) => factor,
            None => config.context()? as f64 / original_context,
        };
        let own = || match (self.mscale, self.mscale_all_dim) {
            (Some(above), Some(below)) if above != 0.0 && below != 0.0 => {
                Yarn::amplitude(factor, above) / Yarn::amplitude(factor, below)
            }
            _ => Yarn::amplitude(factor, 1.0),
        };
        let plain = Yarn::new(factor, original_context);
        Ok(Yarn {
            most_turns: self.beta_fast.unwrap_or(plain.most_turns),
            least_turns: self.beta_slow.unwrap_or(plain.least_turns),
            whole: self.truncate.unwrap_or(plain.whole),
            amplitude: self.attention_factor.unwrap_or_else(own),
            ..plain
        })
    }
}

/// Another way of stretching than those there are.
pub(super) fn unknown(kind: &str) -> Unfit {
    Unfit::Unsupported(format!(
        "rope scaling of type {kind} (there are linear, llama3 and yarn)"
    ))
}

fn number(field: &str, value: Option<f64>) -> Result<f64, Unfit> {
    value.ok_or_else(|| Unfit::Damaged(format!("its rope scaling has no {field}")))
}
