//! An engine that computes nothing: it says a given text, at a given speed,
//! and misbehaves on demand. For tests and for load.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use half::bf16;
use infernet_protocol::inference::{Dtype, EndReason, ModelId, Prompt, Task, TokenId};
use infernet_protocol::tensor::{Element, Interface, Slot, Tensor, arrange};
use infernet_protocol::verification::TextFigures;
use tokio::sync::oneshot;

use crate::check::{self, Findings};
use crate::detokenizer::Detokenizer;
use crate::error::Error;
use crate::manifest::{Digest, File, FileRole, Manifest};
use crate::port::{
    Capacity, CheckText, Checking, Computation, Compute, Device, Embed, Embedding, Embeddings,
    Engine, Generate, Generation, Hardware, ModelInfo, Step, Steps, validate_prompt,
};
use crate::proof::Prover;
use crate::sampling::Margin;
use crate::telling::Vocabulary;

/// How often one that waits looks whether it was cancelled.
const GLANCE: Duration = Duration::from_millis(5);
/// The length of its vectors.
const EMBEDDING_WIDTH: u32 = 8;
/// The width of the states that it proves.
const STATE_WIDTH: usize = 128;

/// What a scripted engine says and how.
#[derive(Debug, Clone)]
pub struct Script {
    /// The name of its text model; `{name}-embed` makes vectors, and
    /// `{name}-sum` is a module. Engines with the same name and text have the
    /// same models.
    pub name: String,
    /// The whole answer to every prompt. Its tokens are its words, each with
    /// the white space before it.
    pub text: String,
    /// How fast it says it.
    pub tokens_per_second: f64,
    /// How much prompt and answer together may have, in tokens.
    pub context: u32,
    /// How many generations run at once; more are [`Error::Busy`].
    pub capacity: usize,
    /// What it does wrong from the beginning.
    pub fault: Fault,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            name: "scripted".into(),
            text:
                "The sea is wide and the sky is high, and between them a small boat goes its way."
                    .into(),
            tokens_per_second: 200.0,
            context: 4096,
            capacity: 4,
            fault: Fault::None,
        }
    }
}

/// What a scripted engine does wrong. Answer tokens are counted from the
/// request's own first one, without its prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Refuses every request as busy.
    Refuse,
    /// Fails after this many tokens.
    FailAfter(u32),
    /// Says nothing more after this many tokens, and does not end.
    StallAfter(u32),
    /// Says other tokens than the script's after this many.
    WrongAfter(u32),
}

/// The engine that follows a [`Script`].
pub struct ScriptedEngine {
    script: Arc<Script>,
    models: Vec<ModelInfo>,
    fault: Mutex<Fault>,
    running: Arc<AtomicUsize>,
}

impl ScriptedEngine {
    /// An engine with a text model, an embedding model and a module.
    pub fn new(script: Script) -> Self {
        let text = model(&script, &script.name, Task::TextGeneration);
        let embedding = model(&script, &format!("{}-embed", script.name), Task::Embedding);
        let module = model(&script, &format!("{}-sum", script.name), Task::Tensors);
        Self {
            fault: Mutex::new(script.fault),
            script: Arc::new(script),
            models: vec![text, embedding, module],
            running: Arc::default(),
        }
    }

    /// Changes what it does wrong, for requests from now on.
    pub fn set_fault(&self, fault: Fault) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expect(&self, id: &ModelId, task: Task) -> Result<(), Error> {
        let known = self.models.iter().find(|model| model.id == *id);
        match known.ok_or(Error::UnknownModel(*id))?.task {
            found if found == task => Ok(()),
            found => Err(Error::WrongTask {
                model: *id,
                task: found,
            }),
        }
    }

    /// Takes one of the places, which the guard gives back.
    fn admit(&self) -> Result<Place, Error> {
        if self.fault() == Fault::Refuse {
            return Err(Error::Busy);
        }
        let place = Place(Arc::clone(&self.running));
        match self.running.fetch_add(1, Ordering::SeqCst) < self.script.capacity {
            true => Ok(place),
            false => Err(Error::Busy), // dropping the place gives it back
        }
    }
}

/// One of the generations that may run at once.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn model(script: &Script, name: &str, task: Task) -> ModelInfo {
    let manifest = Manifest {
        architecture: "scripted".into(),
        chat_template: None,
        context: script.context,
        end_tokens: vec![words(&script.text).count() as TokenId],
        files: vec![File {
            role: FileRole::Weights,
            sha256: Digest::of(format!("{name}\n{}", script.text).as_bytes()),
        }],
        task,
    };
    ModelInfo {
        id: manifest.id(),
        name: name.to_owned(),
        task,
        architecture: manifest.architecture,
        context: script.context,
        dtype: Dtype::Scripted,
        parameters: 0,
        embedding_width: (task == Task::Embedding).then_some(EMBEDDING_WIDTH),
        interface: (task == Task::Tensors).then(interface),
    }
}

/// Of the module that adds bytes up.
fn interface() -> Interface {
    let slot = |name: &str, dtype, shape: &[i64]| Slot {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    Interface {
        label: "sum".into(),
        inputs: vec![slot("numbers", Element::U8, &[-1])],
        outputs: vec![slot("sum", Element::I64, &[])],
    }
}

/// The sum of all bytes, or one more.
fn sum(inputs: &[Tensor], wrong: bool) -> Vec<Tensor> {
    let bytes = inputs.iter().flat_map(|tensor| &tensor.data);
    let sum = bytes.map(|&byte| i64::from(byte)).sum::<i64>() + i64::from(wrong);
    vec![Tensor {
        name: "sum".into(),
        dtype: Element::I64,
        shape: vec![],
        data: sum.to_le_bytes().to_vec(),
    }]
}

/// A text's tokens: its words, each with the white space before it; white
/// space at the end is one too.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let word = rest
            .find(|c: char| !c.is_whitespace())
            .unwrap_or(rest.len());
        let length = rest[word..].find(char::is_whitespace);
        let (token, after) = rest.split_at(length.map_or(rest.len(), |length| word + length));
        rest = after;
        Some(token)
    })
}

fn count(text: &str) -> u32 {
    u32::try_from(words(text).count()).unwrap_or(u32::MAX)
}

fn count_prompt(prompt: &Prompt) -> u32 {
    match prompt {
        Prompt::Text(text) => count(text),
        // One more for each message's mark.
        Prompt::Chat(messages) => messages
            .iter()
            .map(|message| count(&message.content).saturating_add(1))
            .fold(0, u32::saturating_add),
    }
}

impl Engine for ScriptedEngine {
    fn models(&self) -> &[ModelInfo] {
        &self.models
    }

    fn hardware(&self) -> Hardware {
        Hardware {
            device: Device::Cpu,
            name: "scripted".into(),
            memory_mib: 0,
            threads: 1,
        }
    }

    fn capacity(&self, model: &ModelId) -> Option<Capacity> {
        let known = self.models.iter().any(|known| known.id == *model);
        known.then_some(Capacity {
            slots: u32::try_from(self.script.capacity).unwrap_or(u32::MAX),
            cache_tokens: 0,
            cache_bytes: 0,
        })
    }

    fn version(&self) -> &str {
        concat!("infernet-engine/", env!("CARGO_PKG_VERSION"), " scripted")
    }

    fn count_tokens(&self, model: &ModelId, prompt: &Prompt) -> Result<u32, Error> {
        if !self.models.iter().any(|known| known.id == *model) {
            return Err(Error::UnknownModel(*model));
        }
        validate_prompt(prompt)?;
        Ok(count_prompt(prompt))
    }

    fn generate(&self, request: Generate) -> Result<Generation, Error> {
        self.expect(&request.model, Task::TextGeneration)?;
        request.validate()?;
        let input_tokens = count_prompt(&request.prompt);
        let context = self.script.context;
        if input_tokens >= context {
            return Err(Error::PromptTooLong {
                tokens: input_tokens,
                context,
            });
        }
        let place = self.admit()?;
        let longest = request.max_tokens.min(context - input_tokens) as usize;
        let (steps, generation) = Generation::channel();
        let mut recital = Recital {
            script: Arc::clone(&self.script),
            fault: self.fault(),
            detokenizer: Detokenizer::new(request.stop, false),
            position: 0,
            longest,
            prover: request.prove.then(Prover::default),
            steps,
        };
        thread::spawn(move || {
            recital.steps.send(Step::Started { input_tokens });
            let last = recital.run(&request.prefix);
            // The reader of the last step may ask for the place at once.
            drop(place);
            recital.steps.send(last);
        });
        Ok(generation)
    }

    fn embed(&self, request: Embed) -> Result<Embedding, Error> {
        self.expect(&request.model, Task::Embedding)?;
        request.validate()?;
        let _place = self.admit()?;
        let (result, embedding) = Embedding::channel();
        let answer = match self.fault() {
            Fault::FailAfter(_) => Err(Error::Computation("as scripted".into())),
            Fault::StallAfter(_) => {
                stall(result, ());
                return Ok(embedding);
            }
            fault => Ok(embeddings(
                &request.texts,
                matches!(fault, Fault::WrongAfter(_)),
            )),
        };
        // The reader is in our hand: it cannot have gone.
        let _ = result.send(answer);
        Ok(embedding)
    }

    fn compute(&self, request: Compute) -> Result<Computation, Error> {
        self.expect(&request.model, Task::Tensors)?;
        request.validate()?;
        arrange(&interface().inputs, &request.inputs)
            .map_err(|misfit| Error::InvalidTensors(misfit.to_string()))?;
        let _place = self.admit()?;
        let (result, computation) = Computation::channel();
        let answer = match self.fault() {
            Fault::FailAfter(_) => Err(Error::Computation("as scripted".into())),
            Fault::StallAfter(_) => {
                stall(result, ());
                return Ok(computation);
            }
            fault => Ok(sum(&request.inputs, matches!(fault, Fault::WrongAfter(_)))),
        };
        let _ = result.send(answer);
        Ok(computation)
    }

    fn check(&self, request: CheckText) -> Result<Checking, Error> {
        self.expect(&request.model, Task::TextGeneration)?;
        request.validate()?;
        let _place = self.admit()?;
        let (steps, result, checking) = Checking::channel();
        let read = match self.fault() {
            Fault::FailAfter(_) => Err(Error::Computation("as scripted".into())),
            Fault::StallAfter(_) => {
                stall(result, steps);
                return Ok(checking);
            }
            fault => read(
                &self.script,
                &request,
                matches!(fault, Fault::WrongAfter(_)),
            ),
        };
        match read {
            Ok(figures) => {
                let _ = result.send(figures);
                steps.send(Step::Ended {
                    reason: EndReason::Length,
                    text: String::new(),
                    proof: None,
                });
            }
            Err(error) => steps.send(Step::Failed(error)),
        }
        Ok(checking)
    }
}

/// The words of a script as tokens; the one after the last ends an answer.
struct Lexicon<'a>(Vec<&'a str>);

impl Vocabulary for Lexicon<'_> {
    fn has(&self, token: TokenId) -> bool {
        token as usize <= self.0.len()
    }

    fn is_end(&self, token: TokenId) -> bool {
        token as usize == self.0.len()
    }

    fn bytes(&self, token: TokenId) -> Vec<u8> {
        let word = self.0.get(token as usize);
        word.map_or(Vec::new(), |word| word.as_bytes().to_vec())
    }
}

/// Checks an answer: only the script's own is right. With `wrong`, only another is.
fn read(script: &Script, request: &CheckText, wrong: bool) -> Result<TextFigures, Error> {
    let lexicon = Lexicon(words(&script.text).collect());
    let prompt = count_prompt(&request.prompt) as usize;
    let fault = check::find_fault(request, &lexicon, false, prompt, script.context as usize)?;
    if fault.is_some() {
        return Ok(check::only(request, fault));
    }
    let mut findings = Findings::new(request);
    let first = request.prefix.len();
    for (position, &token) in (first..).zip(&request.answer.tokens) {
        let is_next = (token as usize == position) != wrong;
        let margin = Margin {
            kept: true,
            logits: if is_next { 0.0 } else { f64::INFINITY },
        };
        findings.push(margin, Some(&state(script, position, wrong)));
    }
    Ok(findings.finish())
}

/// The state that a script's token is drawn from: numbers of that order of magnitude,
/// the same for the same script and place.
fn state(script: &Script, position: usize, wrong: bool) -> Vec<bf16> {
    let number = |place| {
        let mut hasher = DefaultHasher::new();
        (&script.name, &script.text, position, wrong, place).hash(&mut hasher);
        let fraction = (hasher.finish() % 20_000) as f32 / 10_000.0 - 1.0;
        bf16::from_f32(fraction * 8.0)
    };
    (0..STATE_WIDTH).map(number).collect()
}

/// Answers nothing until the reader has gone, and keeps what it would hear the end of.
fn stall<T: Send + 'static>(result: oneshot::Sender<T>, kept: impl Send + 'static) {
    thread::spawn(move || {
        while !result.is_closed() {
            thread::sleep(GLANCE);
        }
        drop(kept);
    });
}

/// Vectors of length 1 that depend on the texts alone.
fn embeddings(texts: &[String], wrong: bool) -> Embeddings {
    let vector = |text: &String| {
        let numbers = (0..EMBEDDING_WIDTH).map(|place| {
            let mut hasher = DefaultHasher::new();
            (text, place, wrong).hash(&mut hasher);
            (hasher.finish() % 2000) as f32 / 1000.0 - 1.0
        });
        let numbers: Vec<f32> = numbers.collect();
        let length = numbers.iter().map(|n| n * n).sum::<f32>().sqrt().max(1e-6);
        numbers.iter().map(|n| n / length).collect()
    };
    Embeddings {
        vectors: texts.iter().map(vector).collect(),
        input_tokens: texts
            .iter()
            .map(|text| count(text))
            .fold(0, u32::saturating_add),
    }
}

/// One answer of a scripted engine.
struct Recital {
    script: Arc<Script>,
    fault: Fault,
    detokenizer: Detokenizer,
    /// Tokens of the answer so far.
    position: usize,
    longest: usize,
    prover: Option<Prover>,
    steps: Steps,
}

impl Recital {
    /// Gives all steps but the last, which it answers.
    fn run(&mut self, prefix: &[TokenId]) -> Step {
        let script = Arc::clone(&self.script);
        let words: Vec<&str> = words(&script.text).collect();
        for &id in prefix {
            if self.position > words.len() || id as usize > words.len() {
                return Step::Failed(Error::InvalidPrefix("it is not of this script"));
            }
            self.say(&words, id as usize);
        }
        let pause = Duration::try_from_secs_f64(1.0 / self.script.tokens_per_second);
        let pause = pause.unwrap_or(Duration::ZERO);
        for said in 0.. {
            if let Some(reason) = self.ended(&words) {
                return self.end(reason);
            }
            match self.fault {
                Fault::FailAfter(after) if said >= after => {
                    return Step::Failed(Error::Computation("as scripted".into()));
                }
                Fault::StallAfter(after) if said >= after => {
                    self.wait(Duration::MAX);
                    return self.end(EndReason::Cancelled);
                }
                _ => {}
            }
            if !self.wait(pause) {
                return self.end(EndReason::Cancelled);
            }
            while self.steps.is_ahead() {
                thread::sleep(GLANCE / 5);
            }
            let wrong = matches!(self.fault, Fault::WrongAfter(after) if said >= after);
            let token = match wrong && self.position < words.len() {
                true => words.len() - 1 - self.position,
                false => self.position,
            };
            if let Some(prover) = &mut self.prover {
                prover.push(&state(&script, self.position, wrong));
            }
            let text = self.say(&words, token);
            self.steps.send(Step::Token {
                id: token as TokenId,
                text,
            });
        }
        self.end(EndReason::Length)
    }

    /// Adds a token to the answer; the one after the last word is the end.
    fn say(&mut self, words: &[&str], token: usize) -> String {
        self.position += 1;
        match words.get(token) {
            Some(word) => self.detokenizer.push(word.as_bytes()),
            None => String::new(),
        }
    }

    fn ended(&self, words: &[&str]) -> Option<EndReason> {
        if self.position > words.len() || self.detokenizer.is_stopped() {
            return Some(EndReason::Stop);
        }
        (self.position >= self.longest).then_some(EndReason::Length)
    }

    fn end(&mut self, reason: EndReason) -> Step {
        let text = self.detokenizer.finish();
        let proof = self.prover.take().map(Prover::finish);
        Step::Ended {
            reason,
            text,
            proof,
        }
    }

    /// Waits; `false` as soon as the reader wants no more.
    fn wait(&self, time: Duration) -> bool {
        let start = Instant::now();
        loop {
            if self.steps.is_cancelled() || self.steps.is_abandoned() {
                return false;
            }
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return true;
            }
            thread::sleep(left.min(GLANCE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_the_sum_of_its_words() {
        for text in ["", " ", "a", "a b", " a  b ", "a\n", "\n\n"] {
            let words: Vec<_> = words(text).collect();
            assert_eq!(words.concat(), text);
            assert!(words.iter().all(|word| !word.is_empty()));
        }
        assert_eq!(words("one two ").count(), 3);
    }
}
