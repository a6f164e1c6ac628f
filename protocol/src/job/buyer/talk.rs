//! What a job is told, and what it answers.

use nostr::{EventId, PublicKey};

use super::super::Millis;
use crate::event::{CancelReason, Experience, Measured, Usage};
use crate::inference::{EndReason, TokenId};
use crate::payload::{Decline, Piece, Product};

/// How a job finds its provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The best of the announcements at hand, at once.
    Direct,
    /// The best of the bids on an offer.
    Auction {
        /// How long to wait for bids.
        window_ms: u64,
        /// How many bids end the wait early.
        enough_bids: usize,
    },
}

/// How long a buyer waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From an award to its acknowledgement; without one it counts as declined.
    pub ack_ms: u64,
    /// From one sign of life to the next; half of it is spent before asking.
    pub silence_ms: u64,
    /// From noticing a missing piece to asking for it.
    pub gap_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            ack_ms: 4_000,
            silence_ms: 5_000,
            gap_ms: 300,
        }
    }
}

/// What a buyer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How to find a provider.
    pub mode: Mode,
    /// When the job ends, done or not.
    pub deadline: Millis,
    /// Tokens the answer may have; 0 for work that is not streamed.
    pub max_tokens: u32,
    /// How often to try.
    pub max_attempts: u32,
    /// How long to wait for what.
    pub patience: Patience,
}

/// A provider that would do the job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its bid, or its announcement.
    pub word: EventId,
    /// Who it is.
    pub provider: PublicKey,
    /// Tokens of its model's context.
    pub context: u32,
    /// Whether it can go on behind another provider's tokens.
    pub continues: bool,
    /// Whether it is a bid on this job's offer.
    pub is_bid: bool,
    /// How much the buyer wants it; the highest is asked first.
    pub rank: f64,
    /// When its word runs out: then it is no candidate any more, until it gives
    /// a newer one.
    pub until: Millis,
    /// Whether waiting for a better one is not worth it.
    pub good_enough: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A bid or an announcement came that meets the buyer's limits.
    Candidate(Candidate),
    /// The award that an [`Effect::Award`] asked for was signed.
    Awarded {
        /// Its id.
        award: EventId,
    },
    /// The award could not be made or published, so its provider knows of nothing.
    AwardFailed,
    /// The provider took it on, or is alive.
    Alive {
        /// The award.
        award: EventId,
        /// Whether this is the acceptance, or says less.
        accepted: bool,
    },
    /// The provider declined.
    Declined {
        /// The award.
        award: EventId,
        /// Why.
        reason: Decline,
    },
    /// A part of the answer came.
    Piece {
        /// The award.
        award: EventId,
        /// The part.
        piece: Piece,
    },
    /// A result came; its signature, hash, model and parties were checked.
    Result {
        /// The award.
        award: EventId,
        /// The result's event.
        result: EventId,
        /// Why the work ended.
        ended: EndReason,
        /// What it claims to have done.
        usage: Usage,
        /// The product.
        product: Product,
    },
    /// A result came that is not what it commits to.
    BadResult {
        /// The award.
        award: EventId,
    },
    /// What the provider says of the tab is not what came.
    Overcharged {
        /// The award.
        award: EventId,
    },
    /// The provider gave the attempt up (kind 8607).
    GivenUp {
        /// The award.
        award: EventId,
    },
    /// The user wants no more.
    Stop,
    /// Time has passed.
    Tick,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Sign an award, say [`Input::Awarded`], and publish it. In this order: an
    /// answer that is faster than [`Input::Awarded`] is taken for a stranger's.
    Award {
        /// The attempt's number.
        attempt: u32,
        /// The bid or announcement it rests on.
        word: EventId,
        /// The tokens that were already shown.
        prefix: Vec<TokenId>,
    },
    /// Ask the provider for pieces again.
    Resend {
        /// The award.
        award: EventId,
        /// From this number on.
        from: u32,
    },
    /// Ask the relays whether there is a result.
    LookUp {
        /// The award.
        award: EventId,
    },
    /// Show text to the user.
    Show {
        /// The text.
        text: String,
        /// How many tokens it came with.
        tokens: usize,
    },
    /// Publish that an attempt is over.
    Cancel {
        /// The award.
        award: EventId,
        /// Its provider.
        provider: PublicKey,
        /// Why.
        reason: CancelReason,
    },
    /// Publish how an attempt went.
    Attest(Account),
    /// The job is over.
    End(End),
}

/// How an attempt went.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Account {
    /// The award.
    pub award: EventId,
    /// The bid or announcement it rested on.
    pub word: EventId,
    /// What happened.
    pub experience: Experience,
    /// The result, if one came.
    pub result: Option<EventId>,
    /// What was measured, if anything came.
    pub measured: Option<Measured>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Done {
        /// The last attempt's award.
        award: EventId,
        /// Its result.
        result: EventId,
        /// Why the answer ended.
        ended: EndReason,
    },
    /// Without one.
    Failed(Failure),
    /// By the user's wish.
    Stopped,
}

/// Why a job has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody bid, or sells what was asked for.
    #[error("no provider offers this")]
    NoProvider,
    /// All who were asked declined; the last one for this reason.
    #[error("every provider declined; the last one said: {0}")]
    Declined(Decline),
    /// Everybody who took it on failed, and nobody is left to go on.
    #[error("no provider is left that could take over")]
    NobodyLeft,
    /// It was tried as often as allowed.
    #[error("it was tried as often as allowed")]
    TooManyAttempts,
    /// The deadline came first.
    #[error("the deadline has come")]
    Deadline,
}
