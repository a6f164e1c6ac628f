//! What a relay asks of us when it refuses something: NIP-01's words for machines, and the numbers behind them.

use std::time::Duration;

use nostr::message::MachineReadablePrefix as Prefix;

/// The most work that is done for a relay: half a minute of one core, as computers are today.
pub const MAX_WORK: u8 = 28;

/// The longest pause that a relay is granted.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What would make a relay take what it has just refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// That we show so many bits of work (NIP-13); with none, that we say who we are (NIP-42).
    Standing(u32),
    /// That we try again later, after this pause if it says so.
    Patience(Option<Duration>),
    /// Nothing: this is its last word.
    Nothing,
}

impl Demand {
    /// Reads the relay's words.
    pub fn in_words(words: &str) -> Self {
        match Prefix::parse(words) {
            Some(Prefix::Pow) => first_number(words).map_or(Self::Nothing, Self::Standing),
            Some(Prefix::AuthRequired) => Self::Standing(0),
            Some(Prefix::RateLimited) => Self::Patience(pause(words)),
            Some(Prefix::Error) => Self::Patience(None),
            _ => Self::Nothing,
        }
    }
}

/// What a relay wants that asks for so many bits, in plain words.
pub(super) fn plainly(bits: u32) -> String {
    match bits {
        0 => "asks who we are (NIP-42)".to_owned(),
        bits => format!("asks for {bits} bits of proof of work (NIP-13)"),
    }
}

/// The pause in words like `rate-limited: …; again in 12 s`.
fn pause(words: &str) -> Option<Duration> {
    let (_, behind) = words.split_once("again in ")?;
    let pause = Duration::from_secs(first_number(behind)?.max(1).into());
    Some(pause.min(LONGEST_PAUSE))
}

/// The first whole number in `words`; one that is too large is as good as the largest.
fn first_number(words: &str) -> Option<u32> {
    let begin = words.find(|c: char| c.is_ascii_digit())?;
    let digits = words[begin..].split(|c: char| !c.is_ascii_digit()).next()?;
    Some(digits.parse().unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_what_would_help() {
        let seconds = |n| Demand::Patience(Some(Duration::from_secs(n)));
        for (words, demand) in [
            ("pow: 18 bits of work needed (NIP-13)", Demand::Standing(18)),
            ("pow: difficulty 25>=24", Demand::Standing(25)),
            ("pow: 99999999999999999999 bits", Demand::Standing(u32::MAX)),
            ("pow: work harder", Demand::Nothing),
            ("auth-required: who is there?", Demand::Standing(0)),
            ("rate-limited: 20 events; try again in 7 s", seconds(7)),
            ("rate-limited: again in 0 s", seconds(1)),
            ("rate-limited: again in 99999 s", seconds(120)),
            ("rate-limited: slow down", Demand::Patience(None)),
            ("error: the disk is full", Demand::Patience(None)),
            ("blocked: again in 3 s", Demand::Nothing),
            ("restricted: members only", Demand::Nothing),
            ("invalid: tags", Demand::Nothing),
            ("no", Demand::Nothing),
            ("", Demand::Nothing),
        ] {
            assert_eq!(Demand::in_words(words), demand, "{words}");
        }
    }
}
