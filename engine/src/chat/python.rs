//! What templates expect of Python, where Jinja for Rust does otherwise.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, Output, State};
use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Sets an environment up as transformers does.
pub(super) fn set_up(environment: &mut Environment<'_>) {
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_formatter(print);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment.add_filter("tojson", to_json);
    environment.add_test("iterable", is_iterable);
}

/// Without the marks around what an assistant says, `{% generation %}`, which
/// are for training and write nothing.
pub(super) fn without_marks(source: &str) -> String {
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, statement)) = rest.split_once("{%") {
        text.push_str(before);
        text.push_str("{%");
        let end = statement.find("%}").unwrap_or(statement.len());
        let (statement, after) = statement.split_at(end);
        let name = statement.trim_matches(|c: char| c == '-' || c == '+' || c.is_whitespace());
        match name {
            "generation" => text.push_str(&statement.replace(name, "if true")),
            "endgeneration" => text.push_str(&statement.replace(name, "endif")),
            _ => text.push_str(statement),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

/// Nothing can be taken out of `none`, though Jinja for Rust lets it pass for a
/// list without elements.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// What templates call to refuse a chat.
fn raise_exception(reason: String) -> Result<String, minijinja::Error> {
    Err(refused(reason))
}

fn refused(reason: impl Into<String>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// The date as C's `strftime` writes it. It is always the same day, 1 January
/// 2026 at midnight, so that a chat makes the same tokens on every machine and
/// whenever it is checked (`nips/models.md`).
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        // `%-d` is `%d` without zeros before it.
        let mut code = characters.next();
        let bare = code == Some('-');
        if bare {
            code = characters.next();
        }
        let field = match code {
            Some('Y') => "2026",
            Some('y') => "26",
            Some('m' | 'd') => "01",
            Some('B') => "January",
            Some('b') => "Jan",
            Some('A') => "Thursday",
            Some('a') => "Thu",
            Some('j') => "001",
            Some('H' | 'M' | 'S') => "00",
            Some('I') => "12",
            Some('p') => "AM",
            Some('F') => "2026-01-01",
            Some('T') => "00:00:00",
            Some('%') => "%",
            _ => return Err(refused(format!("it asks for a date as {format}"))),
        };
        text.push_str(match bare {
            true if field.starts_with("00") && field != "001" => "0",
            true => field.trim_start_matches('0'),
            false => field,
        });
    }
    Ok(text)
}

/// JSON as Python's `json.dumps` writes it: with a space behind commas and
/// colons, and nothing escaped that needs not be.
fn to_json(value: &Value, options: Kwargs) -> Result<String, minijinja::Error> {
    /// Spaces; nobody indents JSON by more.
    const MAX_INDENT: usize = 16;
    let indent: Option<usize> = options.get("indent")?;
    let _: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut json = Vec::new();
    let written = match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent.min(MAX_INDENT));
            let format = PrettyFormatter::with_indent(spaces.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, format))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut json, OneLine)),
    };
    written.map_err(|error| refused(error.to_string()))?;
    String::from_utf8(json).map_err(|error| refused(error.to_string()))
}

/// One line, with a space behind commas and colons.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Prints a value: Python's names for what is no text and no number.
fn print(
    output: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let name = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(output, state, value),
    };
    output.write_str(name).map_err(minijinja::Error::from)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_day_is_always_the_same() {
        for (format, expected) in [
            ("%d %b %Y", "01 Jan 2026"),
            ("%A, %-d %B %y", "Thursday, 1 January 26"),
            ("%F %T 100%%", "2026-01-01 00:00:00 100%"),
            ("%-H", "0"),
            ("%-j", "1"),
        ] {
            assert_eq!(strftime_now(format).unwrap(), expected);
        }
        assert!(strftime_now("%Q").is_err());
        assert!(strftime_now("%").is_err());
    }
}
