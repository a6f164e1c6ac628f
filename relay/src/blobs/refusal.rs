//! Why a request about blobs is refused.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// The header that says why, for people (BUD-01).
const REASON: &str = "x-reason";

/// Why a request is refused. Its words are what the client reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A part of the request is not of the right form.
    #[error("{0}")]
    Malformed(&'static str),
    /// Nobody signed it, or not as it should be.
    #[error("authorization: {0}")]
    Unauthorized(&'static str),
    /// Whoever signed it may not.
    #[error("{0}")]
    Forbidden(&'static str),
    /// There is no such blob.
    #[error("there is no such blob here")]
    Unknown,
    /// The bytes are not those that were announced.
    #[error("the bytes have another hash than was said")]
    OtherHash,
    /// Nobody knows how many bytes come.
    #[error("say how many bytes come (Content-Length)")]
    NoLength,
    /// It is too large.
    #[error("a blob may have {0} bytes")]
    TooLarge(u64),
    /// The key has its share.
    #[error("this key has {0} bytes here, which is all that one may have: delete some, or wait")]
    KeyFull(u64),
    /// The address sent its share.
    #[error("this address sent all that it may in an hour")]
    AddressSpent,
    /// There is no room for anybody.
    #[error("no room is left")]
    Full,
    /// There are as many at a time as there may be.
    #[error("too many at once; try again in a moment")]
    Busy,
    /// The range lies outside the blob.
    #[error("the blob has {0} bytes")]
    OutOfRange(u64),
    /// The client broke off or sent nothing for too long.
    #[error("the bytes did not come")]
    BrokenOff,
    /// The disk failed.
    #[error("the disk failed")]
    Disk,
}

impl Refusal {
    const fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BrokenOff => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::Unknown => StatusCode::NOT_FOUND,
            Self::OtherHash => StatusCode::CONFLICT,
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::KeyFull(_) | Self::AddressSpent => StatusCode::TOO_MANY_REQUESTS,
            Self::Full => StatusCode::INSUFFICIENT_STORAGE,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::OutOfRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Disk => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let said = self.to_string();
        let mut response = (self.status(), format!("{said}\n")).into_response();
        let headers = response.headers_mut();
        if let Ok(reason) = HeaderValue::from_str(&said) {
            headers.insert(REASON, reason);
        }
        match self {
            Self::OutOfRange(bytes) => {
                if let Ok(range) = HeaderValue::from_str(&format!("bytes */{bytes}")) {
                    headers.insert(header::CONTENT_RANGE, range);
                }
            }
            Self::Busy => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
