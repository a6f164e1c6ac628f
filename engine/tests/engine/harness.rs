//! Engines that tests share, and an answer read to its end.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use infernet_engine::{
    DeviceChoice, Engine, Error, Generate, Generation, ModelSource, Options, Standing, Step,
    TorchEngine,
};
use infernet_protocol::inference::{
    Dtype, EndReason, Message, ModelId, Prompt, Role, Sampling, TokenId,
};
use infernet_protocol::payload::Proof;
use serde::de::DeserializeOwned;

pub fn tree() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

pub fn reference_folder() -> PathBuf {
    tree().join("engine/tests/reference")
}

/// Reads a JSON file of the tree.
pub fn read<T: DeserializeOwned>(path: &str) -> T {
    let text = std::fs::read(tree().join(path)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// A model's folder, or a loud word that the test is skipped.
pub fn fetched(test: &str, name: &str) -> Option<PathBuf> {
    let folder = tree().join(".cache/models").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("SKIPPED {test}: no model {name}; run scripts/fetch");
    None
}

/// What tests load with: one thread, so that tests side by side do not spin.
pub fn options(sources: Vec<ModelSource>) -> Options {
    Options {
        models: sources,
        device: DeviceChoice::Cpu,
        threads: Some(1),
        ..Options::default()
    }
}

pub fn load(path: impl Into<PathBuf>, dtype: Dtype) -> TorchEngine {
    let source = ModelSource {
        dtype,
        ..ModelSource::new(path)
    };
    TorchEngine::load(options(vec![source])).unwrap()
}

/// The engine with SmolLM2 in f32, loaded once for all tests.
pub fn smollm2(test: &str) -> Option<&'static TorchEngine> {
    static ENGINE: OnceLock<TorchEngine> = OnceLock::new();
    let folder = fetched(test, "smollm2-135m-instruct")?;
    Some(ENGINE.get_or_init(|| load(folder, Dtype::F32)))
}

/// The engine with the tiny Llama in f32, from its folder.
pub fn tiny() -> &'static TorchEngine {
    static ENGINE: OnceLock<TorchEngine> = OnceLock::new();
    ENGINE.get_or_init(|| load(reference_folder().join("tiny-llama"), Dtype::F32))
}

/// The engine's one model.
pub fn model(engine: &dyn Engine) -> ModelId {
    engine.models()[0].id
}

pub fn text(text: &str) -> Prompt {
    Prompt::Text(text.into())
}

pub fn question(content: &str) -> Prompt {
    Prompt::Chat(vec![Message {
        role: Role::User,
        content: content.into(),
    }])
}

/// A greedy request for at most 48 tokens.
pub fn request(engine: &dyn Engine, prompt: Prompt) -> Generate {
    Generate {
        model: model(engine),
        prompt,
        sampling: Sampling::default(),
        max_tokens: 48,
        stop: vec![],
        prefix: vec![],
        prove: false,
        standing: Standing::default(),
    }
}

/// An answer that was read to its end.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    pub input_tokens: Option<u32>,
    pub ids: Vec<TokenId>,
    /// What was shown with each token.
    pub pieces: Vec<String>,
    pub rest: String,
    pub end: Option<Result<EndReason, Error>>,
    pub proof: Option<Proof>,
}

impl Answer {
    pub fn text(&self) -> String {
        self.pieces.concat() + &self.rest
    }

    pub fn reason(&self) -> EndReason {
        self.end.clone().unwrap().unwrap()
    }

    pub fn error(&self) -> Error {
        self.end.clone().unwrap().unwrap_err()
    }

    /// Takes a step; nothing may follow an end.
    pub fn take(&mut self, step: Step) {
        assert_eq!(self.end, None, "a step after the end");
        match step {
            Step::Started { input_tokens } => self.input_tokens = Some(input_tokens),
            Step::Token { id, text } => {
                self.ids.push(id);
                self.pieces.push(text);
            }
            Step::Ended {
                reason,
                text,
                proof,
            } => {
                self.proof = proof;
                self.rest = text;
                self.end = Some(Ok(reason));
            }
            Step::Failed(error) => self.end = Some(Err(error)),
        }
    }
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Reads a generation to its end.
pub fn finish(mut generation: Generation) -> Answer {
    wait(async move {
        let mut answer = Answer::default();
        while let Some(step) = generation.next().await {
            answer.take(step);
        }
        answer
    })
}

pub fn answer(engine: &dyn Engine, request: Generate) -> Answer {
    finish(engine.generate(request).unwrap())
}
