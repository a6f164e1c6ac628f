//! The whole market, with real processes.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod answers;
mod architecture;
mod batches;
mod blobs;
mod cheats;
mod demanding;
mod demo;
mod failover;
mod hostile;
mod lifecycle;
mod lightning;
mod observers;
mod outages;

use std::path::PathBuf;

const SMOLLM2: &str = "smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf";
const MINILM: &str = "all-minilm-l6-v2";

/// A fetched model's path, or a loud skip of the test.
fn model(test: &str, path: &str) -> Option<PathBuf> {
    let model = infernet_tests::model(path);
    if model.is_none() {
        infernet_tests::skip(test, "the model is not there; run scripts/fetch");
    }
    model
}

/// A text of so many words, which are a scripted engine's tokens.
fn words(count: usize) -> String {
    (0..count)
        .map(|n| format!("word{n} "))
        .collect::<String>()
        .trim_end()
        .into()
}
