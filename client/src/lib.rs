//! Buys inference on the market: the library under `infernet-client`.
//!
//! ```no_run
//! # async fn ask() -> Result<(), infernet_client::Error> {
//! use infernet_client::{Client, Options, Request};
//!
//! let client = Client::connect(Options::new(["ws://127.0.0.1:7777"])).await?;
//! let mut answer = client.submit(Request::chat("SmolLM2-135M-Instruct", "Hello")).await?;
//! while let Some(text) = answer.next().await? {
//!     print!("{text}");
//! }
//! let summary = answer.finish().await?;
//! eprintln!("{} tokens from {}", summary.output_tokens, summary.provider_name);
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//! A [`Client`] holds one link to the relays, one subscription for everything that is addressed to it, and the
//! market as its providers announce it. Each job has a driver of its own, a task that does what
//! [`infernet_protocol::job::buyer::Job`] says: it signs awards, checks what comes back, asks again, falls over.
//! Dropping an [`Answer`] stops its job, and the provider is told.
//!
//! # What holds
//! - Nothing is published before the request has passed every check that can be made here.
//! - What an [`Answer`] gives was signed by the provider of the attempt that was current, and came once, in order.
//! - A prompt and an answer are in memory only: no log and no file of ours holds them.

mod answer;
pub mod audit;
pub mod batch;
pub mod checking;
mod client;
mod control;
mod error;
mod evidence;
pub mod history;
mod late;
mod market;
mod options;
mod payout;
pub mod price;
pub mod purse;
pub mod record;
mod request;
mod routing;
mod submit;

pub use answer::{Answer, Outcome, Step, Summary};
pub use client::Client;
pub use error::Error;
pub use evidence::Evidence;
pub use late::{Brought, Found};
pub use market::Provider;
pub use options::Options;
pub use request::{DEFAULT_DEADLINE, DEFAULT_MAX_TOKENS, Request, Route};
