//! What the relay says, as JSON.

use nostr::EventId;
use serde_json::{Value, json};

/// The answer to an EVENT or AUTH.
pub fn ok(id: &EventId, taken: bool, why: &str) -> String {
    // Hex needs no quoting.
    format!("[\"OK\",\"{id}\",{taken},{}]", Value::from(why))
}

/// A word to people.
pub fn notice(text: &str) -> String {
    json!(["NOTICE", text]).to_string()
}

/// A subscription, or a count, is refused or over.
pub fn closed(id: &str, why: &str) -> String {
    json!(["CLOSED", id, why]).to_string()
}

/// The stored events of a subscription are out.
pub fn eose(id: &str) -> String {
    json!(["EOSE", id]).to_string()
}

/// What a client signs to show who it is.
pub fn auth(challenge: &str) -> String {
    json!(["AUTH", challenge]).to_string()
}

/// How many events there are; `exact` says whether that is all.
pub fn count(id: &str, events: u64, exact: bool) -> String {
    let mut count = json!({ "count": events });
    if !exact {
        count["approximate"] = json!(true);
    }
    json!(["COUNT", id, count]).to_string()
}

/// A reconciliation is refused.
pub fn neg_err(id: &str, why: &str) -> String {
    json!(["NEG-ERR", id, why]).to_string()
}
