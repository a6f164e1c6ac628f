//! Inference on libtorch: loads a model, tokenizes, schedules, streams.
//!
//! [`Engine`] is the port that providers use; [`TorchEngine`] is the real one
//! and [`ScriptedEngine`] the one that misbehaves on demand. An engine owns the
//! operating system's threads that compute; async code talks to it over bounded
//! channels. It knows nothing of Nostr or money.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use infernet_engine::{Engine, Generate, ModelSource, Options, Standing, Step, TorchEngine};
//! use infernet_protocol::inference::{Prompt, Sampling};
//!
//! let model = ModelSource::new(".cache/models/smollm2-135m-instruct");
//! let engine = TorchEngine::load(Options { models: vec![model], ..Options::default() })?;
//! let mut answer = engine.generate(Generate {
//!     model: engine.models()[0].id,
//!     prompt: Prompt::Text("The sea is".into()),
//!     sampling: Sampling::default(),
//!     max_tokens: 20,
//!     stop: vec![],
//!     prefix: vec![],
//!     prove: false,
//!     standing: Standing::default(),
//! })?;
//! while let Some(step) = answer.next().await {
//!     if let Step::Token { text, .. } = step {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Binaries find libtorch by an rpath
//!
//! A package of binaries that depends on this crate needs a build script, since
//! link arguments do not travel from library to binary:
//!
//! ```
//! // in build.rs, fn main():
//! if let Ok(libraries) = std::env::var("DEP_INFERNET_ENGINE_LIBTORCH_LIBRARIES") {
//!     println!("cargo::rustc-link-arg=-Wl,-rpath,{libraries}");
//! }
//! ```
//!
//! It must depend on this crate directly, in `[dependencies]`. A binary should
//! begin with [`threads::wait_politely`], which says why.

mod cache;
pub mod calibration;
mod chat;
mod check;
mod cuda;
mod detokenizer;
mod device;
mod error;
mod formats;
mod kernels;
mod linear;
mod load;
mod loader;
mod manifest;
mod memory;
mod models;
mod philox;
mod port;
mod proof;
pub mod sampling;
mod scripted;
mod seam;
mod serve;
mod telling;
pub mod threads;
mod tokenizer;
mod torch;
mod worker;

pub use device::DeviceChoice;
pub use error::{Error, LoadError};
pub use load::ModelSource;
pub use manifest::{Digest, File, FileRole, Manifest};
pub use port::{
    Capacity, CheckText, Checking, Computation, Compute, Device, Embed, Embedding, Embeddings,
    Engine, Generate, Generation, Hardware, MAX_AHEAD, MAX_PROMPT_BYTES, MAX_STOP_BYTES,
    MAX_STOP_STRINGS, MAX_TENSOR_BYTES, MAX_TEXTS, ModelInfo, Score, Scoring, Standing, Step,
};
pub use scripted::{Fault, Script, ScriptedEngine};
pub use torch::{Options, TorchEngine};
