//! The shapes of a decoder, and what families differ in.

use crate::models::validate_sizes;

/// A decoder's shapes and its family's ways.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) width: i64,
    pub(crate) feed_forward: i64,
    pub(crate) heads: i64,
    pub(crate) kv_heads: i64,
    pub(crate) head_width: i64,
    pub(crate) vocabulary: i64,
    /// Tokens that it can hold.
    pub(crate) context: i64,
    pub(crate) norm_epsilon: f64,
    /// One for each layer.
    pub(crate) layers: Vec<LayerKind>,
    /// The rotary positions that layers choose from.
    pub(crate) ropes: Vec<Rope>,
    /// What scores are multiplied by; mostly `1 / sqrt(head_width)`.
    pub(crate) attention_scale: f64,
    /// Queries, keys and values have a bias.
    pub(crate) attention_bias: bool,
    /// What attention gives has one.
    pub(crate) attention_output_bias: bool,
    pub(crate) feed_forward_bias: bool,
    /// Queries and keys are normed head by head before they are rotated.
    pub(crate) query_key_norm: bool,
    /// Attention and feed-forward are normed once more behind.
    pub(crate) norms_behind: bool,
    /// Norms multiply by one more than their weight.
    pub(crate) norm_offset: bool,
    pub(crate) activation: Activation,
    /// What embeddings are multiplied by.
    pub(crate) embedding_scale: Option<f64>,
    /// The embedding's matrix is used once more at the end.
    pub(crate) tied: bool,
}

/// What one layer does differently from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LayerKind {
    /// A token sees so many, itself included; all before it if not given.
    pub(crate) window: Option<i64>,
    /// Which of the config's ropes.
    pub(crate) rope: usize,
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) theta: f64,
    pub(crate) scaling: RopeScaling,
}

/// How rotary frequencies are stretched for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    /// Not at all.
    None,
    /// All are divided by a factor.
    Linear(f64),
    /// Llama 3.1's: low frequencies are divided, high ones are not, and what is
    /// between is mixed.
    Llama3 {
        factor: f64,
        low_frequency_factor: f64,
        high_frequency_factor: f64,
        original_context: f64,
    },
    /// Each frequency is divided by its own factor, as GGUF files have it.
    Factors(Vec<f32>),
    Yarn(Yarn),
}

/// YaRN (<https://arxiv.org/abs/2309.00071>): frequencies that turn often within
/// the original context are left, those that turn less than once are divided,
/// and between them it goes over step by step.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub(crate) factor: f64,
    /// Tokens.
    pub(crate) original_context: f64,
    /// Above so many turns a frequency is left.
    pub(crate) most_turns: f64,
    /// Below so many it is divided.
    pub(crate) least_turns: f64,
    /// The first and last frequency of those between are taken as whole numbers.
    pub(crate) whole: bool,
    /// What rotated queries and keys are multiplied by.
    pub(crate) amplitude: f64,
}

impl Yarn {
    /// As the paper has it.
    pub(crate) fn new(factor: f64, original_context: f64) -> Self {
        Self {
            factor,
            original_context,
            most_turns: 32.0,
            least_turns: 1.0,
            whole: true,
            amplitude: Self::amplitude(factor, 1.0),
        }
    }

    /// The paper's amplitude, with its coefficient multiplied by `share`.
    pub(crate) fn amplitude(factor: f64, share: f64) -> f64 {
        match factor > 1.0 {
            true => 0.1 * share * factor.ln() + 1.0,
            false => 1.0,
        }
    }
}

/// What the feed-forward's gate goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    Silu,
    /// GELU by its approximation with tanh.
    GeluTanh,
}

impl Config {
    /// Refuses shapes that fit no model, so that the decoder may rely on them.
    ///
    /// # Errors
    /// What cannot be.
    pub(crate) fn validate(&self) -> Result<(), String> {
        validate_sizes(&[
            ("layers", self.layers.len() as i64),
            ("width", self.width),
            ("feed-forward width", self.feed_forward),
            ("heads", self.heads),
            ("key-value heads", self.kv_heads),
            ("head width", self.head_width),
            ("vocabulary", self.vocabulary),
            ("context", self.context),
        ])?;
        if self.heads % self.kv_heads != 0 {
            return Err(format!(
                "its {} heads cannot share {} key-value heads",
                self.heads, self.kv_heads
            ));
        }
        if self.head_width % 2 != 0 {
            return Err(format!("its head width {} is odd", self.head_width));
        }
        let positive = |number: f64| number > 0.0 && number.is_finite();
        if !(positive(self.attention_scale) && (0.0..1.0).contains(&self.norm_epsilon)) {
            return Err("its attention scale or norm epsilon is no such number".into());
        }
        for window in self.layers.iter().filter_map(|layer| layer.window) {
            validate_sizes(&[("sliding window", window)])?;
        }
        if self
            .layers
            .iter()
            .any(|layer| layer.rope >= self.ropes.len())
        {
            return Err("a layer has no rotary positions".into());
        }
        self.ropes
            .iter()
            .try_for_each(|rope| rope.validate(self.head_width))
    }
}

impl Rope {
    fn validate(&self, head_width: i64) -> Result<(), String> {
        let positive = |number: f64| number > 0.0 && number.is_finite();
        let fine = match &self.scaling {
            RopeScaling::None => true,
            RopeScaling::Linear(factor) => positive(*factor),
            RopeScaling::Llama3 {
                factor,
                low_frequency_factor,
                high_frequency_factor,
                original_context,
            } => {
                positive(*factor)
                    && positive(*low_frequency_factor)
                    && high_frequency_factor > low_frequency_factor
                    && positive(*original_context)
            }
            RopeScaling::Yarn(yarn) => {
                positive(yarn.factor)
                    && positive(yarn.original_context)
                    && positive(yarn.least_turns)
                    && yarn.most_turns > yarn.least_turns
                    && yarn.most_turns.is_finite()
                    && positive(yarn.amplitude)
                    && self.theta > 1.0
            }
            RopeScaling::Factors(factors) => {
                factors.len() as i64 == head_width / 2
                    && factors.iter().all(|factor| positive(f64::from(*factor)))
            }
        };
        match positive(self.theta) && fine {
            true => Ok(()),
            false => Err("its rope theta or scaling is no such number".into()),
        }
    }
}
