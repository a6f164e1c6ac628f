//! Requests that are sent at their instants, and the instants of the tokens that come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infernet_engine::{Engine, Error, Generate, Standing, Step, TorchEngine};
use infernet_protocol::inference::{Prompt, Sampling, TokenId};
use serde::{Deserialize, Serialize};

use crate::Failure;

/// A text to continue.
#[derive(Deserialize)]
pub struct Request {
    prompt: String,
    /// The continuation's length at most, in tokens.
    tokens: u32,
    /// When it is sent, in seconds after the first instant.
    #[serde(default)]
    at: f64,
    /// Whom it is for.
    #[serde(default)]
    customer: u64,
    /// Whether it is proven.
    #[serde(default)]
    prove: bool,
}

/// What came of a request; instants in seconds after the first.
#[derive(Default, Serialize)]
pub struct Answer {
    prompt_tokens: u32,
    sent: f64,
    /// When each token came.
    tokens: Vec<f64>,
    /// Which they were.
    ids: Vec<TokenId>,
}

/// Sends each request at its instant and waits for all.
pub async fn answer(
    engine: &Arc<TorchEngine>,
    requests: Vec<Request>,
) -> Result<Vec<Answer>, Failure> {
    let begin = Instant::now();
    let ask = |request| tokio::spawn(ask(Arc::clone(engine), request, begin));
    let tasks: Vec<_> = requests.into_iter().map(ask).collect();
    let mut answers = Vec::with_capacity(tasks.len());
    for task in tasks {
        answers.push(task.await??);
    }
    Ok(answers)
}

async fn ask(engine: Arc<TorchEngine>, request: Request, begin: Instant) -> Result<Answer, Error> {
    let due = begin + Duration::from_secs_f64(request.at);
    tokio::time::sleep_until(due.into()).await;
    let mut answer = Answer {
        sent: begin.elapsed().as_secs_f64(),
        ..Answer::default()
    };
    let mut steps = engine.generate(Generate {
        model: engine.models()[0].id,
        prompt: Prompt::Text(request.prompt),
        sampling: Sampling::default(),
        max_tokens: request.tokens,
        stop: vec![],
        prefix: vec![],
        prove: request.prove,
        standing: Standing {
            customer: request.customer,
            ..Standing::default()
        },
    })?;
    while let Some(step) = steps.next().await {
        match step {
            Step::Started { input_tokens } => answer.prompt_tokens = input_tokens,
            Step::Token { id, .. } => {
                answer.tokens.push(begin.elapsed().as_secs_f64());
                answer.ids.push(id);
            }
            Step::Ended { .. } => {}
            Step::Failed(error) => return Err(error),
        }
    }
    Ok(answer)
}
