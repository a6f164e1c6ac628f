//! What an aggregator asks of a provider that it owes money: an invoice for what it pays now.

use std::time::Duration;

use infernet_payments::Invoice;
use infernet_protocol::payload::{News, Payload, Payout, Progress, Wish};
use infernet_protocol::seal::{Conversation, overhear};
use nostr::{EventId, PublicKey};
use tokio::time::{Instant, timeout_at};

use crate::control::control;
use crate::routing::{Ear, Heard};
use crate::{Client, Error};

/// How long a provider has to answer, and how often it is asked meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_secs(2);

impl Client {
    /// Tells a provider what is made of its work in escrow, and asks for an invoice for what is paid now. `award` is
    /// the latest of these works: the first attempt of a direct job, which is named by it. Nothing is paid here; the
    /// invoice is for exactly [`Payout::pay_msat`], and all else about it is for the caller to check.
    ///
    /// # Errors
    /// [`Error::PayoutUnanswered`] by a provider that is silent, [`Error::PayoutRefused`] by one that does not agree,
    /// or sends an invoice for another amount.
    pub async fn payout(
        &self,
        provider: PublicKey,
        award: EventId,
        payout: Payout,
    ) -> Result<Invoice, Error> {
        let shared = self.shared();
        let keys = shared.keys();
        let conversation = Conversation::between(keys.secret_key(), &provider)
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let mut ear = Ear::new(&shared.routes);
        ear.listen(award);
        let until = Instant::now() + ANSWER_PATIENCE;
        let about = (provider, award);
        while Instant::now() < until {
            let wish = Wish::Payout(payout.clone());
            let event = control(keys, &conversation, provider, award, award, wish);
            let event = event.ok_or_else(|| Error::Invalid("it cannot be signed".into()))?;
            if let Err(error) = shared.link.send(&event) {
                tracing::debug!(%error, "a payout was not sent");
            }
            let again = (Instant::now() + ASK_EVERY).min(until);
            if let Ok(answer) = timeout_at(again, heard(&mut ear, about, &conversation)).await {
                return read(answer, &payout);
            }
        }
        Err(Error::PayoutUnanswered)
    }
}

/// The provider's next word about a payout: an invoice, or why there is none.
async fn heard(
    ear: &mut Ear,
    (provider, award): (PublicKey, EventId),
    conversation: &Conversation,
) -> Result<String, String> {
    loop {
        let Heard::Progress { author, content } = ear.next().await else {
            continue;
        };
        if author != provider {
            continue;
        }
        let bytes = overhear(conversation, &content).ok();
        let progress = bytes.and_then(|bytes| Progress::from_bytes(&bytes).ok());
        match progress.map(|progress| (progress.award, progress.news)) {
            Some((about, News::Payable { invoice })) if about == award => return Ok(invoice),
            Some((about, News::RefundRefused { detail })) if about == award => return Err(detail),
            _ => {}
        }
    }
}

fn read(answer: Result<String, String>, payout: &Payout) -> Result<Invoice, Error> {
    let invoice = answer.map_err(Error::PayoutRefused)?;
    let refused = |why: &str| Error::PayoutRefused(why.to_owned());
    let invoice: Invoice = invoice
        .parse()
        .map_err(|_| refused("its invoice cannot be read"))?;
    match invoice.amount() == payout.pay_msat {
        true => Ok(invoice),
        false => Err(refused("its invoice is for another amount")),
    }
}
