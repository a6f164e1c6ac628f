//! Logs: structured, on standard error, so that standard output stays the user's.
//!
//! What never reaches a log: prompts, outputs, keys, preimages.

use std::ffi::OsString;
use std::fmt;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Crates that are noisy, or that would print whole messages of the wire, unless the user asks for them by name.
const QUIET: &str = "nostr_relay_pool=off,nostr_relay_builder=warn,tungstenite=warn,tokio_tungstenite=warn,\
                     hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn,sqlx=warn,h2=warn";

/// How much is logged, and in which form.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct LogOptions {
    /// What to log: a level (error, warn, info, debug, trace) or a filter like `info,infernet_provider=debug`.
    #[arg(
        long = "log",
        env = "INFERNET_LOG",
        value_name = "LEVEL",
        global = true,
        hide_env_values = true
    )]
    pub filter: Option<String>,

    /// Log one JSON object a line.
    #[arg(
        long = "log-json",
        env = "INFERNET_LOG_JSON",
        value_parser = clap::builder::FalseyValueParser::new(),
        global = true,
        hide_env_values = true
    )]
    pub json: bool,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("--log {filter}: {reason}. Try a level: error, warn, info, debug or trace")]
    Filter {
        /// What was asked for.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else in this process set logs up before.
    #[error("logs are already set up in this process")]
    Twice,
}

impl LogOptions {
    /// Sends the logs of this process to standard error; `default` is the level or filter where the user names none.
    ///
    /// # Errors
    /// A filter that cannot be read, or a second call in one process.
    pub fn init(&self, default: &str) -> Result<(), Error> {
        let logs = tracing_subscriber::fmt()
            .with_env_filter(self.filter(default)?)
            .with_ansi(is_coloured(
                std::io::stderr().is_terminal(),
                std::env::var_os("NO_COLOR"),
            ))
            .with_writer(std::io::stderr);
        let set = if self.json {
            logs.json().flatten_event(true).try_init()
        } else {
            logs.with_target(false).try_init()
        };
        set.map_err(|_| Error::Twice)
    }

    fn filter(&self, default: &str) -> Result<EnvFilter, Error> {
        let filter = self.filter.as_deref().unwrap_or(default);
        // A misspelt level would pass for the name of a target, and silence everything else.
        let is_misspelt = |word: &&str| {
            !word.is_empty()
                && word.bytes().all(|b| b.is_ascii_alphabetic())
                && word.parse::<LevelFilter>().is_err()
        };
        if let Some(word) = filter.split(',').find(is_misspelt) {
            return Err(refused(filter, &format!("{word} is no level")));
        }
        // A later directive for the same target replaces an earlier one, so the user's own come last.
        EnvFilter::builder()
            .parse(format!("{QUIET},{filter}"))
            .map_err(|reason| refused(filter, &reason))
    }
}

/// Whether logs have colours: on a terminal, unless the user wants none (no-color.org).
fn is_coloured(is_terminal: bool, no_color: Option<OsString>) -> bool {
    is_terminal && no_color.is_none_or(|value| value.is_empty())
}

fn refused(filter: &str, reason: &dyn fmt::Display) -> Error {
    Error::Filter {
        filter: filter.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn asked(filter: &str) -> Result<String, Error> {
        let options = LogOptions {
            filter: Some(filter.to_owned()),
            json: false,
        };
        Ok(options.filter("info")?.to_string())
    }

    #[test]
    fn noisy_crates_stay_quiet_until_named() {
        let debug = asked("debug").unwrap();
        assert!(debug.contains("hyper=warn") && debug.ends_with("debug"));
        let named = asked("debug,hyper=trace").unwrap();
        assert!(named.contains("hyper=trace") && !named.contains("hyper=warn"));
    }

    #[derive(clap::Parser)]
    struct Role {
        #[command(flatten)]
        log: LogOptions,
    }

    #[test]
    fn flags_are_read() {
        use clap::Parser;
        let role = Role::parse_from(["role", "--log", "trace", "--log-json"]);
        assert_eq!(role.log.filter.as_deref(), Some("trace"));
        assert!(role.log.json);
    }

    #[test]
    fn the_role_chooses_where_the_user_does_not() {
        let filter = LogOptions::default().filter("warn").unwrap().to_string();
        assert!(filter.ends_with(",warn"), "{filter}");
    }

    #[test]
    fn an_unreadable_filter_says_what_to_try() {
        let said = asked("infernet=loud").unwrap_err().to_string();
        assert!(said.contains("--log infernet=loud") && said.contains("Try a level"));
        for misspelt in ["loud", "info,degub"] {
            assert!(asked(misspelt).is_err(), "{misspelt}");
        }
        for filter in ["INFO", "off", "infernet_node", "hyper=trace"] {
            assert!(asked(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn logs_have_colours_on_a_terminal_that_wants_them() {
        let no_color = |value: &str| Some(OsString::from(value));
        assert!(is_coloured(true, None) && is_coloured(true, no_color("")));
        assert!(!is_coloured(false, None) && !is_coloured(true, no_color("1")));
    }
}
