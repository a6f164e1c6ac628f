//! What no setting may say, though it can be read.

use nostr::Url;

use super::{AddressLimits, Limits, MAX_MESSAGE_BYTES, Options, Rate, Share, Work};

/// Bits of work that no machine shows in a lifetime.
const MAX_BITS: u8 = 64;

/// A setting with which no relay is of use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct Senseless {
    /// The setting, as it is written in a file, with its table.
    setting: &'static str,
    /// What is wrong with it.
    why: String,
}

fn unless(fine: bool, setting: &'static str, why: impl Into<String>) -> Result<(), Senseless> {
    match fine {
        true => Ok(()),
        false => Err(Senseless {
            setting,
            why: why.into(),
        }),
    }
}

impl Options {
    /// Refuses settings with which no relay is of use, before it turns everybody away.
    ///
    /// # Errors
    /// With the first such setting.
    pub fn check(&self) -> Result<(), Senseless> {
        let is_address = self.address.as_deref().is_none_or(is_address);
        let why = "write it as clients do, for example wss://relay.example.org";
        unless(is_address, "address", why)?;
        self.check_keys()?;
        check_work(&self.work)?;
        check_limits(&self.limits)
    }

    fn check_keys(&self) -> Result<(), Senseless> {
        let banned = &self.lists.ban;
        let is_not = |key| !banned.contains(key);
        let why = "a key in it is banned and allowed";
        unless(self.lists.allow.iter().all(is_not), "lists.ban", why)?;
        let managing = self.admins.iter().chain(&self.pubkey);
        let why = "a key in it manages this relay (admins, pubkey)";
        unless({ managing }.all(is_not), "lists.ban", why)
    }
}

/// Whether it has a scheme by which clients reach a relay, and a host.
fn is_address(text: &str) -> bool {
    let schemes = ["ws", "wss", "http", "https"];
    Url::parse(text).is_ok_and(|url| schemes.contains(&url.scheme()) && url.has_host())
}

fn check_work(work: &Work) -> Result<(), Senseless> {
    let why = format!("it may be {MAX_BITS} at most: nobody shows more");
    unless(work.max_bits <= MAX_BITS, "work.max_bits", why)?;
    let is_below = work.max_bits == 0 || work.min_bits <= work.max_bits;
    unless(is_below, "work.min_bits", "it is more than max_bits")?;
    check_share("work.free", work.free)
}

fn check_limits(limits: &Limits) -> Result<(), Senseless> {
    let counts = [
        ("limits.connections", limits.connections),
        ("limits.subscriptions", limits.subscriptions),
        (
            "limits.messages_per_second",
            limits.messages_per_second as usize,
        ),
        ("limits.bytes_per_second", limits.bytes_per_second as usize),
        ("limits.stored_events", limits.stored_events),
        ("limits.outbox_messages", limits.outbox_messages),
    ];
    for (setting, count) in counts {
        unless(count > 0, setting, "it must be at least 1")?;
    }
    let why = format!("it must be at least {MAX_MESSAGE_BYTES}, as much as one message may have");
    unless(
        limits.outbox_bytes >= MAX_MESSAGE_BYTES,
        "limits.outbox_bytes",
        why,
    )?;
    check_share("limits.key", limits.key)?;
    check_share("limits.stranger", limits.stranger)?;
    check_share("limits.all", limits.all)?;
    let AddressLimits {
        events, requests, ..
    } = limits.address;
    check_rate("limits.address", events)?;
    check_rate("limits.address", requests)
}

fn check_share(setting: &'static str, share: Share) -> Result<(), Senseless> {
    check_rate(setting, share.events)?;
    check_rate(setting, share.bytes)
}

/// With a burst of none, nothing would ever be let through.
fn check_rate(setting: &'static str, rate: Rate) -> Result<(), Senseless> {
    let is_open = rate.per_second == 0 || rate.burst > 0;
    unless(is_open, setting, "a burst must be at least 1")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        let options: Options = toml::from_str(text).unwrap();
        options.check().map_err(|senseless| senseless.to_string())
    }

    #[test]
    fn what_makes_sense_is_let_through() {
        for text in [
            "",
            "address = \"wss://relay.example.org\"",
            "address = \"http://127.0.0.1:7777/\"",
            "[work]\nmax_bits = 0\nmin_bits = 12",
            "[limits.all]\nevents = { per_second = 0, burst = 0 }",
        ] {
            assert_eq!(checked(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_makes_none_is_named() {
        let key = "\"npub1zuuajd7u3sx8xu92yav9jwxpr839cs0kc3q6t56vd5u9q033xmhsk6c2uc\"";
        let banned = format!("pubkey = {key}\n[lists]\nban = [{key}]");
        let both = format!("[lists]\nallow = [{key}]\nban = [{key}]");
        for (text, setting) in [
            ("address = \"relay.example.org\"", "address: "),
            ("address = \"relay.example.org:443\"", "address: "),
            ("address = \"not an address\"", "address: "),
            (&banned, "lists.ban: "),
            (&both, "lists.ban: "),
            ("[work]\nmax_bits = 65", "work.max_bits: "),
            ("[work]\nmax_bits = 16\nmin_bits = 17", "work.min_bits: "),
            (
                "[work.free]\nbytes = { per_second = 1, burst = 0 }",
                "work.free: ",
            ),
            ("[limits]\nconnections = 0", "limits.connections: "),
            (
                "[limits]\nmessages_per_second = 0",
                "limits.messages_per_second: ",
            ),
            ("[limits]\noutbox_bytes = 1000", "limits.outbox_bytes: "),
            (
                "[limits.address]\nrequests = { per_second = 1, burst = 0 }",
                "limits.address: ",
            ),
        ] {
            let refused = checked(text).unwrap_err();
            assert!(refused.starts_with(setting), "{text}: {refused}");
        }
    }
}
