//! Errors as people read them: with their causes, each said once, on one line that cannot steer a terminal.

use std::error::Error;

/// An error and its causes, `what: why: why`. Many errors say their cause themselves: such a cause is not said again.
/// Control characters, which a relay may have put into its words, become spaces.
pub fn told(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let why = error.to_string();
        if !said.contains(&why) {
            said = format!("{said}: {why}");
        }
        cause = error.source();
    }
    said.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Fault {
        #[error("cannot read it: {0}")]
        Said(#[source] std::fmt::Error),
        #[error("cannot read it")]
        Unsaid(#[source] std::fmt::Error),
        #[error("the relay says \u{1b}[2J\nno")]
        Steers,
    }

    #[test]
    fn each_cause_is_said_once() {
        let once = format!("cannot read it: {}", std::fmt::Error);
        assert_eq!(told(&Fault::Said(std::fmt::Error)), once);
        assert_eq!(told(&Fault::Unsaid(std::fmt::Error)), once);
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(told(&Fault::Steers), "the relay says  [2J no");
    }
}
