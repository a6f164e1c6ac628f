//! One reconciliation, for whoever asks on the command line: by the relay that runs in the folder, or without it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use infernet_node::owner::Visitor;
use infernet_node::{clock, keys};
use nostr::Keys;
use tokio::sync::watch;
use tokio::time::interval;

use super::{Ours, Progress, Task, Unwanted, equalise};
use crate::admission::Admission;
use crate::lists::Lists;
use crate::options::Options;
use crate::owner::{self, Question};
use crate::server;
use crate::store::Store;

/// The key by which other relays know this one, in its folder.
const KEY: &str = "relay.nsec";

/// How often progress is told of.
const REPORT_EVERY: Duration = Duration::from_millis(500);

/// Why it did not come to its end. What was exchanged by then stays where it went.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The folder cannot be used.
    #[error(transparent)]
    Folder(#[from] server::Error),
    /// There is no key for this relay.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// The relay that has the folder cannot be talked to, or says why it could not be done.
    #[error(transparent)]
    Owner(#[from] owner::Error),
    /// The reconciliation itself.
    #[error(transparent)]
    Sync(#[from] super::Error),
}

/// The key by which other relays know the relay in `folder`, made if there is none.
///
/// # Errors
/// A file that others can read or that is no key, a disk that refuses.
pub(crate) fn key(folder: &Path) -> Result<Keys, keys::Error> {
    Ok(keys::load_or_make(&folder.join(KEY))?.keys)
}

/// Makes the relay of `options.data` and another equal, once. The relay does it if it runs; otherwise its store is
/// opened here. `report` hears how far it has come, again and again, and at its end.
///
/// # Errors
/// With what is in the way.
pub async fn once(
    options: &Options,
    task: &Task,
    report: impl FnMut(&Progress),
) -> Result<(), Failure> {
    match owner::visit(&options.data).await {
        Ok(visitor) => by_the_relay(visitor, task, report).await,
        Err(owner::Error::NotRunning { .. }) => {
            let (ours, keys) = open(options).await?;
            without_it(&ours, &keys, task, report).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn by_the_relay(
    mut visitor: Visitor,
    task: &Task,
    mut report: impl FnMut(&Progress),
) -> Result<(), Failure> {
    let mut progress: Progress = visitor.ask(&Question::Sync(Box::new(task.clone()))).await?;
    report(&progress);
    while !progress.complete {
        progress = visitor.more().await?;
        report(&progress);
    }
    Ok(())
}

async fn without_it(
    ours: &Ours,
    keys: &Keys,
    task: &Task,
    mut report: impl FnMut(&Progress),
) -> Result<(), Failure> {
    let progress = watch::Sender::new(Progress::default());
    let mut unwanted = Unwanted::default();
    let work = equalise(ours, task, keys, clock::now(), &mut unwanted, &progress);
    let mut work = pin!(work);
    let mut ticks = interval(REPORT_EVERY);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => report(&progress.borrow()),
        }
    };
    report(&progress.borrow());
    Ok(done?)
}

/// The relay in a folder where none runs.
async fn open(options: &Options) -> Result<(Ours, Keys), Failure> {
    let store = Store::open(&options.data).map_err(|source| server::Error::Store {
        folder: options.data.clone(),
        source,
    })?;
    let lists = Lists::open(&options.data, options.lists.clone()).map_err(server::Error::from)?;
    let admission = Admission::new(options, Arc::new(lists));
    let recalled = admission.recall_bans(&store).await;
    recalled.map_err(|source| server::Error::Bans { source })?;
    let keys = key(&options.data)?;
    let (store, admission) = (Arc::new(store), Arc::new(admission));
    let ours = Ours::new(store, admission, None, Arc::default(), options.general);
    Ok((ours, keys))
}
