//! How probable a text is.

use std::sync::Arc;

use infernet_engine::{Engine, Score, Standing, TorchEngine};
use infernet_protocol::inference::Prompt;
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

/// Scores a text in windows of so many tokens, each for itself.
pub async fn score(
    engine: &Arc<TorchEngine>,
    text: String,
    window: usize,
) -> Result<Scored, Failure> {
    let model = engine.models()[0].id;
    let tokens = engine.encode(&model, &Prompt::Text(text))?;
    let mut scored = Scored::default();
    for window in tokens.chunks(window).filter(|window| window.len() > 1) {
        let scoring = engine.score(Score {
            model,
            tokens: window.to_vec(),
            standing: Standing::default(),
        })?;
        let scores = scoring.wait().await?;
        scored.tokens += scores.len();
        scored.log_probability += scores.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(scored)
}
