//! The signed event in the header `Authorization: Nostr <base64>`, as BUD-11 and NIP-98 have it.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use nostr::{Event, JsonUtil};

/// Characters of the header.
pub const MAX_CHARS: usize = 32 * 1024;

/// Why there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsigned {
    /// There is no such header.
    Missing,
    /// It holds something else.
    Malformed,
}

/// Reads the event, whose signature nobody has checked.
///
/// # Errors
/// [`Unsigned`].
pub fn event(headers: &HeaderMap) -> Result<Event, Unsigned> {
    let header = headers
        .get(header::AUTHORIZATION)
        .ok_or(Unsigned::Missing)?;
    let text = header.to_str().map_err(|_| Unsigned::Malformed)?;
    let (scheme, token) = text.split_once(' ').ok_or(Unsigned::Malformed)?;
    if !scheme.eq_ignore_ascii_case("nostr") || token.len() > MAX_CHARS {
        return Err(Unsigned::Malformed);
    }
    let json = base64_decode(token.trim()).ok_or(Unsigned::Malformed)?;
    Event::from_json(json).map_err(|_| Unsigned::Malformed)
}

/// The values of an event's tags of one name.
pub fn values<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a str> {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    tags.filter_map(move |tag| match tag {
        [key, value, ..] if key == name => Some(value.as_str()),
        _ => None,
    })
}

/// Both alphabets, with padding or without: clients have used each.
fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let alphabet = match text.contains(['-', '_']) {
        true => &URL_SAFE,
        false => &STANDARD,
    };
    let lenient =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, lenient).decode(text).ok()
}
