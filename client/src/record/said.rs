//! One event of a job as what its kind says, and what it names.

use infernet_protocol::event::{
    Announcement, Attestation, Award, Bid, Body, Cancel, JobResult, Offer, Receipt, Refusal,
    Signed, Verdict,
};
use infernet_protocol::kinds;
use nostr::{Event, EventId};

/// One event of a job, as what its kind says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// Kind 38500.
    Announcement(Box<Signed<Announcement>>),
    /// Kind 8600.
    Offer(Box<Signed<Offer>>),
    /// Kind 8601.
    Bid(Box<Signed<Bid>>),
    /// Kind 8602.
    Award(Box<Signed<Award>>),
    /// Kind 8603.
    Result(Box<Signed<JobResult>>),
    /// Kind 8604.
    Receipt(Box<Signed<Receipt>>),
    /// Kind 8605.
    Verdict(Box<Signed<Verdict>>),
    /// Kind 8606.
    Attestation(Box<Signed<Attestation>>),
    /// Kind 8607.
    Cancel(Box<Signed<Cancel>>),
}

impl Said {
    /// Reads an event of one of the kinds that last.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(event: Event) -> Result<Self, Refusal> {
        fn signed<B: Body>(event: Event) -> Result<Box<Signed<B>>, Refusal> {
            Signed::verify(event).map(Box::new)
        }
        match event.kind.as_u16() {
            kinds::ANNOUNCEMENT => signed(event).map(Self::Announcement),
            kinds::OFFER => signed(event).map(Self::Offer),
            kinds::BID => signed(event).map(Self::Bid),
            kinds::AWARD => signed(event).map(Self::Award),
            kinds::RESULT => signed(event).map(Self::Result),
            kinds::RECEIPT => signed(event).map(Self::Receipt),
            kinds::VERDICT => signed(event).map(Self::Verdict),
            kinds::ATTESTATION => signed(event).map(Self::Attestation),
            kinds::CANCEL => signed(event).map(Self::Cancel),
            other => Err(Refusal::Kind(other)),
        }
    }

    /// The event.
    pub fn event(&self) -> &Event {
        match self {
            Self::Announcement(signed) => signed.event(),
            Self::Offer(signed) => signed.event(),
            Self::Bid(signed) => signed.event(),
            Self::Award(signed) => signed.event(),
            Self::Result(signed) => signed.event(),
            Self::Receipt(signed) => signed.event(),
            Self::Verdict(signed) => signed.event(),
            Self::Attestation(signed) => signed.event(),
            Self::Cancel(signed) => signed.event(),
        }
    }

    /// The name of its kind.
    pub const fn kind_name(&self) -> &'static str {
        match self {
            Self::Announcement(_) => "announcement",
            Self::Offer(_) => "offer",
            Self::Bid(_) => "bid",
            Self::Award(_) => "award",
            Self::Result(_) => "result",
            Self::Receipt(_) => "receipt",
            Self::Verdict(_) => "verdict",
            Self::Attestation(_) => "attestation",
            Self::Cancel(_) => "cancel",
        }
    }

    /// The job that it names; an announcement names none.
    pub(super) fn job(&self) -> Option<EventId> {
        match self {
            Self::Announcement(_) => None,
            Self::Offer(offer) => Some(offer.id()),
            Self::Bid(bid) => Some(bid.offer),
            Self::Award(award) => Some(award.job_id()),
            Self::Result(result) => Some(result.job),
            Self::Receipt(receipt) => Some(receipt.job),
            Self::Verdict(verdict) => Some(verdict.job),
            Self::Attestation(attestation) => Some(attestation.job),
            Self::Cancel(cancel) => Some(cancel.job),
        }
    }

    /// The award that it is about.
    pub fn award(&self) -> Option<EventId> {
        match self {
            Self::Announcement(_) | Self::Offer(_) | Self::Bid(_) => None,
            Self::Award(award) => Some(award.id()),
            Self::Result(result) => Some(result.award),
            Self::Receipt(receipt) => Some(receipt.award),
            Self::Verdict(verdict) => Some(verdict.award),
            Self::Attestation(attestation) => Some(attestation.award),
            Self::Cancel(cancel) => cancel.award,
        }
    }

    /// How far in a job's life it stands: what it names stands lower.
    pub(super) const fn stage(&self) -> u8 {
        match self {
            Self::Announcement(_) => 0,
            Self::Offer(_) => 1,
            Self::Bid(_) => 2,
            Self::Award(_) => 3,
            Self::Result(_) => 4,
            Self::Receipt(_) => 5,
            Self::Verdict(_) => 6,
            Self::Attestation(_) => 7,
            Self::Cancel(_) => 8,
        }
    }

    /// The events that it names, so that it was signed after them whatever its date says.
    pub(super) fn named(&self) -> Vec<EventId> {
        match self {
            Self::Announcement(_) | Self::Offer(_) => vec![],
            Self::Bid(bid) => vec![bid.offer],
            Self::Award(award) => award
                .job
                .into_iter()
                .chain([award.basis.word().id])
                .collect(),
            Self::Result(result) => vec![result.award],
            Self::Receipt(receipt) => receipt.result.into_iter().chain([receipt.award]).collect(),
            Self::Verdict(verdict) => vec![verdict.result],
            Self::Attestation(a) => a.result.into_iter().chain([a.award]).collect(),
            Self::Cancel(cancel) => cancel.award.into_iter().chain([cancel.job]).collect(),
        }
    }
}
