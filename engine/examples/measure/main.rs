//! Answers `scripts/bench_engine.py`: loads one model and measures what it is told to.
//!
//! `measure GGUF DTYPE THREADS` reads a command a line and writes an answer a line, both
//! JSON. The peers under `scripts/peers` understand the same commands.

mod answers;
mod scoring;

use std::io::{BufRead, Write};
use std::sync::Arc;

use infernet_engine::{Engine, ModelSource, Options, TorchEngine, threads};
use infernet_protocol::inference::{Dtype, Prompt, TokenId};
use serde::Deserialize;
use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

/// What can be asked.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    /// Answer these requests, each from its instant on.
    Answer(Vec<answers::Request>),
    /// Give a text of so many tokens from this one, beginning with its token `at`.
    Cut {
        text: String,
        at: usize,
        tokens: usize,
    },
    /// Give a text's tokens.
    Encode(String),
    /// Say how probable these windows of a text are.
    Score(Vec<Vec<TokenId>>),
}

fn main() -> Result<(), Failure> {
    threads::wait_politely()?;
    let reply = match load() {
        Ok(engine) => return serve(&Arc::new(engine)),
        Err(error) => json!({ "failed": error.to_string() }),
    };
    println!("{reply}");
    Ok(())
}

fn load() -> Result<TorchEngine, Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("which {what}?"));
    let path = next("model")?;
    let dtype: Dtype = serde_json::from_value(Value::String(next("number format")?))?;
    let threads = next("number of threads")?.parse()?;
    Ok(TorchEngine::load(Options {
        models: vec![ModelSource {
            dtype,
            ..ModelSource::new(path)
        }],
        threads: Some(threads),
        ..Options::default()
    })?)
}

fn serve(engine: &Arc<TorchEngine>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let mut output = std::io::stdout();
    let ready = json!({ "ready": engine.version(), "device": engine.hardware().name });
    writeln!(output, "{ready}")?;
    for line in std::io::stdin().lock().lines() {
        let reply = match serde_json::from_str(&line?)? {
            Command::Answer(requests) => {
                json!(runtime.block_on(answers::answer(engine, requests))?)
            }
            Command::Encode(text) => {
                json!(engine.encode(&engine.models()[0].id, &Prompt::Text(text))?)
            }
            Command::Score(windows) => {
                json!(runtime.block_on(scoring::score(engine, windows))?)
            }
            Command::Cut { text, at, tokens } => json!(cut(engine, text, at, tokens)?),
        };
        writeln!(output, "{reply}")?;
        output.flush()?;
    }
    Ok(())
}

fn cut(engine: &TorchEngine, text: String, at: usize, tokens: usize) -> Result<String, Failure> {
    let model = engine.models()[0].id;
    let all = engine.encode(&model, &Prompt::Text(text))?;
    let piece = all.get(at..at + tokens).ok_or("the text is too short")?;
    Ok(engine.decode(&model, piece)?)
}
