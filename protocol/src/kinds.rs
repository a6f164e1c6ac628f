//! The kinds of the market's events (`nips/README.md` says why these numbers).

/// A provider's standing bid: models, prices, hardware, load. Addressable.
pub const ANNOUNCEMENT: u16 = 38500;
/// A buyer asks for bids.
pub const OFFER: u16 = 8600;
/// A provider bids on an offer.
pub const BID: u16 = 8601;
/// A buyer gives an attempt of a job to a provider.
pub const AWARD: u16 = 8602;
/// A provider's signed commitment to an output.
pub const RESULT: u16 = 8603;
/// What was paid for an attempt, by either side.
pub const RECEIPT: u16 = 8604;
/// A checker's judgement of a result.
pub const VERDICT: u16 = 8605;
/// One job's rating of one provider.
pub const ATTESTATION: u16 = 8606;
/// An end to an offer or an attempt, by either side.
pub const CANCEL: u16 = 8607;
/// From provider to buyer while an attempt runs. Ephemeral, encrypted.
pub const PROGRESS: u16 = 24600;
/// From buyer to provider while an attempt runs. Ephemeral, encrypted.
pub const CONTROL: u16 = 24601;

/// What an aggregator offers. Addressable.
pub const AGGREGATOR: u16 = 38501;
/// The thresholds by which a checker judges a model's work. Addressable.
pub const THRESHOLDS: u16 = 38502;
/// What an aggregator would do a batch for.
pub const QUOTE: u16 = 8608;
/// A buyer takes a quote.
pub const ORDER: u16 = 8609;
/// What came of a group of a batch's lines.
pub const SETTLEMENT: u16 = 8610;
/// Between buyer and aggregator. Ephemeral, encrypted.
pub const TALK: u16 = 24602;

/// All of them.
pub const ALL: [u16; 17] = [
    ANNOUNCEMENT,
    OFFER,
    BID,
    AWARD,
    RESULT,
    RECEIPT,
    VERDICT,
    ATTESTATION,
    CANCEL,
    PROGRESS,
    CONTROL,
    AGGREGATOR,
    THRESHOLDS,
    QUOTE,
    ORDER,
    SETTLEMENT,
    TALK,
];

/// Whether a kind is the market's.
pub fn is_market(kind: u16) -> bool {
    ALL.contains(&kind)
}

/// Whether a kind is evidence, which must outlast everybody's wish to delete it.
pub const fn is_evidence(kind: u16) -> bool {
    matches!(
        kind,
        AWARD | RESULT | RECEIPT | VERDICT | ATTESTATION | ORDER | SETTLEMENT
    )
}
