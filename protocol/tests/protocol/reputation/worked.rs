//! `nips/examples/reputation.json`, whose scores another program has computed.

use infernet_protocol::event::Attestation;
use infernet_protocol::event::{BatchShare, Experience, Judgement, Measured, Signed, Verdict};
use infernet_protocol::money::Msat;
use infernet_protocol::reputation::standing;
use serde::Deserialize;

use super::{DAY_S, judged, named, near, said, signed, trusting};
use crate::parties::NOW;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Examples {
    trusted: Vec<String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    attestations: Vec<Said>,
    verdicts: Vec<Judged>,
    score: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    by: String,
    award: u64,
    #[serde(default = "once")]
    times: u64,
    experience: Experience,
    age_days: u64,
    /// The share of the promised speed.
    kept: Option<f32>,
    buyer: Option<u64>,
    fee_msat: Option<u64>,
    verdict: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Judged {
    name: String,
    by: String,
    award: u64,
    judgement: Judgement,
    age_days: u64,
}

fn once() -> u64 {
    1
}

impl Said {
    fn signed(&self, verdicts: &[(&Judged, Signed<Verdict>)]) -> Vec<Signed<Attestation>> {
        let awards = self.award..self.award + self.times;
        let one = |award| signed(&self.about(award, verdicts), &named(&self.by), self.age());
        awards.map(one).collect()
    }

    fn age(&self) -> u64 {
        self.age_days * DAY_S
    }

    fn about(&self, award: u64, verdicts: &[(&Judged, Signed<Verdict>)]) -> Attestation {
        let plain = said(award, self.experience);
        let named_verdict = self.verdict.as_ref().map(|name| {
            let known = verdicts.iter().find(|(judged, _)| judged.name == *name);
            known.map_or(plain.award, |(_, verdict)| verdict.id())
        });
        let promised = plain.promised.tokens_per_s;
        Attestation {
            measured: self.kept.map(|kept| Measured {
                first_token_ms: 500,
                tokens_per_s: kept * promised,
                output_tokens: 100,
            }),
            verdict: named_verdict,
            batch: self.buyer.map(|buyer| BatchShare {
                order: plain.award,
                buyer: named(&format!("buyer {buyer}")).public_key(),
                fee_msat: Msat(self.fee_msat.unwrap_or(0)),
            }),
            ..plain
        }
    }
}

#[test]
fn worked_examples() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../nips/examples/reputation.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let examples: Examples = serde_json::from_str(&text).unwrap();
    let trusted: Vec<_> = examples.trusted.iter().map(|name| named(name)).collect();
    let trusted = trusting(&trusted.iter().collect::<Vec<_>>());
    assert!(examples.cases.len() > 20);
    for case in &examples.cases {
        let verdict = |v: &Judged| judged(v.award, v.judgement, &named(&v.by), v.age_days * DAY_S);
        let verdicts: Vec<_> = case.verdicts.iter().map(|v| (v, verdict(v))).collect();
        let said = case.attestations.iter();
        let attestations: Vec<_> = said.flat_map(|said| said.signed(&verdicts)).collect();
        let events = verdicts.iter().map(|(_, verdict)| verdict);
        println!("{}", case.name);
        near(
            standing(&attestations, events, &trusted, NOW).score,
            case.score,
        );
    }
}
