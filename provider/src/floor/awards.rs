//! What happens to an award: looked at once, checked beside the loop, then taken
//! on, declined or ignored.

use infernet_node::clock;
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::payload::{Decline, News};
use nostr::EventId;
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::{Entry, Floor, Heard, Phase};
use crate::admission::{self, Admitted, Declined, Verdict};
use crate::attempt::{self, Order};
use crate::queue::Full;
use crate::shop::{Address, plain_reason};
use crate::steady::wall;
use crate::store::Answer;

impl Floor {
    /// An award came. A replay, and one that nobody waits for any more, ends here.
    pub(super) async fn awarded(&mut self, Heard { event, is_live }: Heard) {
        let award = event.id;
        if admission::is_out_of_time(event.created_at, clock::now(), is_live) {
            return tracing::info!(%award, created_at = %event.created_at, "ignores an award that is out of time");
        }
        if self.is_known(&award).await {
            return tracing::debug!(%award, "ignores an award that it has seen");
        }
        if !self.awards.take(self.clock.now()) {
            return tracing::warn!(%award, peer = %event.pubkey, "ignores an award: too many come");
        }
        self.checking.insert(award);
        let shop = self.shop.clone();
        self.admissions
            .spawn_blocking(move || (award, admission::examine(&shop, event, wall())));
    }

    async fn is_known(&self, award: &EventId) -> bool {
        if self.checking.contains(award) || self.answered.contains(award) {
            return true;
        }
        match self.shop.store.knows(award).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(%error, "cannot look an award up");
                true
            }
        }
    }

    /// An award was checked.
    pub(super) async fn checked(&mut self, checked: Result<(EventId, Verdict), JoinError>) {
        let (award, verdict) = match checked {
            Ok(checked) => checked,
            // The award's id went with the task: it stays in `checking`, and is
            // not looked at again.
            Err(error) => return tracing::error!(%error, "checking an award failed"),
        };
        match verdict {
            Verdict::Ignore(why) => tracing::debug!(%award, why, "ignores an award"),
            Verdict::Decline(declined) => self.decline(*declined).await,
            Verdict::Admit(admitted) => self.admit(*admitted).await,
        }
        self.checking.remove(&award);
        self.answered.insert(award);
    }

    async fn admit(&mut self, admitted: Admitted) {
        let award = &admitted.award;
        let (id, job, buyer) = (award.id(), award.job_id(), award.author());
        if self.cancelled.contains(&(id, buyer)) || self.cancelled.contains(&(job, buyer)) {
            return tracing::info!(%job, award = %id, "ignores an award that was cancelled");
        }
        match self.shop.store.newest_attempt(&buyer, &job).await {
            Ok(newest) if newest >= award.attempt => {
                return tracing::info!(%job, award = %id, newest, "ignores a superseded award");
            }
            Ok(_) => {}
            Err(error) => return self.cannot_write(admitted, &error).await,
        }
        if self.is_closing {
            let detail = "the provider is about to stop".to_owned();
            return self.refuse(admitted, Decline::Closing, detail).await;
        }
        match self.queue.enter(id, buyer) {
            Ok(ahead) => self.accept(admitted, ahead).await,
            Err(full @ (Full::All | Full::OneBuyer)) => {
                self.refuse(admitted, Decline::Busy, full.to_string()).await;
            }
        }
    }

    /// Takes an award on: written down first, then told.
    async fn accept(&mut self, admitted: Admitted, ahead: u32) {
        let id = admitted.award.id();
        match self.write(&admitted.award, Answer::Accepted).await {
            Ok(true) => {}
            Ok(false) => return self.queue.leave(&id),
            Err(error) => {
                self.queue.leave(&id);
                return self.cannot_write(admitted, &error).await;
            }
        }
        self.supersede(&admitted.award);
        let award = &admitted.award;
        tracing::info!(
            job = %award.job_id(), award = %id, attempt = award.attempt, peer = %award.author(),
            model = admitted.item.model.name, input_tokens = admitted.input_tokens, ahead, "accepted"
        );
        self.tally.accepted += 1;
        let (orders, obeyed) = mpsc::unbounded_channel();
        let entry = Entry {
            orders,
            buyer: award.author(),
            job: award.job_id(),
            number: award.attempt,
            conversation: admitted.address.conversation.clone(),
            phase: Phase::Waiting,
            begun_at: None,
            wished_at: self.clock.now(),
        };
        self.attempts.insert(id, entry);
        let (shop, reporter) = (self.shop.clone(), self.reporter.clone());
        tokio::spawn(attempt::drive(shop, admitted, ahead, obeyed, reporter));
        self.begin();
    }

    /// A higher attempt of a job ends the lower ones.
    fn supersede(&self, award: &Signed<Award>) {
        let (job, buyer) = (award.job_id(), award.author());
        let entries = self.attempts.values();
        for entry in
            entries.filter(|e| e.job == job && e.buyer == buyer && e.number < award.attempt)
        {
            entry.order(Order::Stop);
        }
    }

    async fn write(
        &self,
        award: &Signed<Award>,
        answer: Answer,
    ) -> Result<bool, crate::store::Error> {
        let at = clock::now();
        let forget = admission::remember_until(award, answer, at);
        self.shop.store.answer(award, answer, at, forget).await
    }

    /// Without the store nothing can be promised.
    async fn cannot_write(&mut self, admitted: Admitted, error: &crate::store::Error) {
        tracing::error!(award = %admitted.award.id(), %error, "cannot take an award on");
        let detail = "the provider's disk has a fault".to_owned();
        self.refuse(admitted, Decline::Busy, detail).await;
    }

    async fn refuse(&mut self, admitted: Admitted, reason: Decline, detail: String) {
        let Admitted { award, address, .. } = admitted;
        let declined = Declined {
            award: Some(award),
            address,
            reason,
            detail: plain_reason(&detail),
        };
        self.decline(declined).await;
    }

    async fn decline(&mut self, declined: Declined) {
        let Declined {
            award,
            address,
            reason,
            detail,
        } = declined;
        tracing::info!(
            job = %address.job, award = %address.award, peer = %address.buyer, %reason, detail,
            "declined"
        );
        // An award that is no valid one is no promise broken if it comes again.
        if let Some(award) = &award
            && let Err(error) = self.write(award, Answer::Declined).await
        {
            tracing::error!(%error, "cannot write down a declined award");
        }
        self.tally.declined += 1;
        self.tell_declined(&address, reason, detail);
    }

    fn tell_declined(&self, address: &Address, reason: Decline, detail: String) {
        self.shop.tell(address, News::Declined { reason, detail });
    }
}
