//! LDK's own log, made fit for ours: from Info up, and without anything that could be a preimage or an invoice.

use std::fmt::Write;

use ldk_node::logger::{LogLevel, LogRecord, LogWriter};

/// Hashes, keys and preimages look alike: 32 bytes in hex or more. All of them are shortened.
const SECRET_LENGTH: usize = 64;

/// How much of them is shown: enough to follow a payment or a channel through the log.
const SHOWN: usize = 8;

/// Writes LDK's log into ours.
#[derive(Debug)]
pub struct Writer;

impl LogWriter for Writer {
    fn log(&self, record: LogRecord<'_>) {
        let message = || harmless(&record.args.to_string());
        match record.level {
            // Where nobody pays for blocks there are no fees to estimate: nothing is wrong.
            LogLevel::Error if message().contains("Falling back to default") => {
                tracing::debug!(target: "ldk", "{}", message());
            }
            LogLevel::Error => tracing::error!(target: "ldk", "{}", message()),
            LogLevel::Warn => tracing::warn!(target: "ldk", "{}", message()),
            LogLevel::Info => tracing::info!(target: "ldk", "{}", message()),
            LogLevel::Debug | LogLevel::Trace | LogLevel::Gossip => {}
        }
    }
}

/// `message` with long hex shortened and invoices left out.
fn harmless(message: &str) -> String {
    let mut shown = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end.max(first.len_utf8()));
        push(&mut shown, word);
        rest = after;
    }
    shown
}

fn push(shown: &mut String, word: &str) {
    let is_hex = word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_invoice = word.len() > SHOWN && word.to_ascii_lowercase().starts_with("ln");
    if is_hex && word.len() >= SECRET_LENGTH {
        let _ = write!(shown, "{}…", &word[..SHOWN]);
    } else if is_invoice && word.len() >= SECRET_LENGTH {
        shown.push_str("an invoice");
    } else {
        shown.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_be_a_preimage_or_an_invoice_is_shown() {
        let preimage = "5f".repeat(32);
        let invoice = format!("lnbcrt{}", "1q".repeat(80));
        let said = harmless(&format!("claimed {preimage}, of [{invoice}] é at 12:30"));
        assert_eq!(said, "claimed 5f5f5f5f…, of [an invoice] é at 12:30");
    }
}
