//! What an aggregator adds: the throughput of batches over more and more providers, the memory that a large file takes,
//! and what it costs to coordinate a shard among ten to a thousand providers.
//!
//! `cargo bench -p infernet-tests --bench batch -- [providers | lines | crowd] [NUMBERS…]`; figures belong into
//! docs/benchmarks.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod batches;
mod measure;

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let numbers = |usual: &[usize]| -> Vec<usize> {
        let given: Vec<usize> = arguments.iter().filter_map(|a| a.parse().ok()).collect();
        if given.is_empty() {
            usual.to_vec()
        } else {
            given
        }
    };
    let is_wanted = |part: &str| {
        let named = arguments.iter().filter(|a| a.parse::<usize>().is_err());
        named.clone().count() == 0 || named.into_iter().any(|a| a == part)
    };
    if is_wanted("providers") {
        batches::providers::measure(&numbers(&[1, 2, 4, 8]));
    }
    if is_wanted("lines") {
        batches::lines::measure(&numbers(&[10_000, 100_000, 1_000_000]));
    }
    if is_wanted("crowd") {
        batches::crowd::measure(&numbers(&[10, 100, 1_000]));
    }
}
