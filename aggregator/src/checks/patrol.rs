//! Questions of our own among the real work. They may be checked whatever a buyer
//! allows, and their answers are known once they were checked: whoever answers the same
//! questions with the same tokens needs no check, and whoever does not is checked.

use std::time::{Duration, Instant};

use infernet_client::{Request, Route, Summary};
use infernet_node::clock;
use infernet_protocol::event::{Award, Checkers, Checking, Judgement, Signed};
use infernet_protocol::inference::TokenId;
use infernet_protocol::payload::{Generate, Generated, Output, Payload as _, Product, Proof, Work};
use infernet_protocol::verification::Secret;

use super::samples::Sample;
use super::{Caught, Checks, Error, Finding, Hire, Judged, Outcome, Policy, Subject, questions};
use crate::Bought;
use crate::late::{self, Terms};

/// How long a check of such work may take.
const WITHIN: Duration = Duration::from_secs(300);

/// How long such work is given, whatever the real work was.
const LEAST_GIVEN: Duration = Duration::from_secs(30);
const MOST_GIVEN: Duration = Duration::from_secs(3_600);

/// How often known questions are asked again, if there are any: fresh ones are needed too.
const KNOWN_PPM: u32 = 500_000;

impl Checks {
    /// Sends questions to the provider of this work, and has the answers checked, behind
    /// the back of everybody who waits for something.
    pub(super) fn send_patrol(&self, work: &Bought) {
        let (checks, work) = (self.clone(), work.clone());
        tokio::spawn(async move {
            if let Err(error) = checks.patrol(&work).await {
                tracing::warn!(%error, "questions of our own could not be judged");
            }
        });
    }

    /// Asks the provider of this work questions in the shape of it, and judges the
    /// answers.
    ///
    /// # Errors
    /// A store that fails.
    pub async fn patrol(&self, like: &Bought) -> Result<(), Error> {
        let Work::Shard { requests } = &like.work else {
            return Ok(());
        };
        let known = match super::Chances::draw(KNOWN_PPM) {
            true => {
                let samples = &self.0.samples;
                samples
                    .draw(&like.model, like.dtype(), &like.provider)
                    .await?
            }
            false => None,
        };
        let requests = match &known {
            Some(sample) => sample.requests.clone(),
            None => questions::like(requests),
        };
        let Some(work) = self.buy_own(like, requests).await else {
            return Ok(());
        };
        match known.is_some_and(|known| same(&known.answers, &work.product)) {
            true => {
                let subject = Subject::of(&work);
                self.0
                    .books
                    .enter(&subject, Judgement::Accepted, None)
                    .await?;
                self.owe(&work);
                Ok(())
            }
            false => self.judge_own(&work).await,
        }
    }

    async fn buy_own(&self, like: &Bought, requests: Vec<Generate>) -> Option<Bought> {
        let request = Request::shard(like.model.to_string(), requests.clone())
            .route(Route::To {
                provider: like.provider.to_hex(),
                only: true,
            })
            .max_price(like.award.price)
            .deadline(within(&like.award));
        // Nothing in the award may tell it from the real work.
        let checkers = like.award.checkers;
        let request = match checkers {
            Checkers::Nobody => request,
            Checkers::Aggregator | Checkers::Market => request.prove(),
        };
        let request = request.checkers(checkers);
        let terms = Terms {
            shard: None,
            is_paid: !like.award.price.is_free(),
            within: request.deadline,
        };
        let answer = self.0.client.submit(request).await.ok()?;
        let summary = late::finish(self.0.books.pool(), answer, &terms).await;
        let summary = summary.ok()?;
        Some(bought(like, requests, summary))
    }

    async fn judge_own(&self, work: &Bought) -> Result<(), Error> {
        let policy = Policy {
            checking: Checking::Full,
            checkers: Checkers::Market,
            secret: Secret::from_bytes(rand::random()),
            until: Instant::now() + WITHIN,
            most: work.cost,
        };
        // Others are tried by what passes here: one stranger's word is not enough.
        let judged = self.examine(work, &policy, 1_000_000, true).await?;
        for hire in &judged.hired {
            self.0.tell(Finding::Owed(hire.clone()));
        }
        match judged.outcome {
            Outcome::Rejected => {
                self.0.tell(Finding::Caught(Box::new(Caught {
                    who: work.provider,
                    award: work.award.id(),
                    result: work.result.id(),
                    verdict: judged.verdict().cloned(),
                    job: work.award.job_id(),
                    model: work.model,
                    reason: "its answers to questions of ours are not its model's".to_owned(),
                })));
                return Ok(());
            }
            Outcome::Accepted => {
                if let Some(sample) = sample(work).filter(|_| self.is_confirmed(&judged)) {
                    self.0.samples.put(&sample, clock::now()).await?;
                }
            }
            Outcome::Unchecked | Outcome::Inconclusive => {}
        }
        self.owe(work);
        Ok(())
    }

    /// Whether the owner's checker accepted it, or two strangers did.
    fn is_confirmed(&self, judged: &Judged) -> bool {
        let verdicts = judged.verdicts.iter();
        let mut accepted = verdicts.filter(|v| v.judgement == Judgement::Accepted);
        accepted.clone().count() >= 2 || accepted.any(|v| self.0.own.contains(&v.author()))
    }

    fn owe(&self, work: &Bought) {
        self.0.tell(Finding::Owed(Hire {
            checker: work.provider,
            award: work.award.id(),
            result: work.result.id(),
            cost: work.cost,
        }));
    }
}

/// How long the real work was given.
fn within(award: &Signed<Award>) -> Duration {
    let given = award
        .deadline
        .as_secs()
        .saturating_sub(award.created_at().as_secs());
    Duration::from_secs(given).clamp(LEAST_GIVEN, MOST_GIVEN)
}

/// What was bought for ourselves, as if for an order.
fn bought(like: &Bought, requests: Vec<Generate>, summary: Summary) -> Bought {
    let evidence = summary.evidence;
    Bought {
        order: summary.job,
        buyer: evidence.award.author(),
        group: 0,
        provider: summary.provider,
        model: summary.model,
        model_name: like.model_name.clone(),
        award: evidence.award,
        result: evidence.result,
        input_key: evidence.input_key,
        output_key: evidence.output_key,
        work: Work::Shard { requests },
        product: Product::Shard {
            answers: summary.texts,
        },
        cost: summary.due_msat,
    }
}

/// Whether these are the answers that are known.
fn same(known: &[Generated], product: &Product) -> bool {
    let Product::Shard { answers } = product else {
        return false;
    };
    fn tokens(answers: &[Generated]) -> impl Iterator<Item = &[TokenId]> {
        answers.iter().map(|answer| answer.tokens.as_slice())
    }
    tokens(known).eq(tokens(answers))
}

fn sample(work: &Bought) -> Option<Sample> {
    let (Work::Shard { requests }, Product::Shard { answers }) = (&work.work, &work.product) else {
        return None;
    };
    let all_done = answers.iter().all(|a| super::reading::was_done(a.ended));
    all_done.then(|| Sample {
        author: work.provider,
        model: work.model,
        model_name: work.model_name.clone(),
        dtype: work.dtype(),
        engine: work.engine().to_owned(),
        requests: requests.clone(),
        answers: answers.clone(),
        proofs: proofs(work),
    })
}

/// The proofs of a result whose payload is in its event.
fn proofs(work: &Bought) -> Vec<Proof> {
    let opened = work.result.output.open_with(work.output_key.as_bytes());
    let output = opened
        .ok()
        .and_then(|bytes| Output::from_bytes(&bytes).ok());
    output.map(|output| output.proofs).unwrap_or_default()
}
