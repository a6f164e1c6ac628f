//! Going on with payments that a process before us has begun.

use nostr::Timestamp;

use crate::cashier::{Cashier, Error};
use crate::ledger::{Due, Intent, Standing};
use crate::rail::{Direction, Order};

impl Cashier {
    /// Goes on with a payment that was planned, or that was under way and of which the wallet has never heard. The wallet
    /// is given the same order once more, which it never pays twice, and so nobody has to wait until the invoice has
    /// run out. For who is alone with its ledger and its wallet.
    ///
    /// # Errors
    /// What the wallet refuses; [`Error::Ledger`].
    pub async fn go_on(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        let Some(invoice) = &intent.invoice else {
            return Ok(());
        };
        match (intent.direction, intent.standing) {
            (Direction::Outgoing, Standing::Planned) => {
                let due = Due {
                    reason: intent.reason,
                    counterparty: intent.counterparty,
                    award: intent.award,
                };
                let paid = self.pay(&due, invoice, intent.max_fee, None, now).await;
                paid.map(drop)
            }
            (Direction::Outgoing, Standing::UnderWay) => {
                let hash = invoice.hash();
                match self.rail().look_up(intent.direction, &hash).await? {
                    Some(_) => Ok(()),
                    None => self.order_again(intent, now).await,
                }
            }
            _ => Ok(()),
        }
    }

    async fn order_again(&self, intent: &Intent, now: Timestamp) -> Result<(), Error> {
        let Some(invoice) = intent.invoice.clone() else {
            return Ok(());
        };
        let order = Order {
            key: intent.key,
            invoice,
            max_fee: intent.max_fee,
        };
        match self.rail().pay(&order).await {
            Ok(payment) => self.book(intent, &payment, now).await,
            // The wallet cannot be asked now: it is later, as ever.
            Err(error) if error.is_temporary() => Err(error.into()),
            Err(error) => {
                self.fail(intent, Standing::UnderWay, now).await?;
                Err(error.into())
            }
        }
    }
}
