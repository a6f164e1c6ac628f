//! Having a job checked: by what, and what is said about it after that.

use infernet_protocol::event::{
    Announcement, Attestation, Basis, Bid, Experience, JobResult, ModelThresholds, Promise, Signed,
    V1, Verdict,
};
use infernet_protocol::inference::{Dtype, EndReason, ModelId};
use infernet_protocol::kinds;
use infernet_protocol::money::Msat;
use infernet_protocol::verification::{Figures, Thresholds};
use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey};
use tokio::time::{Duration, Instant};

use crate::client::sign;
use crate::record::{Record, Said};
use crate::{Client, Error, Evidence};

/// How long is tried to publish what was found.
const PUBLISH_PATIENCE: Duration = Duration::from_secs(20);

/// Thresholds of one model that are looked at.
const MAX_THRESHOLDS: usize = 64;

impl Client {
    /// What work of a model in a number format is judged by: the newest word of the first of these authors who has
    /// one. Nobody else is asked: who sells the work could publish what lets it pass.
    ///
    /// # Errors
    /// Relays that cannot be reached.
    pub async fn thresholds(
        &self,
        model: &ModelId,
        dtype: Dtype,
        trusted: &[PublicKey],
    ) -> Result<Option<Signed<ModelThresholds>>, Error> {
        if trusted.is_empty() {
            return Ok(None);
        }
        let filter = Filter::new()
            .kind(Kind::from(kinds::THRESHOLDS))
            .authors(trusted.iter().copied())
            .identifier(ModelThresholds::id_of(model, dtype))
            .limit(MAX_THRESHOLDS);
        let events = self.fetch(vec![filter]).await?;
        let read = |event: Event| Signed::<ModelThresholds>::from_verified(event).ok();
        let about = |said: &Signed<ModelThresholds>| said.model == *model && said.dtype == dtype;
        let all = events.into_iter().filter_map(read).filter(about);
        let rank = |author: PublicKey| trusted.iter().position(|trusted| *trusted == author);
        let ranked = all.filter_map(|said| Some((rank(said.author())?, said)));
        let first = ranked.min_by_key(|(rank, said)| (*rank, std::cmp::Reverse(said.created_at())));
        Ok(first.map(|(_, said)| said))
    }

    /// Publishes an event that somebody has signed, on some relay at least.
    ///
    /// # Errors
    /// No relay takes it.
    pub async fn publish(&self, event: &Event) -> Result<(), Error> {
        let by = Instant::now() + PUBLISH_PATIENCE;
        self.shared().link.publish_until(event, by).await?;
        Ok(())
    }

    /// Says that a result of ours was rejected by a check; answers the attestation.
    ///
    /// # Errors
    /// No relay takes it.
    pub async fn attest_rejected(
        &self,
        evidence: &Evidence,
        verdict: &Signed<Verdict>,
    ) -> Result<EventId, Error> {
        let attestation = rejection(evidence, verdict);
        let event = sign(self.shared().keys(), &attestation)
            .ok_or_else(|| Error::Invalid("the attestation cannot be signed".into()))?;
        self.publish(&event).await?;
        Ok(event.id)
    }
}

/// Whether a verdict's judgement follows from its figures by these thresholds, and the figures can belong together.
/// Of a checker that did not look they may not.
pub fn follows(verdict: &Verdict, thresholds: &Thresholds) -> bool {
    Figures::of(verdict).is_ok_and(|figures| {
        figures.hold_together(thresholds) && figures.judge(thresholds) == verdict.judgement
    })
}

/// What it takes to check a job of this buyer's: its last attempt that has a result.
///
/// # Errors
/// [`Error::Uncheckable`] with why there is nothing to check.
pub fn evidence(record: &Record, keys: &Keys) -> Result<Evidence, Error> {
    let uncheckable = |why: &str| Error::Uncheckable(why.to_owned());
    if record.buyer() != Some(keys.public_key()) {
        return Err(uncheckable(
            "only its buyer can have a job checked, and that is not you",
        ));
    }
    let results = record.entries.iter().filter_map(|entry| match &entry.said {
        Said::Result(result) if is_whole(result) => Some(&**result),
        _ => None,
    });
    let last = results.max_by_key(|result| result.attempt);
    let last =
        last.ok_or_else(|| uncheckable("there is no result to check: the job did not end well"))?;
    let mut awards = record.awards();
    let award = awards
        .find(|award| award.id() == last.award)
        .ok_or_else(|| uncheckable("the result's award is not here"))?;
    let opened = Evidence::of(award.clone(), last.clone(), keys);
    opened.map_err(|error| uncheckable(&error.to_string()))
}

const fn is_whole(result: &JobResult) -> bool {
    matches!(result.ended, EndReason::Stop | EndReason::Length)
}

fn rejection(evidence: &Evidence, verdict: &Signed<Verdict>) -> Attestation {
    let award = &evidence.award;
    Attestation {
        v: V1,
        job: award.job_id(),
        award: award.id(),
        result: Some(evidence.result.id()),
        receipt: None,
        verdict: Some(verdict.id()),
        batch: None,
        provider: award.provider,
        model: award.model,
        experience: Experience::Rejected,
        promised: promised(&award.basis, &award.model),
        measured: None,
        paid_msat: Msat::ZERO,
    }
}

/// How fast the provider's word in a valid award promises to be.
pub(crate) fn promised(basis: &Basis, model: &ModelId) -> Promise {
    let word = &basis.word().content;
    let promise = match basis {
        Basis::Auction { .. } => serde_json::from_str::<Bid>(word)
            .ok()
            .map(|bid| bid.promise),
        Basis::Direct { .. } => serde_json::from_str::<Announcement>(word)
            .ok()
            .and_then(|said| said.models.into_iter().find(|sold| sold.model == *model))
            .map(|sold| sold.promise),
    };
    promise.unwrap_or(Promise {
        first_token_ms: 0,
        tokens_per_s: 0.0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use infernet_protocol::event::Judgement;
    use infernet_protocol::verification::{TextFigures, Texts};

    use super::*;

    #[test]
    fn a_verdict_follows_from_its_figures_or_is_none() {
        let thresholds = Thresholds::WIDE;
        let measured = TextFigures {
            margins: vec![0.01; 64],
            ..TextFigures::default()
        };
        let figures = Figures::Texts(Texts::of(&[measured], &thresholds));
        let id = EventId::all_zeros();
        let verdict = Verdict {
            v: V1,
            job: id,
            award: id,
            result: id,
            provider: Keys::generate().public_key(),
            model: ModelId::from_bytes([1; 32]),
            judgement: Judgement::Accepted,
            method: figures.method().to_owned(),
            figures: figures.to_map(),
            dtype: Dtype::F32,
            engine: "test 1".into(),
        };
        assert!(follows(&verdict, &thresholds));
        let rejected = Verdict {
            judgement: Judgement::Rejected,
            ..verdict.clone()
        };
        assert!(!follows(&rejected, &thresholds), "nothing speaks for it");
        let mut absurd = verdict.clone();
        absurd.figures.insert("sampled.exact".into(), 65.0);
        assert!(!follows(&absurd, &thresholds));
        let other = Verdict {
            method: "by feeling".into(),
            ..verdict
        };
        assert!(!follows(&other, &thresholds));
    }
}
