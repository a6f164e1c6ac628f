//! `verify`: has a job checked by another provider.

mod words;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use infernet_client::{Client, Evidence, Request, Route, checking};
use infernet_protocol::event::{Judgement, ModelThresholds, Signed, Verdict};
use infernet_protocol::inference::Task;
use infernet_protocol::money::Msat;
use infernet_protocol::verification::Thresholds;
use nostr::{EventId, PublicKey};
use serde_json::json;

use super::show::{self, Fetched};
use super::terminal::Terminal;
use super::work::run;
use super::{Exit, Misunderstood, Place, npub, print, print_json, who};
use crate::settings::MaxPrice;

/// Checkers that are asked one after the other.
const MAX_CHECKERS: usize = 4;

/// Have a job of yours checked by another provider
///
/// The checker sees the job's prompt and answer, computes them again with the same model, and signs a verdict, which
/// is published. With submit --prove the check is sharper.
#[derive(Debug, clap::Args)]
pub struct Verify {
    /// The job: its id, or the first digits of one of yours
    job: String,

    /// Who is to check it, by name or npub [default: the best-ranked that can]
    #[arg(long, value_name = "WHO")]
    checker: Option<String>,

    /// A file of thresholds to judge by, instead of those that are published
    #[arg(long, value_name = "FILE")]
    thresholds: Option<PathBuf>,

    /// The highest price, in millisatoshis per million tokens that are checked [default: 0, free work only]
    #[arg(long, value_name = "MSAT", allow_negative_numbers = true)]
    max_price: Option<MaxPrice>,

    /// The most that the check may cost in satoshis
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_sats: Option<u64>,

    /// How long it may take in all, in seconds [default: 120]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    deadline: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub async fn run(self, place: Place) -> anyhow::Result<Exit> {
        let Fetched {
            record, mut names, ..
        } = show::fetch(&self.job, &place).await?;
        let evidence = checking::evidence(&record, &place.keys()?)?;
        let client = place.paying_client().await?;
        names.extend(client.names().await);
        let found = self.check(&place, &client, &evidence).await;
        let found = match found {
            Ok(verdict) => {
                let attested = publish(&client, &evidence, &verdict).await;
                Ok((verdict, attested))
            }
            Err(error) => Err(error),
        };
        let own = client.public_key();
        client.close().await;
        let (verdict, attested) = found?;
        let attested = attested?;
        if self.json {
            print_json(&json!({
                "judgement": verdict.judgement,
                "checker": npub(&verdict.author()),
                "provider": npub(&verdict.provider),
                "method": verdict.method,
                "figures": verdict.figures,
                "verdict": verdict.event(),
                "attestation": attested,
            }))?;
        } else {
            let checker = who(&verdict.author(), &own, &names);
            let provider = who(&verdict.provider, &own, &names);
            print(&words::of(&verdict, &checker, &provider))?;
        }
        Ok(match verdict.judgement {
            Judgement::Rejected => Exit::Failed,
            Judgement::Accepted | Judgement::Inconclusive => Exit::Done,
        })
    }

    /// Has it checked by the first who does it.
    async fn check(
        &self,
        place: &Place,
        client: &Client,
        evidence: &Evidence,
    ) -> anyhow::Result<Signed<Verdict>> {
        let thresholds = self.thresholds(place, client, evidence).await?;
        let checkers = match &self.checker {
            Some(checker) => vec![checker.clone()],
            None => checkers(client, evidence).await?,
        };
        let history = place.history().await?;
        let mut last = anyhow!("nobody checked it");
        for checker in checkers {
            let request = self.request(place, evidence, thresholds, checker);
            let mut terminal = Terminal::new(false);
            let finished = run(client, &history, request, &mut terminal).await?;
            match finished.outcome {
                Ok(mut summary) => {
                    let verdict = summary.verdicts.pop();
                    match verdict.context("the checker came to no verdict") {
                        Ok(verdict) if checking::follows(&verdict, &thresholds) => {
                            history.close().await;
                            return Ok(verdict);
                        }
                        Ok(_) => last = anyhow!("the checker's verdict contradicts its figures"),
                        Err(error) => last = error,
                    }
                }
                Err(infernet_client::Error::Stopped) => {
                    return Err(infernet_client::Error::Stopped.into());
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    fn request(
        &self,
        place: &Place,
        evidence: &Evidence,
        thresholds: Thresholds,
        checker: String,
    ) -> Request {
        let model = evidence.award.model.to_string();
        let mut request = Request::verify(model, [evidence.check()], thresholds).route(Route::To {
            provider: checker,
            only: true,
        });
        let defaults = &place.settings.defaults;
        if let Some(MaxPrice(price)) = self.max_price.or(defaults.max_price) {
            request.max_price = price;
        }
        request.max_cost = self.max_sats.or(defaults.max_sats).and_then(Msat::from_sat);
        if let Some(seconds) = self.deadline.or(defaults.deadline_s) {
            request.deadline = Duration::from_secs(seconds);
        }
        request
    }

    /// What it is judged by: of the file, else what was published by those who are trusted, else what does for any
    /// model.
    async fn thresholds(
        &self,
        place: &Place,
        client: &Client,
        evidence: &Evidence,
    ) -> anyhow::Result<Thresholds> {
        if let Some(path) = &self.thresholds {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            return read(&text)
                .map_err(|why| Misunderstood(format!("{}: {why}", path.display())).into());
        }
        let (model, dtype) = (&evidence.award.model, evidence.result.dtype);
        let trusted = place.trusted()?;
        match client.thresholds(model, dtype, &trusted).await? {
            Some(said) => Ok(said.thresholds),
            None => {
                eprintln!(
                    "Nobody whom trust in {} names has published what this model in {dtype} is judged by; judged by \
                     wide thresholds, which let more pass (infernet-provider calibrate measures better ones).",
                    place.settings_file.display()
                );
                Ok(Thresholds::unmeasured(dtype))
            }
        }
    }
}

/// Thresholds in a file: alone, or as they are published.
fn read(text: &str) -> Result<Thresholds, String> {
    let whole = serde_json::from_str::<ModelThresholds>(text).map(|said| said.thresholds);
    let alone = || serde_json::from_str::<Thresholds>(text);
    whole
        .or_else(|_| alone())
        .map_err(|_| "these are no thresholds".into())
}

/// Who can check it, the best score first; never whoever is checked.
async fn checkers(client: &Client, evidence: &Evidence) -> anyhow::Result<Vec<String>> {
    let own = client.public_key();
    let others = |key: PublicKey| key != evidence.award.provider && key != own;
    let providers = client.providers().await?.into_iter().filter(|provider| {
        let announced = &provider.announcement;
        let mut models = announced.models.iter();
        // Thresholds are of checkers that compute in f32 or bf16.
        let checks = models.any(|m| {
            m.task == Task::Verify && m.model == evidence.award.model && !m.dtype.is_quantised()
        });
        checks && announced.direct && others(announced.author())
    });
    let keys = providers.map(|provider| npub(&provider.announcement.author()));
    let checkers: Vec<_> = keys.take(MAX_CHECKERS).collect();
    match checkers.is_empty() {
        true => bail!("nobody else on these relays checks work of this model"),
        false => Ok(checkers),
    }
}

/// Publishes the verdict, and that the work was rejected if it was; answers the attestation.
async fn publish(
    client: &Client,
    evidence: &Evidence,
    verdict: &Signed<Verdict>,
) -> anyhow::Result<Option<EventId>> {
    client.publish(verdict.event()).await?;
    match verdict.judgement {
        Judgement::Rejected => Ok(Some(client.attest_rejected(evidence, verdict).await?)),
        Judgement::Accepted | Judgement::Inconclusive => Ok(None),
    }
}
