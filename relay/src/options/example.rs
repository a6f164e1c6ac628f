//! A configuration for people to begin with.

/// A file with every setting at its default, for people to begin with.
pub const EXAMPLE: &str = include_str!("../../relay.toml");

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::Options;
    use super::*;

    #[test]
    fn the_example_says_the_defaults() {
        let example: Options = toml::from_str(EXAMPLE).unwrap();
        assert_eq!(example, Options::default());
    }

    /// The example with what it leaves out.
    fn whole_example() -> String {
        let is_setting = |line: &str| line.starts_with("# [[") || line.contains(" = ");
        let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
            Some(setting) if is_setting(line) => setting,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_names_every_setting() {
        let whole = whole_example();
        let options: Options = toml::from_str(&whole).unwrap();
        assert!(options.pubkey.is_some() && options.sync[0].filter.is_some());
        let table: toml::Table = toml::from_str(&whole).unwrap();
        named(&table, false, &mut Vec::new());
    }

    /// Checks that `table`, and each in it, has all keys that the options know at this place: they say so themselves
    /// when they refuse one.
    fn named(table: &toml::Table, is_one_of_many: bool, path: &mut Vec<String>) {
        let heading = path.join(".");
        let mut text = match (path.is_empty(), is_one_of_many) {
            (true, _) => String::new(),
            (_, true) => format!("[[{heading}]]\n"),
            (_, false) => format!("[{heading}]\n"),
        };
        text.push_str("unheard_of = 1");
        let refused = toml::from_str::<Options>(&text).unwrap_err().to_string();
        let known = refused.split("expected").nth(1).unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            assert!(table.contains_key(key), "{path:?} without {key}");
        }
        for (key, value) in table {
            path.push(key.clone());
            match value {
                // What a filter knows is not ours to say.
                toml::Value::Table(_) if key == "filter" => {}
                toml::Value::Table(inner) => named(inner, false, path),
                toml::Value::Array(array) => {
                    if let Some(toml::Value::Table(inner)) = array.first() {
                        named(inner, true, path);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }
}
