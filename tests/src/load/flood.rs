//! A flood of valid events by fresh keys, while buyers whom nobody knows either want their jobs done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::{JoinHandle, spawn_blocking};

use super::events::Ready;
use super::figures::Times;
use super::publish::{Outcome, steady};
use super::sendings::Sendings;
use crate::Market;

/// What strangers send, and who wants to work meanwhile.
#[derive(Clone, Debug)]
pub struct Flood {
    /// What is sent, by as many keys.
    pub junk: Arc<Vec<Ready>>,
    /// How much of it a second.
    pub per_second: f64,
    /// Over so many connections.
    pub connections: usize,
    /// How many jobs run at a time, one after the other until the flood is over, each for a buyer with a new key.
    pub buyers: usize,
}

/// How it went.
#[derive(Debug)]
pub struct Flooded {
    /// What became of the junk.
    pub outcome: Outcome,
    /// How long the jobs took, the client's start counted in.
    pub jobs: Times,
}

impl Flood {
    /// Floods a market's relay.
    ///
    /// # Errors
    /// If a job does not end well.
    pub async fn run(&self, market: &Arc<Market>) -> Result<Flooded> {
        let sendings = Arc::new(Sendings::new(&self.junk));
        let lasts = Arc::new(AtomicBool::new(true));
        let buyers: Vec<_> = (0..self.buyers)
            .map(|nth| buy(market.clone(), nth, lasts.clone()))
            .collect();
        let (url, junk) = (&market.relay.url, &self.junk);
        let outcome = steady(url, junk, self.connections, self.per_second, &sendings).await;
        lasts.store(false, Ordering::Release);
        let mut jobs = Vec::new();
        for buyer in buyers {
            jobs.extend(buyer.await??);
        }
        let jobs = Times::new(jobs);
        Ok(Flooded { outcome, jobs })
    }
}

fn buy(
    market: Arc<Market>,
    nth: usize,
    lasts: Arc<AtomicBool>,
) -> JoinHandle<Result<Vec<Duration>>> {
    spawn_blocking(move || {
        let mut jobs = Vec::new();
        while lasts.load(Ordering::Acquire) {
            let name = format!("buyer-{nth}-{}", jobs.len());
            let began = Instant::now();
            let done = market.client(&name).json(&["submit", "--json", "hello"])?;
            done["job"].as_str().context("a job without a name")?;
            jobs.push(began.elapsed());
        }
        Ok(jobs)
    })
}
