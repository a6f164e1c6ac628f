//! What the user sees while a job runs: the answer on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use infernet_client::{Step, Summary};
use infernet_protocol::money::{Msat, Price};

/// The two streams.
pub struct Terminal {
    /// Whether the answer is shown as it comes.
    streams: bool,
    /// Whether a person may be reading standard output.
    is_terminal: bool,
    at_line_start: bool,
    /// What was charged and is not told yet: where there was one attempt, the last line says it.
    charges: Vec<String>,
}

impl Terminal {
    /// Shows the answer as it comes if `streams`.
    pub fn new(streams: bool) -> Self {
        Self {
            streams,
            is_terminal: io::stdout().is_terminal(),
            at_line_start: true,
            charges: Vec::new(),
        }
    }

    /// Shows what happened.
    ///
    /// # Errors
    /// Standard output that is closed.
    pub fn show(&mut self, step: &Step) -> io::Result<()> {
        if let Step::Text(text) = step {
            return self.text(text);
        }
        let notice = notice(step);
        if matches!(step, Step::Charged { .. }) {
            self.charges.extend(notice);
            return Ok(());
        }
        if let Some(notice) = notice {
            self.tell_charges();
            self.say(&notice);
        }
        Ok(())
    }

    /// Tells what was charged, if it is not told yet.
    pub fn tell_charges(&mut self) {
        for charge in std::mem::take(&mut self.charges) {
            self.say(&charge);
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        if !self.streams {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        match self.is_terminal {
            true => out.write_all(harmless(text).as_bytes())?,
            false => out.write_all(text.as_bytes())?,
        }
        if let Some(last) = text.chars().last() {
            self.at_line_start = last == '\n';
        }
        out.flush()
    }

    /// Says something beside the answer.
    pub fn say(&mut self, notice: &str) {
        if self.is_terminal && !self.at_line_start {
            eprintln!();
            self.at_line_start = true;
        }
        eprintln!("{notice}");
    }

    /// Ends the answer's last line.
    ///
    /// # Errors
    /// Standard output that is closed.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.streams && !self.at_line_start {
            self.at_line_start = true;
            io::stdout().lock().write_all(b"\n")?;
        }
        Ok(())
    }
}

/// A model's text with nothing in it that would steer a terminal.
fn harmless(text: &str) -> String {
    let steers = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().filter(|c| !steers(c)).collect()
}

/// A step in a sentence; none for what is not worth one.
fn notice(step: &Step) -> Option<String> {
    Some(match step {
        Step::Offered { job } => format!("Offer {} is out, waiting for bids.", &job.to_hex()[..8]),
        Step::Bid {
            name,
            price,
            promise,
        } => format!(
            "  {name} bids: {}, first token in {:.1} s, {:.0} tokens/s",
            price_of(price),
            promise.first_token_ms as f64 / 1_000.0,
            promise.tokens_per_s
        ),
        Step::Awarded {
            attempt: 1,
            name,
            model,
            job,
            ..
        } => {
            format!("{name} serves it with {model}. Job {}", &job.to_hex()[..8])
        }
        Step::Awarded {
            attempt,
            name,
            behind: 0,
            ..
        } => format!("{name} takes over (attempt {attempt})."),
        Step::Awarded {
            attempt,
            name,
            behind,
            ..
        } => {
            format!("{name} takes over behind {behind} tokens (attempt {attempt}).")
        }
        Step::Accepted { ahead: 0 } | Step::Text(_) => return None,
        Step::Accepted { ahead: 1 } => "It waits behind another job.".into(),
        Step::Accepted { ahead } => format!("It waits behind {ahead} other jobs."),
        Step::Declined {
            name,
            reason,
            detail,
        } if detail.is_empty() => format!("{name} declined: {reason}."),
        Step::Declined {
            name,
            reason,
            detail,
        } => format!("{name} declined: {reason} ({detail})."),
        Step::Failed { name, how } => format!("{name} {how}."),
        Step::TabTaken { name } => {
            format!("Another infernet-client has the tab with {name}; waiting until it is done.")
        }
        Step::Paid {
            name,
            amount,
            fee: Msat::ZERO,
            left_msat,
        } => format!("Paid {amount} to {name}; {}.", left_on_tab(*left_msat)),
        Step::Paid {
            name,
            amount,
            fee,
            left_msat,
        } => format!(
            "Paid {amount} to {name}, and {fee} for routing; {}.",
            left_on_tab(*left_msat)
        ),
        Step::Unpaid { name, why } => {
            format!("Not paid yet, {name} is asked for another invoice: {why}.")
        }
        Step::Charged {
            amount: Msat::ZERO,
            paid: Msat::ZERO,
            ..
        } => return None,
        Step::Charged {
            name,
            amount,
            left_msat,
            ..
        } => format!("{name} charged {amount}; {}.", left_on_tab(*left_msat)),
        Step::Unclear { name, .. } => {
            format!(
                "What {name} has charged will be known when a relay answers; the next job looks."
            )
        }
        Step::Adrift => "No relay answers; waiting for one to come back.".into(),
        Step::Moored => "A relay answers again.".into(),
    })
}

/// What is left on a tab, in words.
pub fn left_on_tab(left_msat: i64) -> String {
    let amount = Msat(left_msat.unsigned_abs());
    match left_msat {
        ..0 => format!("you owe {amount}"),
        _ => format!("{amount} left on the tab"),
    }
}

/// A price in words.
pub fn price_of(price: &Price) -> String {
    match price.is_free() {
        true => "free".into(),
        false => format!("{} + {} msat/M tokens", price.input_msat, price.output_msat),
    }
}

/// What it cost, as the end of a line.
fn cost_of(summary: &Summary) -> String {
    match summary.left_msat {
        None => String::new(),
        Some(left_msat) => format!(
            " Cost {}; {}.",
            summary.charged_msat,
            left_on_tab(left_msat)
        ),
    }
}

/// How fast it went and what it cost, in a line.
pub fn speed_of(summary: &Summary) -> String {
    if !summary.vectors.is_empty() {
        let (name, vectors) = (&summary.provider_name, summary.vectors.len());
        let job = &summary.job.to_hex()[..8];
        let what = if vectors == 1 { "vector" } else { "vectors" };
        return format!(
            "{name}: {vectors} {what} after {} ms.{} See: infernet-client show {job}",
            summary.total_ms,
            cost_of(summary)
        );
    }
    let speed = match summary.tokens_per_s {
        speed if speed > 0.0 => format!(", {speed:.1} tokens/s"),
        _ => String::new(),
    };
    format!(
        "{}: {} tokens, the first after {} ms{speed}.{} See: infernet-client show {}",
        summary.provider_name,
        summary.output_tokens,
        summary.first_token_ms,
        cost_of(summary),
        &summary.job.to_hex()[..8],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{9b}1A\u{7}"), "a[2Jb\n\tc1A");
    }
}
