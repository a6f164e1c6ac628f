//! The work on a group from its beginning: its lines are read, measured and cut.

use std::sync::Arc;
use std::time::Duration;

use infernet_protocol::batch::{Group, Lines};
use infernet_protocol::payload::Payload;
use infernet_protocol::seal::blob;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::progress::Gauge;
use super::work::Work;
use crate::house::House;
use crate::open::Open;
use crate::outcomes::Folder;
use crate::shards::{Measure, cut};
use crate::store::{self, ShardRow};

/// The work on one group, before its lines are in memory.
pub(super) struct Job {
    pub house: Arc<House>,
    pub order: Arc<Open>,
    pub asked: Group,
    pub folder: Folder,
    pub gauge: Arc<Gauge>,
    /// No more is begun.
    pub winding_up: CancellationToken,
    /// What runs is given up.
    pub abandoned: CancellationToken,
    /// How long there is for all of it.
    pub left: Duration,
}

impl Job {
    /// Does what is not done of the group. Done again, it goes on.
    ///
    /// # Errors
    /// A store or a disk that refuses.
    pub async fn run(self) -> Result<(), store::Error> {
        let until = Instant::now() + self.left;
        // The lines of so many groups are in memory at a time.
        let house = self.house.clone();
        let _place = house.in_work.acquire().await;
        let lines = match self.folder.lines() {
            Some(lines) => lines,
            None => self.fetch().await?,
        };
        let (order, group) = (self.order.clone(), self.asked.number);
        let task = order.quote.task;
        let measures: Vec<_> = lines.iter().map(|line| Measure::of(line, task)).collect();
        let need = order.need(measures.iter().flatten());
        let tokens = house.options.limits.shard_tokens;
        let shards = cut(&measures, tokens, house.floor.places(&need));
        house.store.cut(&order.id, group, &shards).await?;
        let rows = house.store.shards(&order.id, group).await?;
        self.measure(&measures, &rows);
        let work = Work {
            house: house.clone(),
            order,
            group,
            lines: Arc::new(lines),
            measures: Arc::new(measures),
            folder: self.folder,
            gauge: self.gauge,
            winding_up: self.winding_up,
            abandoned: self.abandoned,
            until,
            turn: Arc::default(),
        };
        work.run(rows).await
    }

    /// Says how much work there is, and how much of it was done before.
    fn measure(&self, measures: &[Option<Measure>], rows: &[ShardRow]) {
        let weight = |row: &ShardRow| -> u64 {
            let of_lines = row.lines.iter();
            let of_lines = of_lines.filter_map(|n| measures.get(*n as usize)?.as_ref());
            of_lines.map(|measure| measure.weight).sum()
        };
        let left = rows
            .iter()
            .filter(|row| row.ended.is_none())
            .map(weight)
            .sum();
        let before = rows.iter().filter_map(|row| {
            let ended = row.ended.as_ref()?;
            Some((ended, row.lines.len() as u64))
        });
        self.gauge.start(left, before);
        let unfit = measures.iter().filter(|measure| measure.is_none()).count();
        self.gauge.failed(unfit as u64);
    }

    /// Fetches the lines once more, if their file is gone.
    async fn fetch(&self) -> Result<Lines, store::Error> {
        let bytes = self.house.blobs.get(&self.asked.input).await;
        let bytes = bytes.map_err(std::io::Error::other)?;
        let key = self.asked.key;
        let plain = blob::decrypt(key.as_bytes(), bytes).map_err(std::io::Error::other)?;
        let lines = Lines::from_bytes(&plain).map_err(std::io::Error::other)?;
        self.folder.keep_lines(&plain)?;
        Ok(lines)
    }
}
