//! Figures as a verdict holds them: numbers by name (`nips/verification.md`).

use std::collections::BTreeMap;

use super::texts::{ActivationTotals, Drawn, Texts};
use super::{Fault, Figures, METHOD_TEXTS, METHOD_VECTORS, VectorFigures};
use crate::bounds::MAX_SAFE_INTEGER;
use crate::event::{Refusal, Verdict};

/// Numbers by name.
type Map = BTreeMap<String, f64>;

impl Figures {
    /// As a verdict holds them. Those that are 0 are left out.
    pub fn to_map(&self) -> BTreeMap<String, f64> {
        let mut map = Map::new();
        let mut put = |name: &str, figure: f64| {
            if figure != 0.0 {
                map.insert(name.to_owned(), figure);
            }
        };
        match self {
            Self::Texts(texts) => put_texts(texts, &mut put),
            Self::Vectors(vectors) => {
                put("vectors", vectors.vectors.into());
                put("least_cosine", vectors.least_cosine);
                if let Some(fault) = vectors.fault {
                    put(fault.figure(), 1.0);
                }
            }
        }
        map
    }

    /// Those that a verdict holds. Names that are not known are passed over.
    ///
    /// # Errors
    /// Another method, or a figure that cannot be: less than 0, no number, no whole one.
    pub fn of(verdict: &Verdict) -> Result<Self, Refusal> {
        match verdict.method.as_str() {
            METHOD_TEXTS => read_texts(&verdict.figures).map(Self::Texts),
            METHOD_VECTORS => read_vectors(&verdict.figures).map(Self::Vectors),
            _ => Err(Refusal::Invalid("the verdict's method is not known here")),
        }
    }
}

fn put_texts(texts: &Texts, put: &mut impl FnMut(&str, f64)) {
    for (class, drawn) in [("sampled", &texts.sampled), ("greedy", &texts.greedy)] {
        put(&format!("{class}.answers"), drawn.answers as f64);
        put(&format!("{class}.tokens"), drawn.tokens as f64);
        put(&format!("{class}.exact"), drawn.exact as f64);
        put(&format!("{class}.margin_sum"), drawn.margin_sum);
        put(&format!("{class}.worst_mean"), drawn.worst_mean);
        put(&format!("{class}.worst_window"), drawn.worst_window);
    }
    put("evidence", texts.evidence);
    let activations = &texts.activations;
    put("activations.chunks", activations.chunks as f64);
    put("activations.exponents", activations.exponents);
    put("activations.worst_exponents", activations.worst_exponents);
    put("activations.mantissa_mean", activations.mantissa_mean);
    put("activations.mantissa_median", activations.mantissa_median);
    for (fault, answers) in &texts.faults {
        put(fault.figure(), f64::from(*answers));
    }
}

fn read_texts(map: &Map) -> Result<Texts, Refusal> {
    Ok(Texts {
        sampled: read_drawn(map, "sampled")?,
        greedy: read_drawn(map, "greedy")?,
        evidence: read(map, "evidence")?,
        activations: ActivationTotals {
            chunks: number(map, "activations.chunks")?,
            exponents: amount(map, "activations.exponents")?,
            worst_exponents: amount(map, "activations.worst_exponents")?,
            mantissa_mean: amount(map, "activations.mantissa_mean")?,
            mantissa_median: amount(map, "activations.mantissa_median")?,
        },
        faults: read_faults(map)?,
    })
}

fn read_drawn(map: &Map, class: &str) -> Result<Drawn, Refusal> {
    let name = |figure: &str| format!("{class}.{figure}");
    Ok(Drawn {
        answers: number(map, &name("answers"))?,
        tokens: number(map, &name("tokens"))?,
        exact: number(map, &name("exact"))?,
        margin_sum: amount(map, &name("margin_sum"))?,
        worst_mean: amount(map, &name("worst_mean"))?,
        worst_window: amount(map, &name("worst_window"))?,
    })
}

fn read_faults(map: &Map) -> Result<BTreeMap<Fault, u32>, Refusal> {
    let mut faults = BTreeMap::new();
    for fault in Fault::ALL {
        let answers = number(map, fault.figure())?;
        if answers > 0 {
            faults.insert(fault, u32::try_from(answers).unwrap_or(u32::MAX));
        }
    }
    Ok(faults)
}

fn read_vectors(map: &Map) -> Result<VectorFigures, Refusal> {
    let vectors = number(map, "vectors")?;
    Ok(VectorFigures {
        vectors: u32::try_from(vectors).map_err(|_| Refusal::Invalid("a figure is too large"))?,
        least_cosine: read(map, "least_cosine")?,
        fault: read_faults(map)?.into_keys().next(),
    })
}

/// A figure; 0 if it is not there.
fn read(map: &Map, name: &str) -> Result<f64, Refusal> {
    match map.get(name).copied().unwrap_or(0.0) {
        figure if figure.is_finite() => Ok(figure),
        _ => Err(Refusal::Invalid("a figure is not a number")),
    }
}

fn amount(map: &Map, name: &str) -> Result<f64, Refusal> {
    match read(map, name)? {
        figure if figure >= 0.0 => Ok(figure),
        _ => Err(Refusal::Invalid("a figure is less than 0")),
    }
}

fn number(map: &Map, name: &str) -> Result<u64, Refusal> {
    let figure = amount(map, name)?;
    match figure.fract() == 0.0 && figure <= MAX_SAFE_INTEGER as f64 {
        true => Ok(figure as u64),
        false => Err(Refusal::Invalid("a figure is no whole number")),
    }
}
