//! How a job ends, for its caller.

use infernet_node::clock;
use infernet_protocol::event::{CancelReason, Signed, Verdict};
use infernet_protocol::inference::EndReason;
use infernet_protocol::job::buyer::{End, Failure};
use infernet_protocol::payload::{Generated, Product, Vector};
use infernet_protocol::tensor::Tensor;
use nostr::{Event, EventId};

use super::Driver;
use crate::answer::{Outcome, Summary};
use crate::market::{is_announced, no_such_model};
use crate::{Error, Evidence};

impl Driver {
    /// The end as the caller is told; an offer that led to no award is withdrawn.
    pub(super) fn outcome(&self, end: End) -> Outcome {
        if self.offer.is_some() && self.attempts == 0 {
            self.record_cancel(None, None, withdrawal(end));
        }
        if let (End::Failed(_) | End::Stopped, Some(error)) = (end, self.money_trouble()) {
            return Err(error);
        }
        match (end, &self.trouble) {
            (End::Done { result, ended, .. }, _) => self.summary(result, ended),
            (End::Failed(_) | End::Stopped, Some(trouble)) => {
                Err(Error::Unpublished(trouble.clone()))
            }
            (End::Failed(Failure::NoProvider), None) => Err(self.nobody()),
            (End::Failed(failure), None) => Err(Error::Failed(failure)),
            (End::Stopped, None) => Err(Error::Stopped),
        }
    }

    fn nobody(&self) -> Error {
        let market = self.client.shared().market();
        let now = clock::now();
        match is_announced(&market, &self.order, now) {
            true => Error::Failed(Failure::NoProvider),
            false => no_such_model(&market, &self.request, now),
        }
    }

    fn summary(&self, result: EventId, ended: EndReason) -> Outcome {
        // A job that is done has an attempt, and its result was noted before the job took it.
        let current = self.current.as_ref().ok_or(Error::Closed)?;
        let delivered = current.delivered.as_ref().ok_or(Error::Closed)?;
        let (award, result_event) = (current.award.clone(), delivered.result.clone());
        let evidence = Evidence::between(award, result_event, &current.conversation)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let brought = Brought::of(&delivered.product);
        let now = self.real();
        Ok(Summary {
            job: current.award.job_id(),
            award: current.award.id(),
            result,
            attempts: self.attempts,
            provider: current.word.provider,
            provider_name: current.word.name.clone(),
            model: current.word.model,
            model_name: current.word.model_name.clone(),
            ended,
            text: self.tally.text.clone(),
            vectors: brought.vectors,
            tensors: brought.tensors,
            texts: brought.texts,
            verdicts: brought.verdicts,
            evidence,
            output_tokens: self.tally.tokens,
            usage: delivered.usage,
            due_msat: delivered.due_msat,
            charged_msat: self.money.moved.charged,
            paid_msat: self.money.moved.paid,
            left_msat: self.money.left_msat,
            first_token_ms: self.tally.first_token_ms(now),
            tokens_per_s: self.tally.tokens_per_s(),
            total_ms: self.tally.total_ms(now),
        })
    }
}

/// What a product brings besides streamed text.
#[derive(Default)]
struct Brought {
    vectors: Vec<Vector>,
    tensors: Vec<Tensor>,
    texts: Vec<Generated>,
    verdicts: Vec<Signed<Verdict>>,
}

impl Brought {
    fn of(product: &Product) -> Self {
        let mut brought = Self::default();
        match product {
            Product::TextGeneration { .. } => {}
            Product::Embedding { vectors } => brought.vectors.clone_from(vectors),
            Product::Tensors { outputs } => brought.tensors.clone_from(outputs),
            Product::Shard { answers } => brought.texts.clone_from(answers),
            Product::Verify { verdicts } => {
                let read = |event: &Event| Signed::verify(event.clone()).ok();
                brought.verdicts = verdicts.iter().filter_map(read).collect();
            }
        }
        brought
    }
}

const fn withdrawal(end: End) -> CancelReason {
    match end {
        End::Stopped => CancelReason::Stopped,
        End::Failed(Failure::Deadline) => CancelReason::Deadline,
        End::Failed(_) | End::Done { .. } => CancelReason::NoProvider,
    }
}
