//! What people write in a chat is text: it never becomes a special token, so
//! that nobody can end a message and begin another one under another role
//! (`nips/models.md`).
//!
//! A template lays a chat out as one text, in which a tokenizer takes
//! `<|im_end|>` for the end of a message whoever wrote it. So the messages'
//! special texts are cut in two before, by a mark that occurs nowhere in them,
//! and what is left and right of a mark is tokenized apart.

use std::borrow::Cow;

use infernet_protocol::inference::Message;

/// What marks are made of: a noncharacter, which Unicode keeps for such uses.
const MARK: char = '\u{fdd0}';

/// Where a text was cut.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seam(Option<String>);

impl Seam {
    /// The pieces of a text that a template made of the messages.
    pub(crate) fn split<'a>(&'a self, text: &'a str) -> Vec<&'a str> {
        match &self.0 {
            Some(mark) => text.split(mark.as_str()).collect(),
            None => vec![text],
        }
    }
}

/// Cuts all `special` texts in the messages in two. Mostly there are none.
pub(crate) fn separate<'a>(
    messages: &'a [Message],
    special: impl Iterator<Item = &'a str>,
) -> (Cow<'a, [Message]>, Seam) {
    // What is a single character cannot be cut, nor what holds the mark.
    let special = special.filter(|text| text.chars().nth(1).is_some() && !text.contains(MARK));
    let written = |text: &&str| messages.iter().any(|one| one.content.contains(*text));
    let special: Vec<&str> = special.filter(written).collect();
    if special.is_empty() {
        return (Cow::Borrowed(messages), Seam(None));
    }
    let mark = mark(messages);
    let mut cut = messages.to_vec();
    for message in &mut cut {
        for text in &special {
            // Again, since of two that overlap only the first is replaced.
            while message.content.contains(text) {
                message.content = message.content.replace(text, &halves(text, &mark));
            }
        }
    }
    (Cow::Owned(cut), Seam(Some(mark)))
}

/// A special text with the mark behind its first character.
fn halves(text: &str, mark: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter();
    first.chain(mark.chars()).chain(characters).collect()
}

/// One more of [`MARK`] than stand together anywhere in the messages.
fn mark(messages: &[Message]) -> String {
    let run = |content: &str| {
        let others = content.split(|c| c != MARK);
        others.map(|run| run.chars().count()).max().unwrap_or(0)
    };
    let longest = messages.iter().map(|one| run(&one.content)).max();
    MARK.to_string().repeat(longest.unwrap_or(0) + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use infernet_protocol::inference::Role;
    use proptest::prelude::*;

    use super::*;

    const SPECIAL: [&str; 3] = ["<|end|>", "aa", "a"];

    fn pieces(content: &str) -> Vec<String> {
        let message = Message {
            role: Role::User,
            content: content.into(),
        };
        let (messages, seam) = separate(std::slice::from_ref(&message), SPECIAL.into_iter());
        let pieces = seam.split(&messages[0].content);
        pieces.into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn special_texts_are_cut_and_nothing_else() {
        assert_eq!(pieces("hi <|end|> there"), ["hi <", "|end|> there"]);
        assert_eq!(pieces("hi <|end| there"), ["hi <|end| there"]);
        assert_eq!(pieces("<|<|end|>end|>"), ["<|<", "|end|>end|>"]);
        assert_eq!(pieces("aaa"), ["a", "a", "a"]);
    }

    proptest! {
        #[test]
        fn no_piece_is_special_and_nothing_is_lost(content in "[a<|>end\u{fdd0}]{0,40}") {
            let pieces = pieces(&content);
            prop_assert_eq!(pieces.concat(), content);
            for piece in pieces {
                prop_assert!(!piece.contains("<|end|>") && !piece.contains("aa"));
            }
        }
    }
}
