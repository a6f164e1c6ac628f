//! What can be asked (NIP-86).

use std::net::IpAddr;

use nostr::{EventId, Kind, PublicKey};
use serde::Deserialize;
use serde_json::Value;

use crate::lists::Change;

/// All methods, as `supportedmethods` answers them.
pub const NAMES: [&str; 19] = [
    "banpubkey",
    "unbanpubkey",
    "listbannedpubkeys",
    "allowpubkey",
    "unallowpubkey",
    "listallowedpubkeys",
    "banevent",
    "allowevent",
    "listbannedevents",
    "changerelayname",
    "changerelaydescription",
    "changerelayicon",
    "allowkind",
    "disallowkind",
    "listallowedkinds",
    "blockip",
    "unblockip",
    "listblockedips",
    "supportedmethods",
];

/// Why something cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such method.
    #[error("there is no method {0:?} here: ask supportedmethods")]
    Unknown(String),
    /// A parameter is missing or of another form.
    #[error("parameter {0}: {1}")]
    Parameter(usize, &'static str),
}

/// A request as it comes.
#[derive(Debug, Deserialize)]
pub struct Request {
    method: String,
    #[serde(default)]
    params: Vec<Value>,
}

/// A request that is understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// Which methods there are.
    Supported,
    /// Something is to be different from now on.
    Change(Change),
    /// Who is banned.
    BannedKeys,
    /// Who is allowed.
    AllowedKeys,
    /// Which events are banned.
    BannedEvents,
    /// Which kinds are taken.
    AllowedKinds,
    /// Which addresses are blocked.
    BlockedAddresses,
}

impl Request {
    /// What is asked.
    ///
    /// # Errors
    /// When there is no such method, or it is called in another way.
    pub fn method(&self) -> Result<Method, Error> {
        Ok(Method::Change(match self.method.as_str() {
            "supportedmethods" => return Ok(Method::Supported),
            "listbannedpubkeys" => return Ok(Method::BannedKeys),
            "listallowedpubkeys" => return Ok(Method::AllowedKeys),
            "listbannedevents" => return Ok(Method::BannedEvents),
            "listallowedkinds" => return Ok(Method::AllowedKinds),
            "listblockedips" => return Ok(Method::BlockedAddresses),
            "banpubkey" => Change::BanKey(self.key()?, self.reason()?),
            "unbanpubkey" => Change::UnbanKey(self.key()?),
            "allowpubkey" => Change::AllowKey(self.key()?, self.reason()?),
            "unallowpubkey" => Change::UnallowKey(self.key()?),
            "banevent" => Change::BanEvent(self.event()?, self.reason()?),
            "allowevent" => Change::AllowEvent(self.event()?),
            "allowkind" => Change::AllowKind(self.kind()?),
            "disallowkind" => Change::DisallowKind(self.kind()?),
            "blockip" => Change::BlockAddress(self.address()?, self.reason()?),
            "unblockip" => Change::UnblockAddress(self.address()?),
            "changerelayname" => Change::Name(self.text()?),
            "changerelaydescription" => Change::Description(self.text()?),
            "changerelayicon" => Change::Icon(self.text()?),
            other => return Err(Error::Unknown(other.chars().take(64).collect())),
        }))
    }

    fn first<T>(
        &self,
        what: &'static str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, Error> {
        let first = self.params.first();
        first.and_then(parse).ok_or(Error::Parameter(1, what))
    }

    fn key(&self) -> Result<PublicKey, Error> {
        let parse = |value: &Value| PublicKey::parse(value.as_str()?).ok();
        self.first("this is no public key", parse)
    }

    fn event(&self) -> Result<EventId, Error> {
        let parse = |value: &Value| EventId::parse(value.as_str()?).ok();
        self.first("this is no event's id", parse)
    }

    fn kind(&self) -> Result<Kind, Error> {
        let parse = |value: &Value| Some(Kind::from(u16::try_from(value.as_u64()?).ok()?));
        self.first("this is no kind, a number up to 65535", parse)
    }

    fn address(&self) -> Result<IpAddr, Error> {
        let parse = |value: &Value| value.as_str()?.parse().ok();
        self.first("this is no IP address", parse)
    }

    fn text(&self) -> Result<String, Error> {
        let parse = |value: &Value| value.as_str().map(str::to_owned);
        self.first("this is no text", parse)
    }

    fn reason(&self) -> Result<String, Error> {
        match self.params.get(1) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(reason)) => Ok(reason.clone()),
            Some(_) => Err(Error::Parameter(2, "a reason is a text")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::Keys;
    use serde_json::json;

    use super::*;

    fn read(method: &str, params: Value) -> Result<Method, Error> {
        let request = json!({ "method": method, "params": params });
        let request: Request = serde_json::from_value(request).unwrap();
        request.method()
    }

    #[test]
    fn each_method_is_understood() {
        let key = Keys::generate().public_key();
        let id = EventId::all_zeros();
        for name in NAMES {
            let params = match name {
                "changerelayname" | "changerelaydescription" | "changerelayicon" => json!(["x"]),
                _ if name.ends_with("pubkey") => json!([key.to_hex(), "why"]),
                _ if name.ends_with("event") => json!([id.to_hex()]),
                _ if name.ends_with("kind") => json!([1]),
                _ if name.ends_with("ip") => json!(["192.0.2.1", null]),
                _ => json!([]),
            };
            read(name, params).unwrap();
        }
        let banned = Change::BanKey(key, "why".to_owned());
        let read = read("banpubkey", json!([key.to_hex(), "why"]));
        assert_eq!(read, Ok(Method::Change(banned)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (method, params, said) in [
            ("banpubkey", json!([]), "parameter 1: this is no public key"),
            (
                "banpubkey",
                json!(["00"]),
                "parameter 1: this is no public key",
            ),
            (
                "banpubkey",
                json!([Keys::generate().public_key().to_hex(), 3]),
                "parameter 2: a reason is a text",
            ),
            (
                "banevent",
                json!(["x"]),
                "parameter 1: this is no event's id",
            ),
            (
                "allowkind",
                json!([65_536]),
                "parameter 1: this is no kind, a number up to 65535",
            ),
            (
                "blockip",
                json!(["example.org"]),
                "parameter 1: this is no IP address",
            ),
            (
                "createrole",
                json!([]),
                "there is no method \"createrole\" here: ask supportedmethods",
            ),
        ] {
            assert_eq!(read(method, params).unwrap_err().to_string(), said);
        }
    }
}
