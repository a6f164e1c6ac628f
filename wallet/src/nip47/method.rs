//! The methods, and what a connection needs to hear of what.

use std::fmt;
use std::str::FromStr;

/// A command of NIP-47.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Who the wallet is and what the connection may do.
    GetInfo,
    /// What can be spent.
    GetBalance,
    /// Ask for money.
    MakeInvoice,
    /// Pay.
    PayInvoice,
    /// How an invoice or a payment stands.
    LookupInvoice,
    /// The connection's history.
    ListTransactions,
    /// Ask for money that is held until settled.
    MakeHoldInvoice,
    /// Take what is held.
    SettleHoldInvoice,
    /// Give back what is held.
    CancelHoldInvoice,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::GetInfo,
        Self::GetBalance,
        Self::MakeInvoice,
        Self::PayInvoice,
        Self::LookupInvoice,
        Self::ListTransactions,
        Self::MakeHoldInvoice,
        Self::SettleHoldInvoice,
        Self::CancelHoldInvoice,
    ];

    /// Whether it changes anything; what only reads may be done again and again.
    pub fn has_effect(self) -> bool {
        match self {
            Self::GetInfo | Self::GetBalance | Self::LookupInvoice | Self::ListTransactions => {
                false
            }
            Self::MakeInvoice
            | Self::PayInvoice
            | Self::MakeHoldInvoice
            | Self::SettleHoldInvoice
            | Self::CancelHoldInvoice => true,
        }
    }

    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::GetInfo => "get_info",
            Self::GetBalance => "get_balance",
            Self::MakeInvoice => "make_invoice",
            Self::PayInvoice => "pay_invoice",
            Self::LookupInvoice => "lookup_invoice",
            Self::ListTransactions => "list_transactions",
            Self::MakeHoldInvoice => "make_hold_invoice",
            Self::SettleHoldInvoice => "settle_hold_invoice",
            Self::CancelHoldInvoice => "cancel_hold_invoice",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// There is no such method.
#[derive(Debug, thiserror::Error)]
#[error("there is no such method; there are: {}", Method::ALL.map(Method::name).join(", "))]
pub struct Unknown;

impl FromStr for Method {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        let all = Self::ALL.into_iter();
        all.into_iter()
            .find(|method| method.name() == name)
            .ok_or(Unknown)
    }
}
