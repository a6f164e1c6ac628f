//! What a caller wants done.

use std::time::Duration;

use infernet_protocol::bounds::{MAX_NAME_BYTES, MAX_SAFE_INTEGER};
use infernet_protocol::event::{Checkers, JobResult, Limits};
use infernet_protocol::inference::{Message, Prompt, Role, Sampling, Task};
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::payload::{Check, Generate, Input, Payload, Work};
use infernet_protocol::seal::Salt;
use infernet_protocol::tensor::{self, Tensor};
use infernet_protocol::verification::Thresholds;

use crate::Error;

/// Tokens an answer may have unless the caller says otherwise.
pub const DEFAULT_MAX_TOKENS: u32 = 256;

/// How long a job may take unless the caller says otherwise.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(120);

/// The longest deadline: an award that is open for longer is an award forgotten.
const MAX_DEADLINE: Duration = Duration::from_secs(24 * 3_600);

/// Bytes of text that make a token, in the buyer's guess. Fewer than English needs (4), so that the guess is
/// rather too high.
const BYTES_PER_TOKEN: usize = 3;

/// Tokens that a chat template puts around a message, in the buyer's guess.
const TOKENS_AROUND_MESSAGE: usize = 8;

/// Tokens that a chat template says before and behind all messages: many bring a system text of their own. A paid
/// award bounds the input by the guess, so one that is too low is declined.
const TOKENS_AROUND_CHAT: usize = 48;

/// Tokens that stand around a text of its own: a begin and an end.
const TOKENS_AROUND_TEXT: usize = 2;

/// How a job finds its provider.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Route {
    /// An award to the best-ranked announcement, at once. Others stand in if it fails.
    #[default]
    Direct,
    /// An offer, bids, and an award to the best of them.
    Auction,
    /// An award to this provider.
    To {
        /// Its name, or its public key as npub or hex.
        provider: String,
        /// Whether nobody may stand in for it.
        only: bool,
    },
}

/// One job that a caller wants done.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// A model's name or the hash of its manifest; none for the best-ranked provider's.
    pub model: Option<String>,
    /// The work, with no prefix.
    pub work: Work,
    /// The highest price that is acceptable.
    pub max_price: Price,
    /// The most that the job may cost, failovers counted in; none for whatever the price makes of it. What is paid
    /// ahead on a tab may be more: it stays there for the next job.
    pub max_cost: Option<Msat>,
    /// How long the job may take, failovers included.
    pub deadline: Duration,
    /// How to find a provider.
    pub route: Route,
    /// Whether the result is to carry proofs of how it was computed, for a checker.
    pub prove: bool,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// Whether an attempt that brought a result is attested. Who checks results attests after that, by itself; who
    /// failed or fell silent is attested in any case.
    pub attest: bool,
}

impl Request {
    /// One message to a chat model.
    pub fn chat(model: impl Into<String>, message: impl Into<String>) -> Self {
        let message = Message {
            role: Role::User,
            content: message.into(),
        };
        Self::generate(Some(model.into()), Prompt::Chat(vec![message]))
    }

    /// A text to be continued as it stands.
    pub fn text(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self::generate(Some(model.into()), Prompt::Text(text.into()))
    }

    /// Any prompt to a model, or to whichever the best-ranked provider sells. The answer has at most
    /// [`DEFAULT_MAX_TOKENS`], takes the most probable token each time (temperature 0, so that the same prompt gives
    /// the same text), and has a random seed for when the temperature is raised.
    pub fn generate(model: Option<String>, prompt: Prompt) -> Self {
        let sampling = Sampling {
            seed: rand::random_range(0..=MAX_SAFE_INTEGER),
            ..Sampling::default()
        };
        Self::of(
            model,
            Work::TextGeneration(Generate {
                prompt,
                sampling,
                max_tokens: DEFAULT_MAX_TOKENS,
                stop: Vec::new(),
                prefix: Vec::new(),
            }),
        )
    }

    /// A vector for each of these texts.
    pub fn embedding(
        model: Option<String>,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let texts = texts.into_iter().map(Into::into).collect();
        Self::of(model, Work::Embedding { texts })
    }

    /// What a module gives for these inputs.
    pub fn tensors(model: impl Into<String>, inputs: impl IntoIterator<Item = Tensor>) -> Self {
        let inputs = inputs.into_iter().collect();
        Self::of(Some(model.into()), Work::Tensors { inputs })
    }

    /// Several texts of one model, in one go: a shard of a batch. They are not streamed.
    pub fn shard(model: impl Into<String>, requests: impl IntoIterator<Item = Generate>) -> Self {
        let requests = requests.into_iter().collect();
        Self::of(Some(model.into()), Work::Shard { requests })
    }

    /// Verdicts on results of one model, by these thresholds.
    pub fn verify(
        model: impl Into<String>,
        checks: impl IntoIterator<Item = Check>,
        thresholds: Thresholds,
    ) -> Self {
        let checks = checks.into_iter().collect();
        Self::of(Some(model.into()), Work::Verify { checks, thresholds })
    }

    const fn of(model: Option<String>, work: Work) -> Self {
        Self {
            model,
            work,
            max_price: Price::FREE,
            max_cost: None,
            deadline: DEFAULT_DEADLINE,
            route: Route::Direct,
            prove: false,
            checkers: Checkers::Nobody,
            attest: true,
        }
    }

    /// With instructions that stand over the chat; nothing changes for other work.
    #[must_use]
    pub fn system(mut self, instructions: impl Into<String>) -> Self {
        if let Work::TextGeneration(Generate {
            prompt: Prompt::Chat(messages),
            ..
        }) = &mut self.work
        {
            let message = Message {
                role: Role::System,
                content: instructions.into(),
            };
            messages.insert(0, message);
        }
        self
    }

    /// With at most this many tokens of answer.
    #[must_use]
    pub fn max_tokens(mut self, max_tokens: u32) -> Self {
        if let Work::TextGeneration(generate) = &mut self.work {
            generate.max_tokens = max_tokens;
        }
        self
    }

    /// With tokens drawn at this temperature, 0 to 2.
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> Self {
        if let Work::TextGeneration(generate) = &mut self.work {
            generate.sampling.temperature = temperature;
        }
        self
    }

    /// With this seed, at most 2⁵³ − 1.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        if let Work::TextGeneration(generate) = &mut self.work {
            generate.sampling.seed = seed;
        }
        self
    }

    /// At this price at most.
    #[must_use]
    pub const fn max_price(mut self, price: Price) -> Self {
        self.max_price = price;
        self
    }

    /// For this much at most, failovers counted in.
    #[must_use]
    pub const fn max_cost(mut self, most: Msat) -> Self {
        self.max_cost = Some(most);
        self
    }

    /// By this route.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.route = route;
        self
    }

    /// With proofs of how the result was computed.
    #[must_use]
    pub const fn prove(mut self) -> Self {
        self.prove = true;
        self
    }

    /// To be checked by these at most.
    #[must_use]
    pub const fn checkers(mut self, checkers: Checkers) -> Self {
        self.checkers = checkers;
        self
    }

    /// Within this time, failovers included.
    #[must_use]
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Which task this is.
    pub const fn task(&self) -> Task {
        self.work.task()
    }

    /// Refuses what no provider could do, before anything is published. `most` is how many bytes an input may have.
    pub(crate) fn validate(&self, most: usize) -> Result<(), Error> {
        let input = Input {
            salt: Salt::from_bytes([0; 32]),
            work: self.work.clone(),
            prove: self.prove,
        };
        let invalid = |reason: &str| Err(Error::Invalid(reason.to_owned()));
        if self.deadline.is_zero() || self.deadline > MAX_DEADLINE {
            return invalid("the deadline is 0 or more than a day");
        }
        if matches!(&self.model, Some(name) if name.is_empty() || name.len() > MAX_NAME_BYTES) {
            return invalid("the model's name is empty or too long");
        }
        input
            .validate()
            .map_err(|e| Error::Invalid(e.to_string()))?;
        match input.to_bytes().len() {
            bytes if bytes > most => Err(Error::TooLarge { bytes, most }),
            _ => Ok(()),
        }
    }

    /// The size of the work, as far as it can be guessed without the model's tokenizer.
    pub fn limits(&self) -> Limits {
        size_of(&self.work)
    }

    /// Tokens the answer may have; 0 for work that is not streamed.
    pub(crate) const fn max_output(&self) -> u32 {
        match &self.work {
            Work::TextGeneration(generate) => generate.max_tokens,
            Work::Embedding { .. }
            | Work::Tensors { .. }
            | Work::Shard { .. }
            | Work::Verify { .. } => 0,
        }
    }
}

/// The size of work, as far as it can be guessed without the model's tokenizer.
pub(crate) fn size_of(work: &Work) -> Limits {
    Limits {
        input_tokens: guess_tokens(work),
        output_tokens: match work {
            Work::TextGeneration(generate) => generate.max_tokens,
            Work::Shard { requests } => drawn_at_most(requests),
            Work::Embedding { .. } | Work::Tensors { .. } | Work::Verify { .. } => 0,
        },
    }
}

/// Tokens that the answers of a shard may have.
fn drawn_at_most(requests: &[Generate]) -> u32 {
    let most = requests.iter().map(|request| u64::from(request.max_tokens));
    u32::try_from(most.sum::<u64>()).unwrap_or(u32::MAX)
}

fn guess_tokens(work: &Work) -> u32 {
    let tokens = match work {
        Work::TextGeneration(generate) => guess_prompt(&generate.prompt),
        Work::Shard { requests } => {
            let prompts = requests.iter().map(|request| &request.prompt);
            prompts.map(guess_prompt).sum()
        }
        // What a checker reads again: as many tokens as the results say.
        Work::Verify { checks, .. } => return tokens_to_check(checks),
        Work::Embedding { texts } => {
            let texts = texts.iter();
            texts
                .map(|text| guess_text(text) + TOKENS_AROUND_TEXT)
                .sum()
        }
        // No guess: this is how they are counted.
        Work::Tensors { inputs } => {
            return u32::try_from(tensor::tokens(inputs)).unwrap_or(u32::MAX);
        }
    };
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

fn guess_prompt(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Chat(messages) => {
            let of_all = messages.iter().map(|message| guess_text(&message.content));
            TOKENS_AROUND_CHAT + of_all.map(|of| of + TOKENS_AROUND_MESSAGE).sum::<usize>()
        }
        Prompt::Text(text) => guess_text(text) + TOKENS_AROUND_TEXT,
    }
}

const fn guess_text(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

fn tokens_to_check(checks: &[Check]) -> u32 {
    let results = checks.iter().map(|check| &check.result.content);
    let usage = results.filter_map(|text| serde_json::from_str::<JobResult>(text).ok());
    let tokens = usage.map(|result| {
        let usage = result.usage;
        usage.input_tokens.saturating_add(usage.output_tokens)
    });
    u32::try_from(tokens.fold(0_u64, u64::saturating_add)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::bounds::MAX_PAYLOAD_BYTES;

    use super::*;

    #[test]
    fn a_sane_request_passes() {
        Request::chat("m", "Hello")
            .system("Be brief")
            .validate(MAX_PAYLOAD_BYTES)
            .unwrap();
        Request::embedding(None, ["a", "b"])
            .validate(MAX_PAYLOAD_BYTES)
            .unwrap();
    }

    #[test]
    fn what_no_provider_could_do_is_refused() {
        let refused = [
            Request::chat("", "Hello"),
            Request::chat("m", "Hello").max_tokens(0),
            Request::chat("m", "Hello").temperature(f32::NAN),
            Request::chat("m", "Hello").seed(u64::MAX),
            Request::chat("m", "Hello").deadline(Duration::ZERO),
            Request::text("m", ""),
            Request::embedding(None, Vec::<String>::new()),
        ];
        for request in refused {
            let refusal = request.validate(MAX_PAYLOAD_BYTES).unwrap_err();
            assert!(matches!(refusal, Error::Invalid(_)), "{refusal}");
        }
    }

    #[test]
    fn an_input_over_the_bound_is_refused_and_one_at_the_bound_is_not() {
        let empty = Request::text("m", "x");
        let around = Input {
            salt: Salt::from_bytes([0; 32]),
            work: empty.work,
            prove: false,
        };
        // The seed is the only part whose length varies.
        let room = MAX_PAYLOAD_BYTES - around.to_bytes().len();
        let fits = Request::text("m", "x".repeat(room)).seed(1);
        fits.validate(MAX_PAYLOAD_BYTES).unwrap();
        let more = Request::text("m", "x".repeat(room + 20)).seed(1);
        assert!(matches!(
            more.validate(MAX_PAYLOAD_BYTES),
            Err(Error::TooLarge { .. })
        ));
    }

    #[test]
    fn tokens_are_guessed_rather_too_high() {
        let limits = Request::chat("m", "abcdef").limits();
        assert_eq!((limits.input_tokens, limits.output_tokens), (58, 256));
        let limits = Request::embedding(None, ["abc", "abcd"]).limits();
        assert_eq!((limits.input_tokens, limits.output_tokens), (7, 0));
    }

    #[test]
    fn every_request_has_a_seed_of_its_own() {
        let seed = |request: Request| match request.work {
            Work::TextGeneration(generate) => generate.sampling.seed,
            _ => unreachable!("it is a chat"),
        };
        let first = seed(Request::chat("m", "Hello"));
        assert_ne!(first, seed(Request::chat("m", "Hello")));
        assert!(first <= MAX_SAFE_INTEGER);
    }
}
