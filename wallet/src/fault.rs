//! Named points at which a debug build can be told to die, so that tests can kill it exactly there.

/// The variable that names the point at which this process dies. Release builds do not look at it.
pub const VARIABLE: &str = "INFERNET_WALLET_DIES_AT";

/// Where a wallet can be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The intent to pay is recorded, and LDK has not been asked yet.
    PayRecorded,
    /// LDK has been asked to pay, and nothing has come of it yet.
    PaySent,
    /// LDK says that it paid, and our record does not say so yet.
    PaySucceeded,
    /// The record says that the payment is made, and nobody has been told.
    PaidRecorded,
    /// The preimage of a hold is recorded, and LDK has not been asked to claim.
    SettleRecorded,
    /// LDK has been asked to claim a hold.
    SettleClaimed,
    /// LDK says that money has come, and our record does not say so yet.
    Received,
    /// A hold's cancellation is recorded, and LDK has not been told.
    CancelRecorded,
}

impl Point {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::PayRecorded,
        Self::PaySent,
        Self::PaySucceeded,
        Self::PaidRecorded,
        Self::SettleRecorded,
        Self::SettleClaimed,
        Self::Received,
        Self::CancelRecorded,
    ];

    /// Its name, as [`VARIABLE`] has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PayRecorded => "pay-recorded",
            Self::PaySent => "pay-sent",
            Self::PaySucceeded => "pay-succeeded",
            Self::PaidRecorded => "paid-recorded",
            Self::SettleRecorded => "settle-recorded",
            Self::SettleClaimed => "settle-claimed",
            Self::Received => "received",
            Self::CancelRecorded => "cancel-recorded",
        }
    }
}

/// Dies here without a word, as by SIGKILL, if a debug build was told to.
pub fn point(point: Point) {
    if cfg!(debug_assertions) && std::env::var(VARIABLE).is_ok_and(|name| name == point.name()) {
        std::process::abort();
    }
}
