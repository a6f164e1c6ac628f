//! What the user sees while a job runs: the answer on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use infernet_client::price::InWords;
use infernet_client::{Step, Summary};
use infernet_protocol::money::Msat;

/// The two streams.
pub struct Terminal {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether the answer is shown as it comes.
    streams: bool,
    /// Whether a person may be reading standard output.
    is_terminal: bool,
    /// Whether both streams are seen on one screen, where a line beside the answer would come between its words.
    is_one_screen: bool,
    /// Whether some of the answer has been shown, and not all.
    in_answer: bool,
    at_line_start: bool,
    /// What was charged and is not told yet: where there was one attempt, the last line says it.
    charges: Vec<String>,
    /// What has become of money while the answer came, to be told after it.
    held: Vec<String>,
}

impl Terminal {
    /// Shows the answer as it comes if `streams`.
    pub fn new(streams: bool) -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            streams,
            is_terminal,
            is_one_screen: is_terminal && io::stderr().is_terminal(),
            in_answer: false,
            at_line_start: true,
            charges: Vec::new(),
            held: Vec::new(),
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
        let Some(notice) = notice(step) else {
            return Ok(());
        };
        match step {
            Step::Charged { .. } => self.charges.push(notice),
            Step::Paid { .. } => self.tell_money(notice),
            _ => {
                self.tell_charges();
                self.say(&notice);
            }
        }
        Ok(())
    }

    /// Tells what was charged, if it is not told yet.
    pub fn tell_charges(&mut self) {
        for charge in std::mem::take(&mut self.charges) {
            self.tell_money(charge);
        }
    }

    /// Tells what has become of money: not between the words of an answer.
    fn tell_money(&mut self, notice: String) {
        match self.in_answer && self.is_one_screen {
            true => self.held.push(notice),
            false => self.say(&notice),
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        if !self.streams {
            return Ok(());
        }
        match self.is_terminal {
            true => self.out.write_all(harmless(text).as_bytes())?,
            false => self.out.write_all(text.as_bytes())?,
        }
        if let Some(last) = text.chars().last() {
            self.in_answer = true;
            self.at_line_start = last == '\n';
        }
        self.out.flush()
    }

    /// Says something beside the answer.
    pub fn say(&mut self, notice: &str) {
        // Who closes standard error wants no talk.
        if self.is_one_screen && !self.at_line_start {
            let _ = writeln!(self.err);
            self.at_line_start = true;
        }
        let _ = writeln!(self.err, "{notice}");
    }

    /// Ends the answer's last line, and tells what has become of money meanwhile.
    ///
    /// # Errors
    /// Standard output that is closed.
    pub fn finish(&mut self) -> io::Result<()> {
        self.in_answer = false;
        let ended = match self.streams && !self.at_line_start {
            true => self.out.write_all(b"\n").and_then(|()| self.out.flush()),
            false => Ok(()),
        };
        self.at_line_start = true;
        for notice in std::mem::take(&mut self.held) {
            self.say(&notice);
        }
        ended
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
            InWords(price),
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
        Step::Failed { name, how, .. } => format!("{name} {how}."),
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
    let made = match (summary.vectors.len(), summary.tensors.len()) {
        (0, 0) => None,
        (1, _) => Some("1 vector".to_owned()),
        (0, 1) => Some("1 tensor".to_owned()),
        (0, tensors) => Some(format!("{tensors} tensors")),
        (vectors, _) => Some(format!("{vectors} vectors")),
    };
    if let Some(made) = made {
        let (name, job) = (&summary.provider_name, &summary.job.to_hex()[..8]);
        return format!(
            "{name}: {made} after {} ms.{} See: infernet-client show {job}",
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
    #![allow(clippy::unwrap_used)]

    use std::sync::{Arc, Mutex};

    use super::*;

    /// What both streams have written, in its order.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is seen of an answer in two parts with a payment before, between and after, and a failover if there is one.
    fn seen(is_one_screen: bool, failover: Option<Step>) -> String {
        let screen = Screen::default();
        let mut terminal = Terminal {
            out: Box::new(screen.clone()),
            err: Box::new(screen.clone()),
            is_terminal: is_one_screen,
            is_one_screen,
            ..Terminal::new(true)
        };
        let paid = |sat: u64| Step::Paid {
            name: "ada".into(),
            amount: Msat(1_000 * sat),
            fee: Msat::ZERO,
            left_msat: 0,
        };
        let text = |text: &str| Step::Text(text.into());
        let steps = [Some(paid(1)), Some(text("one ")), Some(paid(2)), failover];
        let steps = steps.into_iter().flatten();
        for step in steps.chain([text("two"), paid(3)]) {
            terminal.show(&step).unwrap();
        }
        terminal.finish().unwrap();
        terminal.say("ada: 2 tokens");
        String::from_utf8(screen.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn money_does_not_come_between_the_words_of_an_answer() {
        let line = |sat: u64| format!("Paid {sat} sat to ada; 0 sat left on the tab.\n");
        let [one, two, three] = [1, 2, 3].map(line);
        assert_eq!(
            seen(true, None),
            format!("{one}one two\n{two}{three}ada: 2 tokens\n")
        );
        let failed = Step::Failed {
            name: "ada".into(),
            provider: nostr::Keys::generate().public_key(),
            blame: None,
            how: "fell silent".into(),
        };
        assert_eq!(
            seen(true, Some(failed)),
            format!("{one}one \nada fell silent.\ntwo\n{two}{three}ada: 2 tokens\n")
        );
        // Where they are two, each is told at once.
        assert_eq!(
            seen(false, None),
            format!("{one}one {two}two{three}\nada: 2 tokens\n")
        );
    }

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\tc\u{9b}1A\u{7}"), "a[2Jb\n\tc1A");
    }
}
