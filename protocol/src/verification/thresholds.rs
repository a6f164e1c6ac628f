//! What a checker judges by.

use serde::{Deserialize, Serialize};

use crate::event::Refusal;
use crate::inference::Dtype;

/// What a checker judges by. Calibrated for a model; see `nips/verification.md`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// For text drawn at a temperature above 0.
    pub sampled: Margins,
    /// For text drawn at temperature 0.
    pub greedy: Margins,
    /// For the activations of either.
    pub activations: Activations,
    /// For vectors: the least cosine between the provider's and the checker's.
    pub least_cosine: f64,
}

/// Bounds on margins (Token-DiFR, arXiv 2511.20621), in units of logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margins {
    /// What a single token's margin counts at most, and what one outside the
    /// checker's filters counts.
    pub clip: f64,
    /// A mean over an answer up to this is accepted.
    pub accept: f64,
    /// A mean over an answer above this is rejected; between the two nothing is said.
    pub reject: f64,
    /// A window's mean above this is rejected.
    pub window: f64,
    /// No honest provider's mean over all its answers is above this; not 0. Evidence
    /// against a provider is gathered by how far its answers are above it
    /// ([`super::Pool`]).
    pub pooled: f64,
}

/// Bounds on the distance of activations (TOPLOC, arXiv 2501.16007). All but one are on
/// means over a result's chunks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Activations {
    /// Of 128 values, how many may have another exponent, at most.
    pub exponents: f64,
    /// The same in any one chunk.
    pub worst_exponents: f64,
    /// The mean difference of mantissas, at most.
    pub mantissa_mean: f64,
    /// The median difference of mantissas, at most.
    pub mantissa_median: f64,
}

impl Margins {
    const WIDE: Self = Self {
        clip: 8.0,
        accept: 0.05,
        reject: 0.2,
        window: 0.6,
        pooled: 0.02,
    };

    /// What no quantisation of a model that still speaks explains.
    const QUANTISED: Self = Self {
        clip: 8.0,
        accept: 1.5,
        reject: 3.0,
        window: 6.0,
        pooled: 2.0,
    };
}

impl Thresholds {
    /// For models that nobody has measured: wide enough for bf16 against f32, and
    /// still too narrow for 4 bits or for another model. Activations as their authors
    /// advise.
    pub const WIDE: Self = Self {
        sampled: Margins::WIDE,
        greedy: Margins::WIDE,
        activations: Activations {
            exponents: 38.0,
            worst_exponents: 64.0,
            mantissa_mean: 10.0,
            mantissa_median: 8.0,
        },
        least_cosine: 0.99,
    };

    /// For work in eight or four bits that nobody has measured, sold as such: only what
    /// no quantisation explains is rejected, and activations say nothing.
    pub const QUANTISED: Self = Self {
        sampled: Margins::QUANTISED,
        greedy: Margins::QUANTISED,
        activations: Activations {
            exponents: 128.0,
            worst_exponents: 128.0,
            mantissa_mean: 128.0,
            mantissa_median: 128.0,
        },
        least_cosine: 0.9,
    };

    /// What to judge work by of which nobody has measured the model in this format, the
    /// one that its provider says it computes in.
    pub const fn unmeasured(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 | Dtype::Bf16 | Dtype::Scripted => Self::WIDE,
            Dtype::Int8 | Dtype::Int4 => Self::QUANTISED,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        let margins = [self.sampled, self.greedy];
        let margins = margins
            .iter()
            .flat_map(|m| [m.clip, m.accept, m.reject, m.window, m.pooled]);
        let activations = self.activations;
        let mut all = margins.chain([
            activations.exponents,
            activations.worst_exponents,
            activations.mantissa_mean,
            activations.mantissa_median,
            self.least_cosine,
        ]);
        if !all.all(|bound| (0.0..=MOST).contains(&bound)) {
            return Err(Refusal::Invalid(
                "a threshold is not a number from 0 to 1,000,000",
            ));
        }
        for margins in [self.sampled, self.greedy] {
            if margins.pooled < LEAST_POOLED {
                return Err(Refusal::Invalid("a pooled threshold is under a millionth"));
            }
            // Below it, a rounded end would be a certain fault.
            if margins.clip < LEAST_CLIP {
                return Err(Refusal::Invalid("a clip is under 1"));
            }
        }
        Ok(())
    }
}

/// Within these, no sum of figures is too large to be written down.
const MOST: f64 = 1_000_000.0;
const LEAST_POOLED: f64 = 0.000_001;

/// The least clip, in logits: no single token that rounding made counts so much.
const LEAST_CLIP: f64 = 1.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_something_checked_cannot_make_the_figures_absurd() {
        assert!(Thresholds::WIDE.validate().is_ok());
        assert!(Thresholds::QUANTISED.validate().is_ok());
        let spoilt: [fn(&mut Thresholds); 6] = [
            |t| t.sampled.clip = 0.0,
            |t| t.greedy.clip = 0.9,
            |t| t.sampled.clip = 1e300,
            |t| t.greedy.pooled = 1e-300,
            |t| t.activations.exponents = f64::NAN,
            |t| t.least_cosine = -1.0,
        ];
        for spoil in spoilt {
            let mut thresholds = Thresholds::WIDE;
            spoil(&mut thresholds);
            assert!(thresholds.validate().is_err(), "{thresholds:?}");
        }
    }
}
