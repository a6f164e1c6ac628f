//! The vectors of some texts. Those of all requests that run are computed
//! together, in batches of texts of like length; a request's turn decides which
//! are next, and others' texts fill its batch.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infernet_protocol::inference::TokenId;
use tch::Device;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::models::encoder::Encoder;
use crate::port::Embeddings;
use crate::tokenizer::Tokenizer;
use crate::worker::Job;

/// Tokens of one batch on a processor, padding counted in: more is not faster
/// there, and a request that is cancelled holds the machine for one batch.
const BATCH_TOKENS: usize = 512;
/// The same on a GPU, which is idle with less.
const BATCH_TOKENS_CUDA: usize = 16_384;

/// A model that makes vectors.
pub(super) struct EmbeddingModel {
    encoder: Box<Encoder>,
    tokenizer: Arc<Tokenizer>,
    context: usize,
    batch_tokens: usize,
    /// Texts that wait, the longest first.
    waiting: Mutex<Vec<Waiting>>,
}

/// A request, and where its vectors go.
pub(super) struct EmbeddingRequest {
    pub(super) texts: Vec<String>,
    pub(super) result: oneshot::Sender<Result<Embeddings, Error>>,
}

/// One text of a request.
struct Waiting {
    request: Arc<Ticket>,
    /// Which of the request's texts it is.
    place: usize,
    tokens: Vec<TokenId>,
}

/// One request on its way.
pub(super) struct Ticket(Mutex<Making>);

struct Making {
    vectors: Vec<Option<Vec<f32>>>,
    input_tokens: u32,
    /// Taken when the answer is sent.
    result: Option<oneshot::Sender<Result<Embeddings, Error>>>,
}

impl Ticket {
    /// Sends the answer, to whoever may still wait for it.
    fn answer(&self, answer: Result<Embeddings, Error>) {
        if let Some(result) = lock(&self.0).result.take() {
            let _ = result.send(answer);
        }
    }

    /// Was it answered, or has its reader gone?
    fn is_over(&self) -> bool {
        let making = lock(&self.0);
        making
            .result
            .as_ref()
            .is_none_or(oneshot::Sender::is_closed)
    }

    /// Puts a vector in its place, and answers when it was the last.
    fn put(&self, place: usize, vector: Vec<f32>) {
        if !vector.iter().all(|value| value.is_finite()) {
            let reason = "the model's vector is not finite";
            return self.answer(Err(Error::Computation(reason.into())));
        }
        let mut making = lock(&self.0);
        if let Some(slot) = making.vectors.get_mut(place) {
            *slot = Some(vector);
        }
        if making.vectors.iter().all(Option::is_some) {
            let done = Embeddings {
                vectors: making.vectors.drain(..).flatten().collect(),
                input_tokens: making.input_tokens,
            };
            drop(making);
            self.answer(Ok(done));
        }
    }
}

impl EmbeddingModel {
    pub(super) fn new(encoder: Box<Encoder>, tokenizer: Arc<Tokenizer>, context: usize) -> Self {
        let batch_tokens = match encoder.device() {
            Device::Cuda(_) => BATCH_TOKENS_CUDA,
            _ => BATCH_TOKENS,
        };
        Self {
            encoder,
            tokenizer,
            context,
            batch_tokens,
            waiting: Mutex::default(),
        }
    }

    /// The tokens of texts none of which is too long.
    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<TokenId>>, Error> {
        let encode = |text: &String| {
            let tokens = self.tokenizer.encode_text(text)?;
            match tokens.len() > self.context {
                true => Err(Error::PromptTooLong {
                    tokens: saturated(tokens.len()),
                    context: saturated(self.context),
                }),
                false => Ok(tokens),
            }
        };
        texts.iter().map(encode).collect()
    }

    /// Computes the request's longest texts, and others of like length.
    fn compute(&self, request: &Arc<Ticket>) -> Result<(), Error> {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|text| !text.request.is_over());
        let is_its = |text: &Waiting| Arc::ptr_eq(&text.request, request);
        let Some(first) = waiting.iter().position(is_its) else {
            return Ok(());
        };
        let lengths: Vec<usize> = waiting.iter().map(|text| text.tokens.len()).collect();
        let batch = batch(&lengths, first, self.batch_tokens);
        let vectors = self.vectors(&waiting[batch.clone()])?;
        // Only now: a batch that fails is tried again, text by text.
        for (text, vector) in waiting.drain(batch).zip(vectors) {
            match vector {
                Ok(vector) => text.request.put(text.place, vector),
                Err(error) => text.request.answer(Err(error)),
            }
        }
        Ok(())
    }

    /// The vectors of a batch. When it fails, that of each text by itself, so
    /// that no request fails for another's text.
    fn vectors(&self, batch: &[Waiting]) -> Result<Vec<Result<Vec<f32>, Error>>, Error> {
        let tokens: Vec<&[TokenId]> = batch.iter().map(|text| text.tokens.as_slice()).collect();
        match self.encoder.embed(&tokens) {
            Ok(vectors) => Ok(vectors.into_iter().map(Ok).collect()),
            Err(error) if batch.len() == 1 => Err(error.into()),
            Err(_) => Ok(tokens.iter().map(|text| self.vector(text)).collect()),
        }
    }

    fn vector(&self, text: &[TokenId]) -> Result<Vec<f32>, Error> {
        let vectors = self.encoder.embed(&[text])?;
        let none = || Error::Computation("the model made no vector".into());
        vectors.into_iter().next().ok_or_else(none)
    }
}

/// The texts from `first` on that run together, of lengths that descend: in all
/// at most so many tokens when padded to the first one's length, at most half of
/// each padding, and at least the first.
fn batch(lengths: &[usize], first: usize, most_tokens: usize) -> Range<usize> {
    let longest = lengths.get(first).copied().unwrap_or(0).max(1);
    let room = (most_tokens / longest).max(1);
    let like = lengths
        .iter()
        .skip(first)
        .take(room)
        .take_while(|&&length| 2 * length >= longest)
        .count();
    first..first + like
}

/// One thread computes, so nobody waits here; a panic there leaves all whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn saturated(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A request whose texts wait.
pub(super) struct EmbeddingJob(Arc<Ticket>);

impl Job for EmbeddingJob {
    type Model = EmbeddingModel;
    type Request = EmbeddingRequest;

    fn begin(model: &EmbeddingModel, request: EmbeddingRequest) -> Option<Self> {
        if request.result.is_closed() {
            return None;
        }
        let texts = match model.encode(&request.texts) {
            Ok(texts) => texts,
            Err(error) => {
                let _ = request.result.send(Err(error));
                return None;
            }
        };
        let ticket = Arc::new(Ticket(Mutex::new(Making {
            vectors: vec![None; texts.len()],
            input_tokens: saturated(texts.iter().map(Vec::len).sum()),
            result: Some(request.result),
        })));
        let mut waiting = lock(&model.waiting);
        waiting.extend(
            texts
                .into_iter()
                .enumerate()
                .map(|(place, tokens)| Waiting {
                    request: Arc::clone(&ticket),
                    place,
                    tokens,
                }),
        );
        // Stable: of equal length, who came first is first.
        waiting.sort_by_key(|text| std::cmp::Reverse(text.tokens.len()));
        Some(Self(ticket))
    }

    fn step(&mut self, model: &EmbeddingModel) -> Result<bool, Error> {
        model.compute(&self.0)?;
        Ok(!self.0.is_over())
    }

    fn fail(self, error: Error) {
        self.0.answer(Err(error));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::load::{ModelSource, Network, Served, load};
    use crate::port::Embedding;

    fn model() -> EmbeddingModel {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/reference/tiny-bert-mean"
        );
        let loaded = load(&ModelSource::new(folder), Device::Cpu).unwrap();
        let Served::Network {
            tokenizer,
            network: Network::Embedding(encoder),
        } = loaded.served
        else {
            panic!("it is an encoder");
        };
        EmbeddingModel::new(encoder, tokenizer, 96)
    }

    fn begin(model: &EmbeddingModel, texts: usize) -> (EmbeddingJob, Embedding) {
        let (result, embedding) = Embedding::channel();
        let texts = vec!["sea".into(); texts];
        let request = EmbeddingRequest { texts, result };
        (EmbeddingJob::begin(model, request).unwrap(), embedding)
    }

    #[test]
    fn a_batch_is_filled_with_others_texts() {
        let model = model();
        let (mut first, _waits) = begin(&model, 2);
        let (mut second, _waits_too) = begin(&model, 3);
        assert!(!first.step(&model).unwrap());
        assert!(second.0.is_over(), "it was answered with the first");
        assert!(!second.step(&model).unwrap());
    }

    #[test]
    fn who_goes_away_is_not_worked_for() {
        let model = model();
        let (mut first, gone) = begin(&model, 1_000);
        let (mut second, _waits) = begin(&model, 1);
        assert_eq!(lock(&model.waiting).len(), 1_001);
        drop(gone);
        assert!(!second.step(&model).unwrap());
        assert!(lock(&model.waiting).is_empty());
        assert!(!first.step(&model).unwrap());
    }

    #[test]
    fn a_long_request_does_not_hold_up_a_short_one() {
        let model = model();
        let (mut first, _waits) = begin(&model, 1_000);
        let (mut second, _waits_too) = begin(&model, 1);
        assert!(first.step(&model).unwrap());
        assert!(!second.step(&model).unwrap());
        assert!(first.step(&model).unwrap());
    }

    #[test]
    fn a_batch_has_like_lengths_and_no_more_tokens_than_are_allowed() {
        let lengths = [700, 100, 100, 90, 60, 50, 49, 10, 9, 4];
        for (first, most, expected) in [
            (0, 512, 0..1),    // alone, though it is too long for a batch
            (1, 512, 1..6),    // as many as there is room for
            (1, 10_000, 1..6), // and none less than half as long
            (2, 200, 2..4),
            (7, 512, 7..9),
            (9, 512, 9..10),
        ] {
            assert_eq!(batch(&lengths, first, most), expected, "{first} {most}");
        }
    }
}
