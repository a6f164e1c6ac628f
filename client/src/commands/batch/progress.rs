//! What the user sees while a batch runs: one line that changes, on a terminal; else only what matters.

use std::io::{self, IsTerminal, Write};

use infernet_client::batch::{News, Totals};
use infernet_protocol::money::Msat;

/// Shows what happens on standard error.
pub struct Progress {
    aggregator: String,
    is_terminal: bool,
    /// Whether the changing line is on the screen.
    is_shown: bool,
    /// What was said last: it is not said twice.
    said: String,
}

impl Progress {
    pub fn new(aggregator: String) -> Self {
        Self {
            aggregator,
            is_terminal: io::stderr().is_terminal(),
            is_shown: false,
            said: String::new(),
        }
    }

    /// Shows what happened.
    pub fn show(&mut self, news: &News) {
        match (news, notice(news, &self.aggregator)) {
            (News::Totals(totals), _) => self.change(totals),
            (_, Some(notice)) => self.say(notice),
            (_, None) => {}
        }
    }

    /// Takes the changing line away.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            eprint!("\r\x1b[K");
        }
    }

    fn change(&mut self, totals: &Totals) {
        if self.is_terminal {
            eprint!("\r\x1b[K{}", line(totals));
            // Who closes standard error wants no talk.
            let _ = io::stderr().flush();
            self.is_shown = true;
        }
    }

    fn say(&mut self, notice: String) {
        if self.said != notice {
            self.end();
            eprintln!("{notice}");
            self.said = notice;
        }
    }
}

/// How far it is, in one line.
fn line(totals: &Totals) -> String {
    let over = totals.done + totals.failed + totals.flawed;
    let mut line = format!("{over}/{} lines", totals.lines);
    for (number, what) in [
        (totals.verified, "verified"),
        (totals.running, "running"),
        (totals.failed + totals.flawed, "failed"),
    ] {
        if number > 0 {
            line.push_str(&format!(", {number} {what}"));
        }
    }
    if totals.cost_msat > Msat::ZERO {
        line.push_str(&format!(", {}", totals.cost_msat));
    }
    if let Some(seconds) = totals.seconds_left {
        line.push_str(&format!(", {} left", span(seconds)));
    }
    line
}

/// What happened, in a sentence; none for what is not worth one.
fn notice(news: &News, aggregator: &str) -> Option<String> {
    Some(match news {
        News::Totals(_) => return None,
        News::Away => format!("{aggregator} does not answer; waiting for it."),
        News::Back => format!("{aggregator} answers again."),
        News::Paying { group, amount } => format!("Paying {amount}, to be held for group {group}."),
        News::Unpaid { group, why } => format!("Group {group} waits: {why}."),
        News::Cancelled { group, reason } => {
            format!("Nothing came of group {group}, and it costs nothing: {reason}.")
        }
        News::Blobless { group, why } => format!("Group {group} waits for a blob server: {why}."),
        News::Broken { group, how } => {
            format!("{aggregator} did not keep to its quote in group {group}: {how}.")
        }
        News::Refunding { amount } => format!("Asking for {amount} back, which were not needed."),
        News::Refunded { amount } => format!("{amount} came back."),
    })
}

/// A time in words, of one or two units.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_known() {
        let mut totals = Totals {
            lines: 100,
            ..Totals::default()
        };
        assert_eq!(line(&totals), "0/100 lines");
        totals.done = 40;
        totals.verified = 30;
        totals.running = 8;
        totals.flawed = 2;
        totals.cost_msat = Msat(1_500);
        totals.seconds_left = Some(75);
        assert_eq!(
            line(&totals),
            "42/100 lines, 30 verified, 8 running, 2 failed, 1.5 sat, 1 min 15 s left"
        );
    }

    #[test]
    fn times_are_short() {
        assert_eq!([5, 65, 7_260].map(span), ["5 s", "1 min 5 s", "2 h 1 min"]);
    }
}
