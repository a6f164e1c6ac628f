//! What a check costs beside the work that is checked.

use std::time::Instant;

use infernet_engine::calibration::{Question, answer, check};
use infernet_engine::{CheckText, Engine, Standing, TorchEngine};
use infernet_protocol::inference::{Prompt, Sampling};

use crate::{AT_ONCE, Failure};

pub const HEADER: &str =
    "prompt | answer | requests | work, s | checks, s | a check as a share of the work";

/// Tokens of prompt and answer.
const SHAPES: [(usize, u32); 5] = [(32, 128), (128, 128), (256, 64), (512, 32), (512, 128)];
/// Requests of each shape.
const REQUESTS: usize = 16;

/// Answers requests eight at a time, and checks the answers, with one engine.
pub async fn measure(engine: &TorchEngine) -> Result<(), Failure> {
    let model = engine.models()[0].id;
    let text = include_str!("../../benches/text.md");
    let tokens = engine.encode(&model, &Prompt::Text(text.into()))?;
    for (number, (prompt, answered)) in SHAPES.into_iter().enumerate() {
        let mut asked = Vec::new();
        for request in 0..REQUESTS {
            let start = (request * 193 + number * 31) % (tokens.len() - prompt);
            let piece = engine.decode(&model, &tokens[start..start + prompt])?;
            asked.push(Question {
                prompt: Prompt::Text(piece),
                sampling: Sampling {
                    temperature: 1.0,
                    seed: start as u64,
                    ..Sampling::default()
                },
                max_tokens: answered,
            });
        }
        let start = Instant::now();
        let work = answer(engine, model, &asked, AT_ONCE).await?;
        let worked = start.elapsed().as_secs_f64();
        // For somebody else, who is shown nothing of what lies in the cache.
        let checker = Standing {
            customer: number as u64 + 1,
            ..Standing::default()
        };
        let checks = work.into_iter().map(|text| CheckText {
            standing: checker,
            ..text
        });
        let checks: Vec<_> = checks.collect();
        let start = Instant::now();
        check(engine, model, &checks, AT_ONCE).await?;
        let checked = start.elapsed().as_secs_f64();
        println!(
            "{prompt} | {answered} | {REQUESTS} | {worked:.1} | {checked:.1} | {:.0} %",
            checked * 100.0 / worked
        );
    }
    Ok(())
}
