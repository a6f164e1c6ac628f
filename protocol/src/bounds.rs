//! How much of anything the market takes, and why. What is over a bound is
//! refused, never cut.

use nostr::Timestamp;

use crate::event::Refusal;

/// Bytes of an event as JSON. Most relays refuse more.
pub const MAX_EVENT_BYTES: usize = 65_536;

/// Bytes of plaintext inside an event. NIP-44 pads these to 54,704 characters,
/// which leaves room for the rest of an award; one byte more would make 65,628.
pub const MAX_PAYLOAD_BYTES: usize = 40_960;

/// Bytes of an announcement's content: it travels whole inside an award, beside
/// the largest payload.
pub const MAX_ANNOUNCEMENT_BYTES: usize = 5_120;

/// Bytes of an offer's or a bid's content, which travel inside an award too.
pub const MAX_TERMS_BYTES: usize = 2_048;

/// Bytes of any other event's content that holds no sealed payload.
pub const MAX_RECORD_BYTES: usize = 8_192;

/// Tags of an event; ours need fewer than twenty.
pub const MAX_TAGS: usize = 64;

/// Bytes of a name of a model, a device or an engine.
pub const MAX_NAME_BYTES: usize = 128;

/// Bytes of a reason that one side gives the other.
pub const MAX_REASON_BYTES: usize = 256;

/// Models in an announcement; more would not fit [`MAX_ANNOUNCEMENT_BYTES`].
pub const MAX_MODELS: usize = 16;

/// Models an offer or an announced alias list may name.
pub const MAX_ACCEPTED_MODELS: usize = 8;

/// Relays an event may name.
pub const MAX_RELAYS: usize = 8;

/// Bytes of a relay's address.
pub const MAX_RELAY_URL_BYTES: usize = 256;

/// Attempts of one job, the first counted in. Most of a busy market's are
/// declined within milliseconds; one that was taken on and failed costs the
/// buyer a silence, and the deadline ends a job that nobody can do.
pub const MAX_ATTEMPTS: u32 = 16;

/// Bids a buyer looks at for one offer; the rest is spam or luxury.
pub const MAX_BIDS: usize = 64;

/// Tokens of output one job may ask for.
pub const MAX_OUTPUT_TOKENS: u32 = 131_072;

/// Tokens of context a model may claim.
pub const MAX_CONTEXT_TOKENS: u32 = 16_777_216;

/// Messages of a chat.
pub const MAX_MESSAGES: usize = 512;

/// Stop strings of a request.
pub const MAX_STOP_STRINGS: usize = 16;

/// Bytes of one stop string.
pub const MAX_STOP_BYTES: usize = 256;

/// Texts of one embedding request.
pub const MAX_TEXTS: usize = 256;

/// Generations of one shard, which are awarded together: enough to fill any
/// provider's batch, few enough that losing a shard costs little.
pub const MAX_REQUESTS: usize = 256;

/// Results that one job of checking looks at.
pub const MAX_CHECKS: usize = 16;

/// Rejected awards that one payout lists.
pub const MAX_REJECTED: usize = 64;

/// Bytes of the proof of one answer ([`crate::verification`]): 258 for each 32
/// tokens begun, of an answer of [`MAX_OUTPUT_TOKENS`].
pub const MAX_PROOF_BYTES: usize = 258 * (MAX_OUTPUT_TOKENS as usize).div_ceil(32);

/// Lines of one group of a batch, which are paid for together.
pub const MAX_GROUP_LINES: u32 = 4_096;

/// Groups of one batch.
pub const MAX_GROUPS: u32 = 65_536;

/// Results that a settlement lists.
pub const MAX_GROUP_RESULTS: usize = 128;

/// Bytes of a blob. Its reader holds it in memory.
pub const MAX_BLOB_BYTES: u64 = 16 * 1024 * 1024;

/// Bytes of plaintext in a blob: its nonce, its tag and the plaintext's length take
/// the rest.
pub const MAX_BLOB_PAYLOAD_BYTES: usize = MAX_BLOB_BYTES as usize - 44;

/// Bytes of plaintext from which on a payload goes into a blob, where a server is
/// known. Relays carry events of this size badly.
pub const MAX_SEALED_BYTES: usize = 32 * 1024;

/// Blob servers that are named at a place.
pub const MAX_BLOB_SERVERS: usize = 4;

/// The most that an aggregator's fee may be, in millionths of the accepted work: 2 %.
pub const MAX_FEE_PPM: u32 = 20_000;

/// Tensors that a module takes or gives.
pub const MAX_TENSORS: usize = 16;

/// Dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 8;

/// The largest integer that every JSON reader keeps whole (2^53 − 1).
pub const MAX_SAFE_INTEGER: u64 = 9_007_199_254_740_991;

/// Seconds of Unix time that an event may speak of. Their milliseconds are still
/// safe integers, so whoever converts them cannot overflow.
pub const MAX_TIMESTAMP: u64 = MAX_SAFE_INTEGER / 1_000;

/// Milliseconds any promise or measurement may claim: one week.
pub const MAX_DURATION_MS: u64 = 7 * 24 * 3_600_000;

/// Figures of one verdict.
pub const MAX_FIGURES: usize = 32;

/// Payments that one receipt lists; a tab is topped up less often than that.
pub const MAX_PAYMENTS: usize = 64;

/// Bytes of a BOLT-11 invoice: ours have under 500, others' route hints some more.
pub const MAX_INVOICE_BYTES: usize = 4_096;

/// Refuses text that is longer than a bound or holds control characters, which
/// would reach somebody's terminal.
pub(crate) fn text(what: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() > max {
        return Err(Refusal::TooLarge { what, max });
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::ControlCharacters { what });
    }
    Ok(())
}

/// Refuses a list that is longer than a bound.
pub(crate) fn count(what: &'static str, count: usize, max: usize) -> Result<(), Refusal> {
    if count > max {
        return Err(Refusal::TooLarge { what, max });
    }
    Ok(())
}

/// Refuses a number over a bound.
pub(crate) fn at_most(what: &'static str, number: u64, max: u64) -> Result<(), Refusal> {
    if number > max {
        return Err(Refusal::TooHigh { what, max });
    }
    Ok(())
}

/// Refuses an instant beyond all calendars.
pub(crate) fn instant(what: &'static str, instant: Timestamp) -> Result<(), Refusal> {
    at_most(what, instant.as_secs(), MAX_TIMESTAMP)
}

/// Refuses an attempt's number that no job has.
pub(crate) fn attempt(number: u32) -> Result<(), Refusal> {
    at_most("attempt", number.into(), MAX_ATTEMPTS.into())?;
    match number {
        0 => Err(Refusal::Invalid("attempts are numbered from 1")),
        _ => Ok(()),
    }
}
