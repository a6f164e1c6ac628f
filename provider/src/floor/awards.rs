//! What happens to an award: looked at once, checked beside the loop, then taken
//! on, declined or ignored.

use infernet_node::{clock, mortality};
use infernet_protocol::event::{Award, Signed};
use infernet_protocol::money::PaymentKind;
use infernet_protocol::payload::{Decline, News};
use nostr::{Event, EventId, PublicKey};
use tokio::sync::mpsc;
use tokio::task::JoinError;

use super::{Entry, Floor, Heard, Phase, wishes};
use crate::admission::{self, Admitted, Declined, Verdict};
use crate::attempt::{self, Order, Pay};
use crate::delivery;
use crate::limits::Bucket;
use crate::lobby::{self, Guest};
use crate::parcels::{self, Arrived, Fetched, MAX_FETCHES, Wanted};
use crate::queue::Full;
use crate::shop::{Address, plain_reason};
use crate::steady::wall;
use crate::store::Answered;
use crate::till::Till;

/// Awards that are not served, until they are written down.
const MAX_REFUSED: usize = 256;

/// So many bytes of an award are one more to be looked at: the longest prompts take
/// ten times as long to check as the usual ones.
const BYTES_OF_ONE: usize = 4_096;

/// Bytes of an award that is checked in a tenth of a millisecond: handing it to another
/// thread would take as long.
const SHORT: usize = 16_384;

/// Where an attempt hears its orders.
type Orders = mpsc::UnboundedReceiver<Order>;

/// An award that has a place in the queue, once the store has answered.
#[derive(Debug)]
pub(super) struct Written {
    admitted: Admitted,
    pay: Pay,
    orders: Orders,
    ahead: u32,
    /// Whether it is taken on.
    done: Result<bool, crate::store::Error>,
}

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
        let is_customer = self.is_customer(&event.pubkey);
        let weight = 1 + event.content.len() / BYTES_OF_ONE;
        if !self
            .awards
            .take(is_customer, weight as u64, self.clock.now())
        {
            return tracing::warn!(%award, peer = %event.pubkey, "ignores an award: too many come");
        }
        self.checking.insert(award);
        self.examine(event, Fetched::default());
    }

    /// Looks at an award beside the loop.
    fn examine(&mut self, event: Event, fetched: Fetched) {
        let (shop, award) = (self.shop.clone(), event.id);
        let is_short = event.content.len() <= SHORT && fetched.is_empty();
        let examine = move || {
            let verdict = admission::examine(&shop, event, fetched, wall());
            (award, verdict)
        };
        match is_short {
            true => self.admissions.spawn(async move { examine() }),
            false => self.admissions.spawn_blocking(examine),
        };
    }

    /// Has fetched what an award needs, unless it could not be served anyway.
    async fn fetch(&mut self, wanted: Box<Wanted>) {
        let room = self.queue.room_for(&wanted.event.pubkey);
        let room = match self.fetches.len() < MAX_FETCHES {
            true => room,
            false => Err(Full::All),
        };
        match room {
            Ok(()) => {
                let fetching = parcels::fetch(self.shop.clone(), wanted);
                self.fetches.spawn(fetching);
            }
            Err(full) => {
                let detail = full.to_string();
                self.not_fetched(*wanted, Decline::Busy, &detail).await;
            }
        }
    }

    /// What an award needs is there, or cannot be had.
    pub(super) async fn arrived(&mut self, arrived: Result<Arrived, JoinError>) {
        match arrived {
            Ok(Ok((event, fetched))) => self.examine(event, fetched),
            Ok(Err((wanted, why))) => {
                let detail = format!("the input: {why}");
                self.not_fetched(*wanted, Decline::Input, &detail).await;
            }
            // As for one whose check failed.
            Err(error) => tracing::error!(%error, "fetching for an award failed"),
        }
    }

    async fn not_fetched(&mut self, wanted: Wanted, reason: Decline, detail: &str) {
        let award = wanted.event.id;
        let declined = Declined {
            award: Signed::from_verified(wanted.event).ok(),
            address: wanted.address,
            reason,
            detail: plain_reason(detail),
        };
        self.decline(declined).await;
        self.checking.remove(&award);
        self.answered.insert(award);
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
            // It is still being checked.
            Verdict::Fetch(wanted) => return self.fetch(wanted).await,
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
            tracing::info!(%job, award = %id, "ignores an award that was cancelled");
            return self.close_to(award).await;
        }
        if self.attempts.contains_key(&id) {
            return tracing::debug!(award = %id, "ignores an award that it has");
        }
        // One that is free is taken on at once, and the store looks when it writes it down.
        if award.terms != PaymentKind::Free {
            match self.shop.store.newest_attempt(&buyer, &job).await {
                Ok(newest) if newest >= award.attempt => {
                    return tracing::info!(%job, award = %id, newest, "ignores a superseded award");
                }
                Ok(_) => {}
                Err(error) => return self.cannot_write(admitted, &error).await,
            }
        }
        if self.is_closing {
            let detail = "the provider is about to stop".to_owned();
            return self.refuse(admitted, Decline::Closing, detail).await;
        }
        match (admitted.award.terms, self.shop.till.clone()) {
            (PaymentKind::Tab, Some(till)) => self.receive(admitted, till).await,
            (PaymentKind::Escrow, Some(till)) => self.lend(admitted, till).await,
            _ => self.enter(admitted, Pay::Nothing).await,
        }
    }

    /// Takes on what is paid for after its check, if its buyer may owe so much.
    async fn lend(&mut self, admitted: Admitted, till: Till) {
        match till.lend(&admitted.award.author(), admitted.most()).await {
            Ok(loan) => self.enter(admitted, Pay::Later(loan)).await,
            Err(why) => {
                let reason = why.decline();
                self.refuse(admitted, reason, why.to_string()).await;
            }
        }
    }

    /// Takes on what need not be paid for now, if there is room.
    async fn enter(&mut self, admitted: Admitted, pay: Pay) {
        let award = &admitted.award;
        let price = award.price.output_msat;
        match self.queue.enter(award.id(), award.author(), price) {
            Ok(ahead) => self.accept(admitted, pay, None, ahead),
            Err(full) => self.is_full(admitted, full).await,
        }
    }

    async fn is_full(&mut self, admitted: Admitted, full: Full) {
        self.refuse(admitted, Decline::Busy, full.to_string()).await;
    }

    /// Lets an award that has to be paid for wait for that, if it could then be
    /// served.
    async fn receive(&mut self, admitted: Admitted, till: Till) {
        let (id, buyer) = (admitted.award.id(), admitted.award.author());
        if let Err(full) = self.room_to_wait(&buyer) {
            return self.is_full(admitted, full).await;
        }
        self.supersede(&admitted.award);
        let orders = self.enlist(&admitted, Phase::Unpaid);
        tracing::info!(
            job = %admitted.award.job_id(), award = %id, peer = %buyer,
            input_tokens = admitted.input_tokens, "looks whether it is paid for"
        );
        let (shop, reporter) = (self.shop.clone(), self.reporter.clone());
        mortality::point("award-admitted");
        tokio::spawn(lobby::wait(shop, till, admitted, orders, reporter));
    }

    fn room_to_wait(&self, buyer: &PublicKey) -> Result<(), Full> {
        self.queue.room_for(buyer)?;
        let unpaid = self.attempts.values().filter(|e| e.phase == Phase::Unpaid);
        let (mut all, mut theirs) = (0, 0);
        for entry in unpaid {
            all += 1;
            theirs += usize::from(entry.buyer == *buyer);
        }
        if all >= lobby::MAX_GUESTS {
            return Err(Full::All);
        }
        // No more than could be served next.
        match theirs > self.queue.places() {
            true => Err(Full::OneBuyer),
            false => Ok(()),
        }
    }

    /// One that waited for money may begin.
    pub(super) async fn paid(&mut self, guest: Guest) {
        let (id, buyer) = (guest.admitted.award.id(), guest.admitted.award.author());
        let job = guest.admitted.award.job_id();
        let number = guest.admitted.award.attempt;
        let price = guest.admitted.award.price.output_msat;
        match self.shop.store.newest_attempt(&buyer, &job).await {
            Ok(newest) if newest >= number => {
                tracing::info!(%job, award = %id, newest, "leaves a superseded award");
                drop(guest);
                return self.unseat(&id);
            }
            Ok(_) => {}
            Err(error) => {
                self.unseat(&id);
                return self.cannot_write(guest.admitted, &error).await;
            }
        }
        if self.is_closing {
            let detail = "the provider is about to stop".to_owned();
            return self
                .turned_away(guest.admitted, Decline::Closing, detail)
                .await;
        }
        // Who has paid is served, whoever has come meanwhile.
        let entered = match guest.has_paid {
            true => Ok(self.queue.squeeze_in(id, buyer, price)),
            false => self.queue.enter(id, buyer, price),
        };
        match entered {
            Ok(ahead) => {
                let (pay, orders) = (Pay::Tab(guest.seat), Some(guest.orders));
                self.accept(guest.admitted, pay, orders, ahead);
            }
            Err(full) => {
                let detail = full.to_string();
                self.turned_away(guest.admitted, Decline::Busy, detail)
                    .await;
            }
        }
    }

    /// One that waited for money is not taken on. What it has paid stays on the
    /// tab.
    pub(super) async fn turned_away(
        &mut self,
        admitted: Admitted,
        reason: Decline,
        detail: String,
    ) {
        self.unseat(&admitted.award.id());
        self.refuse(admitted, reason, detail).await;
    }

    /// Forgets one that waited for money.
    pub(super) fn unseat(&mut self, award: &EventId) {
        self.attempts.remove(award);
        delivery::leave(&self.shop, *award);
    }

    /// Takes an award on that has a place in the queue: it is written down first, beside
    /// the loop, and then told. Its orders wait for it; one that has waited for money
    /// hears its `orders` already.
    fn accept(&mut self, admitted: Admitted, pay: Pay, orders: Option<Orders>, ahead: u32) {
        let id = admitted.award.id();
        let is_paid = !matches!(pay, Pay::Nothing);
        let ticket = is_paid.then(|| admitted.ticket(clock::now()));
        let at = clock::now();
        let forget = admission::remember_accepted(&admitted.award, at);
        let answered = Answered::now(&admitted.award, at, forget);
        let orders = match orders {
            Some(orders) => {
                if let Some(entry) = self.attempts.get_mut(&id) {
                    entry.phase = Phase::Waiting;
                }
                orders
            }
            None => self.enlist(&admitted, Phase::Waiting),
        };
        let store = self.shop.store.clone();
        self.writings.spawn(async move {
            Written {
                done: store.accept(answered, ticket).await,
                admitted,
                pay,
                orders,
                ahead,
            }
        });
    }

    /// An award that is taken on is written down, or not.
    pub(super) async fn written(&mut self, written: Written) {
        let Written {
            admitted,
            pay,
            orders,
            ahead,
            done,
        } = written;
        let id = admitted.award.id();
        if !matches!(done, Ok(true)) {
            self.queue.leave(&id);
            self.unseat(&id);
            match done {
                Ok(_) => {
                    tracing::info!(award = %id, "ignores an award that was answered or superseded")
                }
                Err(error) => self.cannot_write(admitted, &error).await,
            }
            return self.begin();
        }
        self.supersede(&admitted.award);
        let award = &admitted.award;
        tracing::info!(
            job = %award.job_id(), award = %id, attempt = award.attempt, peer = %award.author(),
            model = admitted.item.model.name, task = %award.task,
            input_tokens = admitted.input_tokens, ahead, "accepted"
        );
        self.tally.accepted += 1;
        let (shop, reporter) = (self.shop.clone(), self.reporter.clone());
        tokio::spawn(attempt::drive(shop, admitted, pay, ahead, orders, reporter));
        self.begin();
    }

    /// Puts an attempt into the table; answers where it hears its orders.
    fn enlist(&mut self, admitted: &Admitted, phase: Phase) -> Orders {
        let (orders, obeyed) = mpsc::unbounded_channel();
        let (award, at) = (&admitted.award, self.clock.now());
        let entry = Entry {
            orders,
            buyer: award.author(),
            job: award.job_id(),
            number: award.attempt,
            conversation: admitted.address.conversation.clone(),
            phase,
            begun_at: None,
            wished_at: at,
            words_on_money: Bucket::new(wishes::ON_MONEY_PER_S, wishes::ON_MONEY_BURST, at),
        };
        self.attempts.insert(award.id(), entry);
        obeyed
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
        if let Some(award) = &award {
            self.close_to(award).await;
        }
        self.tally.declined += 1;
        self.tell_declined(&address, reason, detail);
    }

    /// An award is not served, whoever brings it once more: what its buyer has left
    /// is not spent on it. It is written down soon, so that a flood of them makes
    /// nobody wait for the disk.
    pub(super) async fn close_to(&mut self, award: &Signed<Award>) {
        let at = clock::now();
        let forget = admission::remember_refused(award, at);
        self.refused.push(Answered::now(award, at, forget));
        if self.refused.len() >= MAX_REFUSED {
            self.write_refused().await;
        }
    }

    pub(super) async fn write_refused(&mut self) {
        let refused = std::mem::take(&mut self.refused);
        if let Err(error) = self.shop.store.refuse(&refused).await {
            tracing::error!(%error, "cannot write down which awards are not served");
        }
    }

    fn tell_declined(&self, address: &Address, reason: Decline, detail: String) {
        self.shop
            .tell(address, News::Declined { reason, detail }, None);
    }
}
