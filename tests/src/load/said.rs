//! What a relay says, read no further than counting needs.

/// What a relay says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// `OK`: the event's number, whether it was taken, and the relay's words as JSON.
    Ok(u64, bool, &'a str),
    /// `EVENT`: the event's number.
    Event(u64),
    /// `EOSE`: all that was stored has been sent.
    Eose,
    /// `CLOSED`, whole.
    Closed(&'a str),
    /// `NOTICE`, whole.
    Notice(&'a str),
    /// Anything else.
    Other(&'a str),
}

impl<'a> Said<'a> {
    /// Reads a message.
    pub fn read(text: &'a str) -> Self {
        let bytes = text.as_bytes();
        match bytes.get(2).zip(bytes.get(4)) {
            Some((b'O', b'"')) => ok(text).unwrap_or(Self::Other(text)),
            Some((b'E', b'E')) if text.starts_with(r#"["EVENT""#) => match event_number(text) {
                Some(number) => Self::Event(number),
                None => Self::Other(text),
            },
            Some((b'E', b'S')) => Self::Eose,
            Some((b'C', _)) if text.starts_with(r#"["CLOSED""#) => Self::Closed(text),
            Some((b'N', _)) if text.starts_with(r#"["NOTICE""#) => Self::Notice(text),
            _ => Self::Other(text),
        }
    }
}

fn ok(text: &str) -> Option<Said<'_>> {
    let rest = text.strip_prefix(r#"["OK",""#)?;
    let (id, rest) = (rest.get(..64)?, rest.get(64..)?);
    let number = number(id.as_bytes());
    if let Some(words) = rest.strip_prefix(r#"",true"#) {
        return Some(Said::Ok(number, true, words));
    }
    let words = rest.strip_prefix(r#"",false"#)?;
    Some(Said::Ok(number, false, words))
}

/// The number of the first event in a message.
pub fn event_number(text: &str) -> Option<u64> {
    const ID: &str = r#""id":""#;
    let at = text.find(ID)? + ID.len();
    text.as_bytes().get(at..at + 64).map(number)
}

/// The first 64 bits of an id in hex: enough to tell a million apart.
pub(super) fn number(hex: &[u8]) -> u64 {
    let digits = hex.iter().take(16);
    let digit = |byte: &u8| u64::from(byte & 15) + 9 * u64::from(byte >> 6);
    digits.fold(0, |number, byte| number << 4 | digit(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_relay_says_is_told_apart() {
        let id = "0123456789abcdef".repeat(4);
        let number = 0x0123_4567_89ab_cdef;
        let ok = format!(r#"["OK","{id}",true,""]"#);
        assert_eq!(
            Said::read(&ok),
            Said::Ok(number, true, r#","" ]"#.replace(' ', "").as_str())
        );
        let refused = format!(r#"["OK","{id}",false,"pow: 8"]"#);
        assert_eq!(
            Said::read(&refused),
            Said::Ok(number, false, r#","pow: 8"]"#)
        );
        let event = format!(r#"["EVENT","s",{{"id":"{id}"}}]"#);
        assert_eq!(Said::read(&event), Said::Event(number));
        assert_eq!(Said::read(r#"["EOSE","s"]"#), Said::Eose);
        let closed = r#"["CLOSED","s","error: no"]"#;
        assert_eq!(Said::read(closed), Said::Closed(closed));
        let notice = r#"["NOTICE","hm"]"#;
        assert_eq!(Said::read(notice), Said::Notice(notice));
        assert_eq!(Said::read("[]"), Said::Other("[]"));
    }
}
