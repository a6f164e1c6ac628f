//! What buyers wish while their attempts run, and after.

use infernet_protocol::event::{Cancel, Private, Signed};
use infernet_protocol::payload::{Control, News, Payload, Payout, Wish};
use infernet_protocol::seal::{self, Conversation};
use nostr::{Event, EventId, PublicKey};

use super::{Entry, Floor};
use crate::attempt::Order;
use crate::shop::{Address, Shop, plain_reason};
use crate::till::{NotPayable, NotRefunded, Till};

/// How often one attempt repeats itself: a wish of 200 bytes may cost the whole
/// answer again. A buyer waits three times this long before it asks.
const WISH_EVERY_MS: u64 = 100;

/// Acknowledgements and the like that are looked at for one attempt in a second,
/// sustained and at once: a buyer sends one for each piece, and each costs a
/// signature.
pub(super) const ON_MONEY_PER_S: u64 = 50;
pub(super) const ON_MONEY_BURST: u64 = 100;

/// Refunds, and wishes of those without an attempt here, that are looked into in a
/// second, sustained and at once, of customers and of strangers each: a refund may
/// be wished for long after the last attempt.
pub(super) const REFUNDS_PER_S: u64 = 10;
pub(super) const REFUNDS_BURST: u64 = 40;

impl Floor {
    /// A private message of a buyer's. Those of unknown attempts are opened
    /// seldom: a stranger's mostly costs a look into a table.
    pub(super) fn wished(&mut self, event: &Event) {
        let Ok(envelope) = Private::parse(event) else {
            return;
        };
        let ours = |entry: &&Entry| entry.job == envelope.job && entry.buyer == event.pubkey;
        let Some(known) = self.attempts.values().find(ours) else {
            return self.wished_later(&envelope, event.pubkey);
        };
        let conversation = known.conversation.clone();
        let opened = seal::overhear(&conversation, &envelope.content);
        match opened.and_then(|bytes| Control::from_bytes(&bytes)) {
            Ok(Control { award, wish }) => match money(wish) {
                Ok(wish) => {
                    if self.may_wish(&event.pubkey) {
                        let address = address(&envelope, award, event.pubkey, conversation);
                        self.settle_up(address, wish);
                    }
                }
                Err(wish) => self.wish(&Control { award, wish }, &event.pubkey),
            },
            Err(error) => tracing::debug!(job = %envelope.job, %error, "a wish that says nothing"),
        }
    }

    fn wish(&mut self, control: &Control, buyer: &PublicKey) {
        let at = self.clock.now();
        let entry = self.attempts.get_mut(&control.award);
        let Some(entry) = entry.filter(|entry| entry.buyer == *buyer) else {
            return;
        };
        match &control.wish {
            Wish::Stop => entry.order(Order::Stop),
            Wish::Resend { from } => {
                if at.since(entry.wished_at) >= WISH_EVERY_MS {
                    entry.wished_at = at;
                    entry.order(Order::Resend(*from));
                }
            }
            Wish::Acknowledge { tab } => {
                if entry.words_on_money.take(at) {
                    entry.order(Order::Acknowledged(*tab));
                }
            }
            Wish::Invoice { most_msat } => {
                if entry.words_on_money.take(at) {
                    entry.order(Order::Renew(*most_msat));
                }
            }
            // About the tab, whatever runs.
            Wish::Refund { .. } | Wish::Payout(_) => {}
        }
    }

    fn may_wish(&mut self, buyer: &PublicKey) -> bool {
        let is_customer = self.is_customer(buyer);
        self.refunds.take(is_customer, 1, self.clock.now())
    }

    /// A wish about an attempt that is over and forgotten: only money that is left, or
    /// owed, means anything then.
    fn wished_later(&mut self, envelope: &Private, buyer: PublicKey) {
        if self.shop.till.is_none() || !self.may_wish(&buyer) {
            return tracing::debug!(job = %envelope.job, "a wish for nothing that runs here");
        }
        let Ok(conversation) = self.shop.conversations.with(&buyer) else {
            return;
        };
        let opened = seal::overhear(&conversation, &envelope.content);
        let control = opened.and_then(|bytes| Control::from_bytes(&bytes));
        if let Ok(Control { award, wish }) = control
            && let Ok(wish) = money(wish)
        {
            self.settle_up(address(envelope, award, buyer, conversation), wish);
        }
    }

    /// Pays back, or asks for what is owed, beside the loop.
    fn settle_up(&self, address: Address, wish: OnMoney) {
        let Some(till) = self.shop.till.clone() else {
            return;
        };
        let shop = self.shop.clone();
        tokio::spawn(async move {
            let refused = match wish {
                OnMoney::Refund(invoice) => refund(&shop, &till, &address, &invoice)
                    .await
                    .map_err(|why| why.to_string()),
                OnMoney::Payout(payout) => pay_out(&shop, &till, &address, &payout)
                    .await
                    .map_err(|why| why.to_string()),
            };
            if let Err(why) = refused {
                tracing::info!(award = %address.award, peer = %address.buyer, why, "refuses a refund or a payout");
                let detail = plain_reason(&why);
                shop.tell(&address, News::RefundRefused { detail }, None);
            }
        });
    }

    /// A buyer has ended an attempt, or a whole job. It may come before the award
    /// does, over another relay.
    pub(super) fn cancelled(&mut self, event: Event) {
        let buyer = event.pubkey;
        let Ok(cancel) = Signed::<Cancel>::from_verified(event) else {
            return;
        };
        let ends = |award: &EventId, entry: &Entry| match cancel.award {
            Some(ended) => *award == ended,
            None => entry.job == cancel.job,
        };
        let attempts = self.attempts.iter();
        for (award, entry) in attempts.filter(|(_, entry)| entry.buyer == buyer) {
            if ends(award, entry) {
                tracing::info!(job = %entry.job, %award, reason = ?cancel.reason, "stopped by its buyer");
                entry.order(Order::Stop);
            }
        }
        self.cancelled
            .insert((cancel.award.unwrap_or(cancel.job), buyer));
    }
}

const fn address(
    envelope: &Private,
    award: EventId,
    buyer: PublicKey,
    conversation: Conversation,
) -> Address {
    Address {
        job: envelope.job,
        award,
        buyer,
        conversation,
    }
}

/// A wish about money that is left or owed, whatever runs.
enum OnMoney {
    Refund(String),
    Payout(Payout),
}

/// Tells a wish about money that is left or owed from others.
fn money(wish: Wish) -> Result<OnMoney, Wish> {
    match wish {
        Wish::Refund { invoice } => Ok(OnMoney::Refund(invoice)),
        Wish::Payout(payout) => Ok(OnMoney::Payout(payout)),
        Wish::Resend { .. } | Wish::Acknowledge { .. } | Wish::Invoice { .. } | Wish::Stop => {
            Err(wish)
        }
    }
}

/// Books what an aggregator makes of our work, and hands out the invoice for it.
async fn pay_out(
    shop: &Shop,
    till: &Till,
    address: &Address,
    payout: &Payout,
) -> Result<(), NotPayable> {
    let invoice = till.payable(&address.buyer, &address.award, payout).await?;
    let invoice = invoice.as_str().to_owned();
    shop.tell(address, News::Payable { invoice }, None);
    Ok(())
}

/// Says that it is paid once it is written down, so that asking again is safe.
async fn refund(
    shop: &Shop,
    till: &Till,
    address: &Address,
    invoice: &str,
) -> Result<(), NotRefunded> {
    let refund = till
        .plan_refund(&address.buyer, &address.award, invoice)
        .await?;
    shop.tell(address, News::Refunding, None);
    till.pay_back(&refund).await
}
