//! What is inside the envelopes: requests, answers, news, and how a payment is written.

use infernet_protocol::money::Msat;
use nostr::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rail::{Direction, Error, Payment, State};
use crate::{Invoice, PaymentHash};

pub(super) const PAY_INVOICE: &str = "pay_invoice";
pub(super) const MAKE_INVOICE: &str = "make_invoice";
pub(super) const MAKE_HOLD_INVOICE: &str = "make_hold_invoice";
pub(super) const SETTLE_HOLD_INVOICE: &str = "settle_hold_invoice";
pub(super) const CANCEL_HOLD_INVOICE: &str = "cancel_hold_invoice";
pub(super) const LOOKUP_INVOICE: &str = "lookup_invoice";
pub(super) const LIST_TRANSACTIONS: &str = "list_transactions";
pub(super) const GET_BALANCE: &str = "get_balance";
pub(super) const GET_INFO: &str = "get_info";

/// The code for a payment that was tried and came back.
pub(super) const PAYMENT_FAILED: &str = "PAYMENT_FAILED";

/// Money has come.
pub(super) const PAYMENT_RECEIVED: &str = "payment_received";
/// Money has gone.
pub(super) const PAYMENT_SENT: &str = "payment_sent";
/// Money is held.
pub(super) const HOLD_INVOICE_ACCEPTED: &str = "hold_invoice_accepted";

/// Characters of a wallet's words that are kept.
const MAX_WORDS: usize = 200;

/// A client's request.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) method: String,
    #[serde(default)]
    pub(super) params: Value,
}

/// A wallet's answer.
#[derive(Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) result_type: String,
    #[serde(default)]
    pub(super) error: Option<Fault>,
    #[serde(default)]
    pub(super) result: Option<Value>,
}

/// Why a wallet did not do it.
#[derive(Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) code: String,
    #[serde(default)]
    pub(super) message: String,
}

/// A wallet's news.
#[derive(Serialize, Deserialize)]
pub(super) struct Notification {
    pub(super) notification_type: String,
    pub(super) notification: Value,
}

/// A payment as NIP-47 writes it. What other wallets leave out is left out here.
#[derive(Serialize, Deserialize)]
pub(super) struct Transaction {
    #[serde(rename = "type", default)]
    direction: Option<String>,
    #[serde(default)]
    state: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) invoice: Option<String>,
    payment_hash: PaymentHash,
    amount: u64,
    #[serde(default)]
    fees_paid: Option<u64>,
    #[serde(default)]
    created_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    preimage: Option<String>,
}

impl Transaction {
    pub(super) fn of(payment: &Payment) -> Self {
        let (settled_at, fee, preimage) = match payment.state {
            State::Settled { at, fee, preimage } => (Some(at.as_secs()), fee, preimage),
            _ => (None, Msat::ZERO, None),
        };
        Self {
            direction: Some(direction_name(payment.direction).to_owned()),
            state: Some(state_name(&payment.state).to_owned()),
            invoice: None,
            payment_hash: payment.hash,
            amount: payment.amount.0,
            fees_paid: Some(fee.0),
            created_at: payment.created_at.as_secs(),
            expires_at: None,
            settled_at,
            preimage: preimage.map(|preimage| preimage.to_hex()),
        }
    }

    pub(super) fn of_invoice(invoice: &Invoice) -> Self {
        Self {
            direction: Some(direction_name(Direction::Incoming).to_owned()),
            state: Some(state_name(&State::Pending).to_owned()),
            invoice: Some(invoice.as_str().to_owned()),
            payment_hash: invoice.hash(),
            amount: invoice.amount().0,
            fees_paid: Some(0),
            created_at: invoice.created_at().as_secs(),
            expires_at: Some(invoice.expires_at().as_secs()),
            settled_at: None,
            preimage: None,
        }
    }

    /// The payment, checked; `fallback` is its direction if the wallet does not say.
    pub(super) fn into_payment(self, fallback: Direction) -> Result<Payment, Error> {
        let direction = match self.direction.as_deref() {
            Some("incoming") => Direction::Incoming,
            Some("outgoing") => Direction::Outgoing,
            Some(_) => return Err(Error::Nonsense("a payment that goes nowhere".to_owned())),
            None => fallback,
        };
        if self.amount > Msat::MAX.0 || self.fees_paid.is_some_and(|fee| fee > Msat::MAX.0) {
            return Err(Error::Nonsense("more than all the money".to_owned()));
        }
        Ok(Payment {
            direction,
            hash: self.payment_hash,
            amount: Msat(self.amount),
            state: self.state(direction),
            created_at: Timestamp::from_secs(self.created_at),
        })
    }

    fn state(&self, direction: Direction) -> State {
        let is_settled = match self.state.as_deref() {
            Some("accepted") => return State::Held,
            Some("failed") => return State::Failed,
            Some("expired") if direction == Direction::Incoming => return State::Expired,
            Some("settled") => true,
            // Wallets from before states only date what is settled.
            None => self.settled_at.is_some(),
            // What we do not know stays pending.
            Some(_) => false,
        };
        if !is_settled {
            return State::Pending;
        }
        let preimage = self.preimage.as_deref().and_then(|text| text.parse().ok());
        State::Settled {
            at: Timestamp::from_secs(self.settled_at.unwrap_or(self.created_at)),
            fee: match direction {
                Direction::Incoming => Msat::ZERO,
                Direction::Outgoing => Msat(self.fees_paid.unwrap_or_default()),
            },
            preimage: preimage.filter(|p: &crate::Preimage| p.hash() == self.payment_hash),
        }
    }
}

const fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Incoming => "incoming",
        Direction::Outgoing => "outgoing",
    }
}

const fn state_name(state: &State) -> &'static str {
    match state {
        State::Pending => "pending",
        State::Held => "accepted",
        State::Settled { .. } => "settled",
        State::Failed => "failed",
        State::Expired => "expired",
    }
}

impl Response {
    pub(super) fn new(method: &str, outcome: Result<Value, Fault>) -> Self {
        let (result, error) = match outcome {
            Ok(result) => (Some(result), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            result_type: method.to_owned(),
            error,
            result,
        }
    }
}

impl Notification {
    /// The news of a payment, if there is a word for it.
    pub(super) fn of(payment: &Payment) -> Option<Self> {
        let notification_type = match (payment.direction, payment.state) {
            (Direction::Incoming, State::Settled { .. }) => PAYMENT_RECEIVED,
            (Direction::Outgoing, State::Settled { .. }) => PAYMENT_SENT,
            (Direction::Incoming, State::Held) => HOLD_INVOICE_ACCEPTED,
            _ => return None,
        };
        Some(Self {
            notification_type: notification_type.to_owned(),
            notification: json!(Transaction::of(payment)),
        })
    }

    pub(super) fn into_payment(self) -> Option<Payment> {
        let fallback = match self.notification_type.as_str() {
            PAYMENT_RECEIVED | HOLD_INVOICE_ACCEPTED => Direction::Incoming,
            PAYMENT_SENT => Direction::Outgoing,
            _ => return None,
        };
        let transaction: Transaction = serde_json::from_value(self.notification).ok()?;
        let mut payment = transaction.into_payment(fallback).ok()?;
        // Not every wallet names the state where the kind of news says it.
        if self.notification_type == HOLD_INVOICE_ACCEPTED {
            payment.state = State::Held;
        }
        Some(payment)
    }
}

impl Fault {
    pub(super) fn new(code: &str, message: &str) -> Self {
        Self {
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(super) fn of(error: &Error) -> Self {
        let code = match error {
            Error::Unreachable(_) | Error::Nonsense(_) => "INTERNAL",
            Error::Busy => "RATE_LIMITED",
            Error::InsufficientBalance => "INSUFFICIENT_BALANCE",
            Error::OverBudget => "QUOTA_EXCEEDED",
            Error::NotPermitted => "RESTRICTED",
            Error::Unsupported => "NOT_IMPLEMENTED",
            Error::NotFound => "NOT_FOUND",
            Error::Refused(_) => "OTHER",
        };
        Self::new(code, &error.to_string())
    }

    /// What the caller can do about it.
    pub(super) fn into_error(self) -> Error {
        match self.code.as_str() {
            "RATE_LIMITED" => Error::Busy,
            "NOT_IMPLEMENTED" => Error::Unsupported,
            "INSUFFICIENT_BALANCE" => Error::InsufficientBalance,
            "QUOTA_EXCEEDED" => Error::OverBudget,
            "RESTRICTED" | "UNAUTHORIZED" => Error::NotPermitted,
            "NOT_FOUND" => Error::NotFound,
            "INTERNAL" => Error::Unreachable(plain(&self.message)),
            _ => Error::Refused(plain(&self.message)),
        }
    }
}

/// A wallet's words, made fit for a terminal and a log.
fn plain(words: &str) -> String {
    let fit = |c: char| if c.is_control() { ' ' } else { c };
    words.chars().take(MAX_WORDS).map(fit).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(extra: Value) -> State {
        let mut whole = json!({"payment_hash": "00".repeat(32), "amount": 5, "created_at": 1});
        let fields = extra.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(fields);
        let transaction: Transaction = serde_json::from_value(whole).unwrap();
        transaction.into_payment(Direction::Outgoing).unwrap().state
    }

    #[test]
    fn what_is_unknown_stays_pending() {
        assert_eq!(read(json!({})), State::Pending);
        assert_eq!(read(json!({"state": "teleported"})), State::Pending);
        assert_eq!(read(json!({"state": "expired"})), State::Pending);
        assert_eq!(
            read(json!({"state": "pending", "settled_at": 3})),
            State::Pending
        );
    }

    #[test]
    fn what_is_settled_says_so_in_either_way() {
        let settled = State::Settled {
            at: Timestamp::from_secs(3),
            fee: Msat(7),
            preimage: None,
        };
        assert_eq!(read(json!({"settled_at": 3, "fees_paid": 7})), settled);
        let named = json!({"state": "settled", "settled_at": 3, "fees_paid": 7});
        assert_eq!(read(named), settled);
        let with_wrong_proof = json!({"state": "settled", "settled_at": 3, "fees_paid": 7, "preimage": "11".repeat(32)});
        assert_eq!(read(with_wrong_proof), settled);
    }

    #[test]
    fn errors_survive_the_wire() {
        for error in [
            Error::Busy,
            Error::InsufficientBalance,
            Error::OverBudget,
            Error::NotPermitted,
            Error::Unsupported,
            Error::NotFound,
        ] {
            assert_eq!(Fault::of(&error).into_error(), error);
        }
        let bell = Fault::new("SOMETHING_NEW", "no\u{7}");
        assert_eq!(bell.into_error(), Error::Refused("no ".to_owned()));
    }
}
