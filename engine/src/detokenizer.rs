//! From an answer's tokens to text that can be shown.
//!
//! What is given out is a function of the tokens alone: an engine that goes on
//! after a prefix replays it here and then gives out what the first engine
//! would have given out next.

/// Gathers an answer's bytes into whole characters and looks for stop strings.
#[derive(Debug)]
pub(crate) struct Detokenizer {
    stop: Vec<String>,
    /// The beginning of a character whose other bytes have not come yet.
    bytes: Vec<u8>,
    /// Text that may be the beginning of a stop string.
    held: String,
    /// A space that the tokenizer put before the text and that is none of it.
    skip_space: bool,
    stopped: bool,
}

impl Detokenizer {
    /// Starts an answer that ends before any of `stop`. With `skip_space`, one
    /// space at the very beginning is left out.
    pub(crate) fn new(stop: Vec<String>, skip_space: bool) -> Self {
        Self {
            stop,
            bytes: Vec::new(),
            held: String::new(),
            skip_space,
            stopped: false,
        }
    }

    /// Takes the bytes of the next token and gives out what can be shown.
    pub(crate) fn push(&mut self, piece: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        let piece = self.without_first_space(piece);
        self.bytes.extend_from_slice(piece);
        let text = take_characters(&mut self.bytes);
        self.held.push_str(&text);
        self.release()
    }

    /// Has a stop string been reached?
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Ends the answer and gives out what was held back and belongs to it.
    pub(crate) fn finish(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        self.stopped = true;
        let mut text = std::mem::take(&mut self.held);
        text.push_str(&String::from_utf8_lossy(&self.bytes));
        text
    }

    fn without_first_space<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        if !self.skip_space || piece.is_empty() {
            return piece;
        }
        self.skip_space = false;
        piece.strip_prefix(b" ").unwrap_or(piece)
    }

    /// Cuts what was held back at the first stop string in it, or after what
    /// can be no beginning of one.
    fn release(&mut self) -> String {
        let found = self
            .stop
            .iter()
            .filter_map(|stop| self.held.find(stop))
            .min();
        if let Some(start) = found {
            self.stopped = true;
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let keep = self
            .stop
            .iter()
            .map(|stop| longest_beginning(&self.held, stop))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }
}

/// The length in bytes of the longest end of `text` that begins `stop`.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|&length| text.as_bytes().ends_with(&stop.as_bytes()[..length]))
        .unwrap_or(0)
}

/// Takes all whole characters out of `bytes` and leaves the beginning of an
/// unfinished one. Bytes that can become no character turn into U+FFFD.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut done = 0;
    while done < bytes.len() {
        match std::str::from_utf8(&bytes[done..]) {
            Ok(rest) => {
                text.push_str(rest);
                done = bytes.len();
            }
            Err(error) => {
                let valid = done + error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[done..valid]));
                done = valid;
                let Some(invalid) = error.error_len() else {
                    break;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid;
            }
        }
    }
    bytes.drain(..done);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(stop: &[&str], pieces: &[&[u8]], shown: &[&str], stopped: bool) {
        let stop = stop.iter().map(ToString::to_string).collect();
        let mut detokenizer = Detokenizer::new(stop, false);
        let mut given: Vec<_> = pieces.iter().map(|piece| detokenizer.push(piece)).collect();
        assert_eq!(detokenizer.is_stopped(), stopped);
        given.push(detokenizer.finish());
        assert_eq!(given, shown);
    }

    #[test]
    fn a_character_waits_for_all_its_bytes() {
        let wave = "👋".as_bytes();
        check(
            &[],
            &[b"hi ", &wave[..1], &wave[1..3], &wave[3..], b"!"],
            &["hi ", "", "", "👋", "!", ""],
            false,
        );
    }

    #[test]
    fn bytes_that_are_no_character_are_replaced() {
        check(
            &[],
            &[b"a\xff", b"b\xf0\x9f"],
            &["a\u{fffd}", "b", "\u{fffd}"],
            false,
        );
        check(&[], &[b"\xf0\x9f", b"x"], &["", "\u{fffd}x", ""], false);
    }

    #[test]
    fn a_stop_string_is_found_over_token_borders() {
        check(
            &["END"],
            &[b"one E", b"N", b"D two"],
            &["one ", "", "", ""],
            true,
        );
        check(&["END"], &[b"one E", b"NT"], &["one ", "ENT", ""], false);
        check(&["END"], &[b"one EN"], &["one ", "EN"], false);
    }

    #[test]
    fn the_first_of_several_stop_strings_counts() {
        check(&["bc", "abcd"], &[b"xab", b"cd"], &["x", "", ""], true);
        check(
            &["é"],
            &["caf\u{c3}".as_bytes(), "é".as_bytes()],
            &["cafÃ", "", ""],
            true,
        );
    }

    #[test]
    fn nothing_comes_after_a_stop() {
        check(&["."], &[b"a.", b"b"], &["a", "", ""], true);
    }

    #[test]
    fn one_leading_space_can_be_left_out() {
        let mut detokenizer = Detokenizer::new(vec![], true);
        assert_eq!(detokenizer.push(b""), "");
        assert_eq!(detokenizer.push(b"  a"), " a");
        assert_eq!(detokenizer.push(b" b"), " b");
    }

    proptest! {
        /// However the bytes are cut into tokens, the text is that of the whole.
        #[test]
        fn cuts_do_not_matter(bytes: Vec<u8>, cuts: Vec<prop::sample::Index>) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut detokenizer = Detokenizer::new(vec![], false);
            let mut text = String::new();
            for cut in cuts.windows(2) {
                text.push_str(&detokenizer.push(&bytes[cut[0]..cut[1]]));
            }
            text.push_str(&detokenizer.finish());
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        /// What is shown never holds a stop string and never has to be taken back.
        #[test]
        fn stop_strings_are_never_shown(pieces in prop::collection::vec("[ab]{0,3}", 0..12), stop in "[ab]{1,4}") {
            let whole = pieces.concat();
            let mut detokenizer = Detokenizer::new(vec![stop.clone()], false);
            let mut text: String = pieces.iter().map(|piece| detokenizer.push(piece.as_bytes())).collect();
            text.push_str(&detokenizer.finish());
            prop_assert_eq!(text.as_str(), whole.split(&stop).next().unwrap());
        }
    }
}
