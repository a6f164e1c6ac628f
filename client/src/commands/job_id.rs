//! Which job is meant: a whole id, or the beginning of one of our own.

use infernet_client::history::History;
use nostr::EventId;

use super::Misunderstood;

/// Fewer digits than this name too many jobs.
const MIN_DIGITS: usize = 6;

/// The job that `text` means: an id in hex or bech32 (note, nevent), or the first digits of a job in the list.
pub async fn find(text: &str, history: &History) -> anyhow::Result<EventId> {
    if let Ok(id) = EventId::parse(text) {
        return Ok(id);
    }
    let digits = text.to_ascii_lowercase();
    let is_hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_hex || digits.len() < MIN_DIGITS {
        return Err(misunderstood(format!(
            "{text:?} is no job: give its id, or the first {MIN_DIGITS} digits or more of one of yours"
        )));
    }
    match &history.beginning(&digits).await?[..] {
        [job] => Ok(job.id),
        [] => Err(misunderstood(format!(
            "no job of yours begins with {text}; see infernet-client jobs, or give the whole id"
        ))),
        _ => Err(misunderstood(format!(
            "several jobs begin with {text}; give more digits"
        ))),
    }
}

fn misunderstood(text: String) -> anyhow::Error {
    Misunderstood(text).into()
}
