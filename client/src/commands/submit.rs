//! `submit`: ask a model.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use infernet_client::{Outcome, Request};
use infernet_protocol::bounds::MAX_BLOB_PAYLOAD_BYTES;
use infernet_protocol::inference::{Message, Prompt, Role};
use infernet_protocol::payload::Work;
use serde::Serialize;
use serde_json::json;

use super::batch::Who;
use super::terminal::{Terminal, speed_of};
use super::work::{Finished, Terms, run};
use super::{Exit, Misunderstood, Place, print_json};

/// The most that is read from a file or from standard input: what a job carries.
const MAX_READ_BYTES: u64 = MAX_BLOB_PAYLOAD_BYTES as u64;

/// Ask a model
#[derive(Debug, clap::Args)]
pub struct Submit {
    /// The prompt; - or nothing reads standard input
    prompt: Vec<String>,

    /// Read the prompt from a file
    #[arg(long, short, value_name = "PATH", conflicts_with = "prompt")]
    file: Option<PathBuf>,

    /// Instructions that stand over the chat
    #[arg(long, short, value_name = "TEXT")]
    system: Option<String>,

    /// Let the model continue the prompt as it stands, without its chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,

    /// Tokens the answer may have [default: 256]
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true)]
    max_tokens: Option<u32>,

    /// How freely tokens are drawn, 0 to 2; 0 always takes the most probable one [default: 0]
    #[arg(long, short, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,

    /// Draw from the most probable tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,

    /// Draw from this many of the most probable tokens
    #[arg(long, value_name = "K", allow_negative_numbers = true)]
    top_k: Option<u32>,

    /// The seed of the draw, so that it can be repeated [default: a random one]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,

    /// End the answer before this text; several if given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Ask for proofs of how the answer was computed, for a sharper check (infernet-client verify)
    #[arg(long)]
    prove: bool,

    /// Who may see the work to check it
    #[arg(long, value_enum, default_value_t = Who::Nobody)]
    checkers: Who,

    #[command(flatten)]
    terms: Terms,
}

impl Submit {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let request = self.request(&place)?;
        let client = place.paying_client().await?;
        let history = place.history().await?;
        let mut terminal = Terminal::new(!self.terms.json);
        let finished = run(&client, &history, request, &mut terminal).await;
        client.close().await;
        history.close().await;
        end(finished?, &mut terminal, self.terms.json)
    }

    fn request(&self, place: &Place) -> anyhow::Result<Request> {
        let defaults = &place.settings.defaults;
        let text = self.text()?;
        let model = self.terms.model.clone().or_else(|| defaults.model.clone());
        let prompt = match self.raw {
            true => Prompt::Text(text),
            false => Prompt::Chat(self.chat(text, defaults.system.clone())),
        };
        let mut request = Request::generate(model, prompt);
        if let Work::TextGeneration(generate) = &mut request.work {
            generate.max_tokens = self
                .max_tokens
                .or(defaults.max_tokens)
                .unwrap_or(generate.max_tokens);
            let sampling = &mut generate.sampling;
            sampling.temperature = self
                .temperature
                .or(defaults.temperature)
                .unwrap_or(sampling.temperature);
            sampling.top_p = self.top_p.unwrap_or(sampling.top_p);
            sampling.top_k = self.top_k.unwrap_or(sampling.top_k);
            sampling.seed = self.seed.unwrap_or(sampling.seed);
            generate.stop.clone_from(&self.stop);
        }
        request.prove = self.prove;
        request.checkers = self.checkers.into();
        self.terms.lay_over(&mut request, place);
        Ok(request)
    }

    fn chat(&self, text: String, system: Option<String>) -> Vec<Message> {
        let system = self.system.clone().or(system).map(|content| Message {
            role: Role::System,
            content,
        });
        let user = Message {
            role: Role::User,
            content: text,
        };
        system.into_iter().chain([user]).collect()
    }

    fn text(&self) -> anyhow::Result<String> {
        let words = self.prompt.join(" ");
        let text = match &self.file {
            Some(path) => read_file(path)?,
            None if words == "-" => read_input()?,
            None if words.is_empty() && io::stdin().is_terminal() => {
                let how = "what should be asked? infernet-client submit \"Why is the sky blue?\"";
                return Err(Misunderstood(how.into()).into());
            }
            None if words.is_empty() => read_input()?,
            None => words,
        };
        match text.trim().is_empty() {
            true => Err(Misunderstood("the prompt is empty".into()).into()),
            false => Ok(text),
        }
    }
}

/// What a file holds.
pub fn read_file(path: &PathBuf) -> anyhow::Result<String> {
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    read(file, &path.display().to_string())
}

/// What standard input holds.
pub fn read_input() -> anyhow::Result<String> {
    read(io::stdin().lock(), "standard input")
}

fn read(from: impl Read, what: &str) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(MAX_READ_BYTES + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {what}"))?;
    ensure!(
        bytes.len() as u64 <= MAX_READ_BYTES,
        "{what} holds more than the {MAX_READ_BYTES} bytes that one job carries: make it shorter, or split it"
    );
    String::from_utf8(bytes).map_err(|_| anyhow!("{what} is not UTF-8 text"))
}

/// Tells how the job ended, and answers the exit code.
fn end(finished: Finished, terminal: &mut Terminal, as_json: bool) -> anyhow::Result<Exit> {
    // A closed standard output is no reason to fail.
    let _ = terminal.finish();
    if as_json {
        print_json(&object(&finished))?;
    }
    match finished.outcome {
        Ok(summary) => {
            terminal.say(&speed_of(&summary));
            Ok(Exit::Done)
        }
        Err(error) => Err(error.into()),
    }
}

/// The one object of `--json`.
pub fn object(finished: &Finished) -> serde_json::Value {
    fn with_status(status: &str, value: impl Serialize) -> serde_json::Value {
        let mut value = serde_json::to_value(value).unwrap_or_default();
        value["status"] = status.into();
        value
    }
    match &finished.outcome {
        Outcome::Ok(summary) => with_status("done", summary),
        Outcome::Err(error) => {
            let status = match error {
                infernet_client::Error::Stopped => "stopped",
                _ => "failed",
            };
            with_status(
                status,
                json!({
                    "job": finished.job,
                    "error": error.to_string(),
                    "charged_msat": finished.moved.charged,
                    "paid_msat": finished.moved.paid,
                }),
            )
        }
    }
}
