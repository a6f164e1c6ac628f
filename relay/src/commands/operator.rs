//! Whom the relay knows, and how it is.

use anyhow::bail;
use infernet_relay::decisions::listed;
use infernet_relay::{Options, OwnerError};
use nostr::ToBech32 as _;

use super::said;

/// Shows the lists.
pub fn lists(options: &Options) -> anyhow::Result<()> {
    let lists = listed(options)?;
    let mut lines = String::new();
    let mut line = |what: &str, whom: String, why: String| {
        lines.push_str(format!("{what:8}  {whom}  {why}").trim_end());
        lines.push('\n');
    };
    for (key, why) in lists.banned_keys() {
        line("banned", key.to_bech32()?, why);
    }
    for (key, why) in lists.allowed_keys() {
        line("allowed", key.to_bech32()?, why);
    }
    for (event, why) in lists.banned_events() {
        line("banned", event.to_bech32()?, why);
    }
    for (address, why) in lists.blocked_addresses() {
        line("blocked", address.to_string(), why);
    }
    for (kind, is_allowed) in lists.kinds() {
        let what = if is_allowed { "allowed" } else { "refused" };
        line(what, format!("kind {kind}"), String::new());
    }
    said(&lines);
    Ok(())
}

/// Shows how the running relay is.
pub async fn status(options: &Options, as_json: bool) -> anyhow::Result<()> {
    let status = match infernet_relay::status(&options.data).await {
        Err(OwnerError::NotRunning { home, .. }) => {
            bail!("no relay is running in {}", home.display())
        }
        status => status?,
    };
    match as_json {
        true => said(&format!("{}\n", serde_json::to_string(&status)?)),
        false => said(&format!("{status}\n")),
    }
    Ok(())
}
