//! Parts of a blob (RFC 9110, section 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};

use super::refusal::Refusal;

/// The part of `bytes` that is asked for, if it is one. Several at once, and what is not understood, are answered
/// with the whole, as the RFC allows.
///
/// # Errors
/// [`Refusal::OutOfRange`] if nothing of it is there.
pub fn wanted(headers: &HeaderMap, bytes: u64) -> Result<Option<Range<u64>>, Refusal> {
    let header = headers.get(header::RANGE);
    let Some(range) = header.and_then(|value| parse(value.to_str().ok()?)) else {
        return Ok(None);
    };
    let part = match range {
        Wanted::Last(0) => return Err(Refusal::OutOfRange(bytes)),
        Wanted::Last(count) => bytes.saturating_sub(count)..bytes,
        Wanted::From(start, None) => start..bytes,
        Wanted::From(start, Some(end)) if end < start => return Ok(None),
        Wanted::From(start, Some(end)) => start..bytes.min(end.saturating_add(1)),
    };
    match part.is_empty() {
        true => Err(Refusal::OutOfRange(bytes)),
        false => Ok(Some(part)),
    }
}

enum Wanted {
    From(u64, Option<u64>),
    Last(u64),
}

fn parse(text: &str) -> Option<Wanted> {
    let (start, end) = text.strip_prefix("bytes=")?.split_once('-')?;
    match (start.trim(), end.trim()) {
        ("", count) => Some(Wanted::Last(count.parse().ok()?)),
        (start, "") => Some(Wanted::From(start.parse().ok()?, None)),
        (start, end) => Some(Wanted::From(start.parse().ok()?, Some(end.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ranges_are_as_the_rfc_has_them() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            wanted(&headers, 100)
        };
        assert_eq!(of("bytes=0-9"), Ok(Some(0..10)));
        assert_eq!(of("bytes=90-"), Ok(Some(90..100)));
        assert_eq!(of("bytes=-10"), Ok(Some(90..100)));
        assert_eq!(of("bytes=-1000"), Ok(Some(0..100)));
        assert_eq!(of("bytes=50-18446744073709551615"), Ok(Some(50..100)));
        for whole in [
            "bytes=9-0",
            "bytes=0-1,5-6",
            "lines=1-2",
            "bytes=a-b",
            "bytes=--1",
            "",
        ] {
            assert_eq!(of(whole), Ok(None), "{whole}");
        }
        for none in ["bytes=100-", "bytes=100-200", "bytes=-0"] {
            assert_eq!(of(none), Err(Refusal::OutOfRange(100)), "{none}");
        }
        assert_eq!(wanted(&HeaderMap::new(), 100), Ok(None));
    }
}
