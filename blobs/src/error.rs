//! What can go wrong with a blob.

use std::fmt;

use infernet_protocol::bounds::MAX_BLOB_BYTES;

use crate::Address;

/// Why a blob was not put, or cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no server to put it on.
    #[error("there is no blob server: name one in your settings (blossom)")]
    NoServer,
    /// It is larger than any blob.
    #[error("the blob has {bytes} bytes and no more than {MAX_BLOB_BYTES} are taken")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// No server took it.
    #[error("no blob server took it: {}", Told(.0))]
    NotPut(Vec<(Address, Failure)>),
    /// No server has it.
    #[error("no blob server has it: {}", Told(.0))]
    NotHad(Vec<(Address, Failure)>),
    /// None of the servers that were named for it may be asked.
    #[error(
        "its servers are http, and strangers' are asked by https alone; name them in your settings (blossom) if you trust them"
    )]
    NotAsked,
}

struct Told<'a>(&'a [(Address, Failure)]);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (server, failure)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{server}: {failure}")?;
        }
        Ok(())
    }
}

/// What one server did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It cannot be reached, or broke off.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("took too long")]
    Slow,
    /// It refused, with an HTTP status and perhaps a reason.
    #[error("answered {status}{}", reason_after(.reason))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it says of it (BUD-01's `X-Reason`).
        reason: Option<String>,
    },
    /// What it sent is not the blob.
    #[error("sent other bytes")]
    Other,
    /// Our own keys cannot sign.
    #[error("the request cannot be signed")]
    Unsigned,
}

fn reason_after(reason: &Option<String>) -> String {
    let reason = reason.as_ref().map(|reason| format!(" ({reason})"));
    reason.unwrap_or_default()
}

impl Failure {
    /// Whether nobody keeps blobs there.
    pub(crate) fn is_no_server(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: 404 | 405 | 426 | 501,
                ..
            }
        )
    }

    /// Whether the same server may do better a moment later.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Slow => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::Other | Self::Unsigned => false,
        }
    }
}
