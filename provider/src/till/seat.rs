//! An attempt's seat on its buyer's tab.

use std::sync::Arc;

use infernet_payments::Invoice;
use infernet_payments::ledger::Signed;
use infernet_payments::tab::Statement;
use infernet_protocol::money::{Msat, Price};
use infernet_protocol::tab::SignedTotals;
use nostr::{EventId, PublicKey};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::account::{Account, Bill, Book};
use super::{NoSeat, Till};
use crate::store::Ticket;

/// What a seat hears.
#[derive(Debug)]
pub enum Word {
    /// It may draw (further).
    Allowed,
    /// The buyer is to pay this.
    Due(Invoice),
    /// It has to end, for this reason.
    Stop(String),
    /// The buyer cannot be asked for money, for this reason.
    CannotAsk(String),
}

/// A seat. Dropped, it is left without a charge.
#[derive(Debug)]
pub struct Seat {
    till: Till,
    account: Arc<Account>,
    award: EventId,
    allowance: watch::Receiver<Option<u64>>,
    words: mpsc::UnboundedReceiver<Word>,
    has_ended: bool,
    /// A stranger's place while it waits.
    place: Option<OwnedSemaphorePermit>,
}

impl Seat {
    pub(super) fn take(
        till: &Till,
        account: &Arc<Account>,
        ticket: Ticket,
        price: Price,
        max_output_tokens: u64,
    ) -> Result<Self, NoSeat> {
        let award = ticket.award;
        let place = till.place_for(account)?;
        let (teller, words) = mpsc::unbounded_channel();
        let (allower, allowance) = watch::channel(None);
        let ends = (teller, allower);
        let now = till.0.clock.now();
        let opened = account
            .book()
            .opens(now, &ticket, price, max_output_tokens, ends);
        match opened {
            Ok(bill) => till.ask(account, bill),
            Err(unexpected) => return Err(NoSeat::Senseless(unexpected.0)),
        }
        Ok(Self {
            till: till.clone(),
            account: account.clone(),
            award,
            allowance,
            words,
            has_ended: false,
            place,
        })
    }

    /// It waits no longer.
    pub fn begins(&mut self) {
        self.place = None;
    }

    /// How much it may draw in all, once it may begin.
    pub fn allowance(&self) -> Option<u64> {
        *self.allowance.borrow()
    }

    /// The next word; [`Word::Allowed`] only where it is waited for. None is lost
    /// when the future is dropped.
    pub async fn next(&mut self, waits: bool) -> Word {
        tokio::select! {
            Some(word) = self.words.recv() => word,
            Ok(()) = self.allowance.changed(), if waits => Word::Allowed,
            else => std::future::pending().await,
        }
    }

    /// So many tokens were drawn in all.
    pub fn draws(&self, output_tokens: u64) {
        self.step(|book, now| book.draws(now, self.award, output_tokens));
    }

    /// How the tab stands, signed.
    pub fn totals(&self) -> Option<SignedTotals> {
        let totals = self.account.book().totals(&self.award)?;
        let statement = self.statement(totals);
        let signed = statement.signed(&self.till.0.keys);
        self.keep(statement, self.till.0.keys.public_key, &signed);
        Some(signed)
    }

    /// The buyer says how the tab stands. What it has not signed is dropped.
    pub fn acknowledges(&self, said: &SignedTotals) {
        let statement = self.statement(said.totals);
        let buyer = self.account.buyer;
        if statement.verify(&buyer, &said.signature).is_err() {
            return tracing::warn!(award = %self.award, peer = %buyer, "a forged acknowledgement");
        }
        let is_agreed = self.agrees(said);
        self.step(|book, now| book.acknowledges(now, self.award, said.totals));
        if is_agreed {
            self.keep(statement, buyer, said);
            infernet_node::mortality::point("acknowledged");
        }
    }

    /// The buyer wants another invoice, for no more than this.
    pub fn renews(&self, most: Msat) {
        self.step(|book, now| book.renews(now, self.award, most));
    }

    /// The attempt is over, and has brought something or not. What it costs is
    /// to be written down, and then [settled](Till::settle).
    pub fn end(mut self, has_brought: bool) -> Msat {
        self.has_ended = true;
        let now = self.till.0.clock.now();
        let (due, bill) = self.account.book().ends(now, self.award, has_brought);
        self.till.ask(&self.account, bill);
        due
    }

    fn step(&self, act: impl FnOnce(&mut Book, infernet_protocol::job::Millis) -> Option<Bill>) {
        self.till.step(&self.account, act);
    }

    fn statement(&self, totals: infernet_protocol::tab::Totals) -> Statement {
        Statement {
            buyer: self.account.buyer,
            provider: self.till.0.keys.public_key,
            award: self.award,
            totals,
        }
    }

    /// Only what we could have said ourselves is kept: it is what a restart
    /// charges.
    fn agrees(&self, said: &SignedTotals) -> bool {
        let ours = self.account.book().totals(&self.award);
        ours.is_some_and(|ours| {
            let (ours, said) = (ours, said.totals);
            said.input_tokens == ours.input_tokens
                && said.output_tokens <= ours.output_tokens
                && said.due_msat <= ours.due_msat
        })
    }

    /// Before the first output nothing is charged, so that nothing needs to be
    /// kept: awards that nobody pays leave nothing in the ledger.
    fn keep(&self, statement: Statement, author: PublicKey, signed: &SignedTotals) {
        if signed.totals.output_tokens == 0 {
            return;
        }
        let kept = Signed {
            statement,
            author,
            signature: signed.signature,
        };
        if let Err(error) = self.till.0.cashier.ledger().keep_soon(&kept) {
            tracing::error!(award = %self.award, %error, "cannot keep what was signed");
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let now = self.till.0.clock.now();
        let (_, bill) = self.account.book().ends(now, self.award, false);
        self.till.ask(&self.account, bill);
        self.till.let_go(&self.account);
    }
}
