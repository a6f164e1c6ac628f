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
        named(&table, "", &mut Vec::new());
    }

    /// Checks that each table of `whole` has all keys that this place in the options knows.
    fn named(table: &toml::Table, place: &str, path: &mut Vec<String>) {
        let mut text = String::new();
        if !path.is_empty() {
            let heading = path.join(".");
            text = match place {
                "[]" => format!("[[{heading}]]\nurl = \"wss://x\"\n"),
                _ => format!("[{heading}]\n"),
            };
        }
        text.push_str("unheard_of = 1");
        let refused = toml::from_str::<Options>(&text).unwrap_err().to_string();
        let known = refused.split("expected").nth(1).unwrap();
        for key in known.split('`').skip(1).step_by(2) {
            assert!(table.contains_key(key), "{path:?} without {key}");
        }
        for (key, value) in table {
            path.push(key.clone());
            match value {
                // A filter is not ours, and a rate has its keys.
                toml::Value::Table(_)
                    if ["filter", "free", "events", "bytes", "requests"]
                        .contains(&key.as_str()) => {}
                toml::Value::Table(inner) => named(inner, "", path),
                toml::Value::Array(array) => {
                    if let Some(toml::Value::Table(inner)) = array.first() {
                        named(inner, "[]", path);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }
}
