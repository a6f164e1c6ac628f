//! How probable a text is.

use std::sync::Arc;

use infernet_engine::{Engine, Score, Standing, TorchEngine};
use infernet_protocol::inference::TokenId;
use serde::Serialize;

use crate::Failure;

/// What came of scoring a text.
#[derive(Default, Serialize)]
pub struct Scored {
    /// Tokens that were scored: all but the first of each window.
    tokens: usize,
    /// The sum of the natural logarithms of their probabilities.
    log_probability: f64,
}

/// Scores windows of a text, each for itself.
pub async fn score(
    engine: &Arc<TorchEngine>,
    windows: Vec<Vec<TokenId>>,
) -> Result<Scored, Failure> {
    let mut scored = Scored::default();
    for tokens in windows {
        let scoring = engine.score(Score {
            model: engine.models()[0].id,
            tokens,
            standing: Standing::default(),
        })?;
        let scores = scoring.wait().await?;
        scored.tokens += scores.len();
        scored.log_probability += scores.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(scored)
}
