//! What a job's caller holds: the answer as it comes.

use infernet_protocol::event::{Experience, Promise, Signed, Usage, Verdict};
use infernet_protocol::inference::{EndReason, ModelId};
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::payload::{Decline, Generated, Vector};
use infernet_protocol::tensor::Tensor;
use nostr::{EventId, PublicKey};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{Error, Evidence};

/// One thing that happened to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// An offer is going out; bids may come.
    Offered {
        /// The job.
        job: EventId,
    },
    /// A bid came that meets the request.
    Bid {
        /// Its author's name.
        name: String,
        /// What it asks.
        price: Price,
        /// How fast it promises to be.
        promise: Promise,
    },
    /// An award is going out.
    Awarded {
        /// The job.
        job: EventId,
        /// The award.
        award: EventId,
        /// The attempt's number.
        attempt: u32,
        /// Who is to do it.
        provider: PublicKey,
        /// What it is called.
        name: String,
        /// The model it is to run.
        model: String,
        /// Tokens that earlier attempts have brought.
        behind: usize,
    },
    /// The provider took it on.
    Accepted {
        /// Attempts that run or wait at it before this one.
        ahead: u32,
    },
    /// The provider did not take it on.
    Declined {
        /// Its name.
        name: String,
        /// Why.
        reason: Decline,
        /// In its words.
        detail: String,
    },
    /// The provider failed; another may take over.
    Failed {
        /// Its name.
        name: String,
        /// Who it is.
        provider: PublicKey,
        /// What it is to blame for; nothing if the fault is not its own.
        blame: Option<Experience>,
        /// How.
        how: String,
    },
    /// Another process pays the same provider; its job is waited for.
    TabTaken {
        /// The provider's name.
        name: String,
    },
    /// A top-up has arrived at a provider.
    Paid {
        /// Its name.
        name: String,
        /// How much.
        amount: Msat,
        /// What routing cost.
        fee: Msat,
        /// What is left on the tab now, in msat; negative if we owe.
        left_msat: i64,
    },
    /// A top-up was not paid; it is tried again.
    Unpaid {
        /// The provider's name.
        name: String,
        /// Why not.
        why: String,
    },
    /// An attempt is over, and charged.
    Charged {
        /// The provider's name.
        name: String,
        /// The award.
        award: EventId,
        /// What it cost.
        amount: Msat,
        /// What was paid while it ran.
        paid: Msat,
        /// What is left on the tab, in msat; negative if we owe.
        left_msat: i64,
    },
    /// An attempt is over, and what it cost is known once a relay brings its result, or that there is none.
    Unclear {
        /// The provider's name.
        name: String,
        /// The award.
        award: EventId,
    },
    /// No relay is connected, or none answers: waiting for one.
    Adrift,
    /// A relay is connected, or answers, again.
    Moored,
    /// The next part of the answer.
    Text(String),
}

/// How a job ended.
pub type Outcome = Result<Summary, Error>;

/// A job that is done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The job.
    pub job: EventId,
    /// The last attempt's award.
    pub award: EventId,
    /// Its result.
    pub result: EventId,
    /// Attempts it took.
    pub attempts: u32,
    /// Who did it, the last part at least.
    pub provider: PublicKey,
    /// What it is called.
    pub provider_name: String,
    /// The model that ran.
    pub model: ModelId,
    /// What it is called.
    pub model_name: String,
    /// Why the answer ended.
    pub ended: EndReason,
    /// The whole text.
    pub text: String,
    /// One vector for each text, for an embedding.
    #[serde(serialize_with = "as_numbers", skip_serializing_if = "Vec::is_empty")]
    pub vectors: Vec<Vector>,
    /// What a module gave.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<Tensor>,
    /// One text for each request, for a shard.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<Generated>,
    /// One verdict for each result that was to be checked, in their order, by the provider.
    #[serde(serialize_with = "as_events", skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Signed<Verdict>>,
    /// What it takes to check the last attempt. Whoever has it can read the work.
    #[serde(skip)]
    pub evidence: Evidence,
    /// Tokens of the whole answer.
    pub output_tokens: u64,
    /// What the last attempt counted.
    pub usage: Usage,
    /// What it asks for this attempt.
    pub due_msat: Msat,
    /// What the job cost, all attempts together.
    pub charged_msat: Msat,
    /// What was paid while it ran: on tabs, which carry what is left to the next job.
    pub paid_msat: Msat,
    /// What is left on the last provider's tab, in msat; negative if we owe. None if the work was free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_msat: Option<i64>,
    /// Milliseconds from the start of the job to the first text, or to the end if there was none.
    pub first_token_ms: u64,
    /// Tokens a second after the first; 0 if there were fewer than two.
    pub tokens_per_s: f32,
    /// Milliseconds from the start of the job to its end.
    pub total_ms: u64,
}

fn as_numbers<S: serde::Serializer>(vectors: &[Vector], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(vectors.iter().map(|vector| &vector.0))
}

fn as_events<S: serde::Serializer>(
    verdicts: &[Signed<Verdict>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(verdicts.iter().map(Signed::event))
}

/// A job's answer as it comes. Dropping it stops the job.
#[derive(Debug)]
pub struct Answer {
    steps: mpsc::UnboundedReceiver<Step>,
    outcome: Pending,
    stop: CancellationToken,
    _stops_when_dropped: DropGuard,
}

#[derive(Debug)]
enum Pending {
    Waiting(oneshot::Receiver<Outcome>),
    Known(Box<Outcome>),
}

impl Answer {
    pub(crate) fn new(
        // Unbounded as a channel; what a provider can put into it is bounded by the job's driver.
        steps: mpsc::UnboundedReceiver<Step>,
        outcome: oneshot::Receiver<Outcome>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            steps,
            outcome: Pending::Waiting(outcome),
            _stops_when_dropped: stop.clone().drop_guard(),
            stop,
        }
    }

    /// The next part of the text; none when the answer is complete. Safe to cancel.
    ///
    /// # Errors
    /// Why there is no (whole) answer.
    pub async fn next(&mut self) -> Result<Option<String>, Error> {
        while let Some(step) = self.step().await {
            if let Step::Text(text) = step {
                return Ok(Some(text));
            }
        }
        self.outcome().await.map(|_| None)
    }

    /// The next thing that happens; none when the job is over. Safe to cancel.
    pub async fn step(&mut self) -> Option<Step> {
        self.steps.recv().await
    }

    /// Waits for the end, and tells how it went. Parts of the text that were not taken are in the summary.
    ///
    /// # Errors
    /// Why there is no (whole) answer.
    pub async fn finish(mut self) -> Outcome {
        self.outcome().await
    }

    /// Stops the job: the provider is told, and the answer ends with [`Error::Stopped`].
    pub fn stop(&self) {
        self.stop.cancel();
    }

    async fn outcome(&mut self) -> Outcome {
        if let Pending::Waiting(outcome) = &mut self.outcome {
            let outcome = outcome.await.unwrap_or(Err(Error::Closed));
            self.outcome = Pending::Known(Box::new(outcome));
        }
        match &self.outcome {
            Pending::Known(outcome) => (**outcome).clone(),
            Pending::Waiting(_) => Err(Error::Closed),
        }
    }
}
