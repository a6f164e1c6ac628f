//! How fast the store is, beside nostr-lmdb in the same run: `cargo run --release -p infernet-relay --example
//! store_speed -- saves` and `… -- queries`.
//!
//! Saves: durable events a second with so many under way at a time, each figure from a store of its own. Queries:
//! the time until a filter is answered over so many events, by the filter's shape.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod events;
mod queries;
mod saves;

use std::path::PathBuf;

use clap::Parser;

/// Measures the relay's store.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to measure
    #[command(subcommand)]
    part: Part,

    /// Where the stores lie while they are measured [default: the system's place for such]
    #[arg(long, global = true)]
    folder: Option<PathBuf>,

    /// Leave nostr-lmdb out
    #[arg(long, global = true)]
    alone: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Durable events a second
    Saves {
        /// Events under way at a time
        #[arg(long, value_delimiter = ',', default_values_t = [1, 20, 256, 2_000])]
        in_flight: Vec<usize>,
        /// The most events for one figure
        #[arg(long, default_value_t = 60_000)]
        events: usize,
    },
    /// Time to answer filters
    Queries {
        /// Events in the store
        #[arg(long, default_value_t = 1_000_000)]
        events: usize,
        /// Filters of each shape
        #[arg(long, default_value_t = 200)]
        filters: usize,
    },
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let folder = || match &arguments.folder {
        Some(folder) => tempfile::tempdir_in(folder).unwrap(),
        None => tempfile::tempdir().unwrap(),
    };
    match &arguments.part {
        Part::Saves { in_flight, events } => {
            for in_flight in in_flight {
                saves::measure(*in_flight, *events, &folder, arguments.alone).await;
            }
        }
        Part::Queries { events, filters } => {
            queries::measure(*events, *filters, &folder, arguments.alone).await;
        }
    }
}
