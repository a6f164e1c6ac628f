//! Outputs that lie in blobs: they are fetched beside the job, which hears meanwhile that something is going on.

use std::time::Duration;

use infernet_protocol::batch::Blob;
use infernet_protocol::event::{JobResult, Signed};
use infernet_protocol::job::buyer::Input;
use nostr::EventId;
use tokio::time::{MissedTickBehavior, interval};

use super::results::is_of;
use super::{Driver, Report};

/// How often the job hears that an output is still being fetched: several times within its patience.
const TOLD_EVERY: Duration = Duration::from_secs(1);

impl Driver {
    /// Fetches the output of a result of the current attempt, once, and comes back.
    pub(super) fn fetch(&mut self, result: &Signed<JobResult>, blob: &Blob) -> Option<Input> {
        let current = self.current.as_mut()?;
        if !is_of(result, &current.award) || current.fetching.is_some() {
            return None;
        }
        current.fetching = Some(result.id());
        let (blobs, blob) = (self.shared().blobs.clone(), blob.clone());
        let (reporter, result) = (self.reporter.clone(), result.clone());
        self.shared().tasks.spawn(async move {
            let mut ticks = interval(TOLD_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut getting = std::pin::pin!(blobs.get(&blob));
            let fetched = loop {
                tokio::select! {
                    fetched = &mut getting => break fetched,
                    _ = ticks.tick() => {
                        if reporter.send(Report::Fetching(result.id())).is_err() {
                            return;
                        }
                    }
                }
            };
            // The job may be over by now.
            let _ = reporter.send(Report::Fetched(Box::new(result), fetched));
        });
        None
    }

    /// The provider has done its part, as far as anybody can tell yet.
    pub(super) fn fetching(&mut self, result: EventId) -> Option<Input> {
        let current = self.current.as_ref()?;
        let is_current = current.fetching == Some(result);
        let award = current.award.id();
        is_current.then_some(Input::Alive {
            award,
            accepted: true,
        })
    }

    /// An output is there, or cannot be had: then its provider has failed, who chose the servers.
    pub(super) fn fetched(
        &mut self,
        result: &Signed<JobResult>,
        fetched: Result<Vec<u8>, infernet_blobs::Error>,
    ) -> Option<Input> {
        let current = self.current.as_mut()?;
        if current.fetching != Some(result.id()) {
            return None;
        }
        current.fetching = None;
        let award = current.award.id();
        match fetched {
            Ok(bytes) => self.opened(result, Some(bytes)),
            Err(error) => {
                tracing::warn!(result = %result.id(), %error, "an output cannot be fetched");
                current.error = Some(format!("its output cannot be fetched: {error}"));
                Some(Input::GivenUp { award })
            }
        }
    }
}
