//! Vectors, bought a second time from another provider: a check of work that is the
//! same on all machines up to rounding, where no checker is to be had.

use infernet_client::Summary;
use infernet_node::clock;
use infernet_protocol::event::{Body as _, Signed, V1, Verdict};
use infernet_protocol::payload::{Product, Vector};
use infernet_protocol::verification::{Fault, Figures, Thresholds, VectorFigures};
use nostr::Keys;

use super::reading::Read;
use crate::Bought;

/// What a second provider's vectors say of the first one's, as a verdict of our own.
pub(super) fn compare(
    work: &Bought,
    twin: &Summary,
    thresholds: &Thresholds,
    keys: &Keys,
) -> Option<Read> {
    let Product::Embedding { vectors } = &work.product else {
        return None;
    };
    let figures = Figures::Vectors(distance(vectors, &twin.vectors));
    let verdict = Verdict {
        v: V1,
        job: work.award.job_id(),
        award: work.award.id(),
        result: work.result.id(),
        provider: work.provider,
        model: work.model,
        judgement: figures.judge(thresholds),
        method: figures.method().to_owned(),
        figures: figures.to_map(),
        dtype: twin.evidence.result.dtype,
        engine: twin.evidence.result.engine.clone(),
    };
    let unsigned = verdict.to_unsigned(keys.public_key(), clock::now());
    let event = unsigned.sign_with_keys(keys).ok()?;
    Some(Read {
        verdict: Signed::from_verified(event).ok()?,
        figures,
    })
}

/// How far one's vectors are from another's.
fn distance(one: &[Vector], other: &[Vector]) -> VectorFigures {
    let cosines: Option<Vec<f64>> = match one.len() == other.len() {
        true => one.iter().zip(other).map(cosine).collect(),
        false => None,
    };
    VectorFigures {
        vectors: u32::try_from(one.len()).unwrap_or(u32::MAX),
        least_cosine: cosines.iter().flatten().copied().fold(1.0, f64::min),
        fault: cosines.is_none().then_some(Fault::Missing),
    }
}

/// The cosine between two vectors; none if there is none: other lengths, zeros, numbers
/// that are none.
fn cosine((one, other): (&Vector, &Vector)) -> Option<f64> {
    let product = |a: &Vector, b: &Vector| {
        let pairs = a.0.iter().zip(&b.0);
        pairs
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    let lengths = (product(one, one) * product(other, other)).sqrt();
    let cosine = product(one, other) / lengths;
    (one.0.len() == other.0.len() && cosine.is_finite()).then_some(cosine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(of: &[&[f32]]) -> Vec<Vector> {
        of.iter().map(|numbers| Vector(numbers.to_vec())).collect()
    }

    #[test]
    fn the_worst_vector_counts() {
        let one = vectors(&[&[1.0, 0.0], &[0.0, 2.0]]);
        let other = vectors(&[&[3.0, 0.0], &[1.0, 1.0]]);
        let figures = distance(&one, &other);
        assert!((figures.least_cosine - 0.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!((figures.vectors, figures.fault), (2, None));
    }

    #[test]
    fn what_cannot_be_compared_is_a_fault() {
        let one = vectors(&[&[1.0, 0.0]]);
        for other in [
            vectors(&[]),
            vectors(&[&[1.0]]),
            vectors(&[&[0.0, 0.0]]),
            vectors(&[&[f32::NAN, 1.0]]),
        ] {
            assert_eq!(distance(&one, &other).fault, Some(Fault::Missing));
        }
    }
}
