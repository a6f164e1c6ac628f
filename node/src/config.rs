//! Where a process finds its settings: defaults < TOML file < environment < flags.
//!
//! A role's settings are one struct with `#[derive(Deserialize)]`, `#[serde(default, deny_unknown_fields)]` and a
//! `Default`; [`load`] answers the first two layers, and the role lays its clap arguments (which read the
//! environment themselves) over them.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::ops::Range;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// The largest configuration file that is read; a larger one is the wrong file.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there, or cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is larger than any configuration.
    #[error("{} is larger than {MAX_CONFIG_BYTES} bytes: this is no configuration file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file says something that these settings do not know or allow.
    #[error("{}", at(path, *line, key.as_deref(), message))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The key with its table, `limits.jobs`, where the fault lies at one.
        key: Option<String>,
        /// What is wrong.
        message: String,
    },
    /// Nothing says where this user's data lies.
    #[error("cannot tell where your data lies: set HOME, XDG_DATA_HOME or INFERNET_HOME")]
    NoHome,
}

fn at(path: &Path, line: usize, key: Option<&str>, message: &str) -> impl fmt::Display {
    let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
    format!("{}:{line}: {key}{message}", path.display())
}

/// Settings from the file that the user names, else from `default_path` if that file is there, else the defaults.
///
/// # Errors
/// A named file that is not there, and any file that is unreadable, too large, or says something unknown or invalid.
pub fn load<T: DeserializeOwned + Default>(
    path: Option<&Path>,
    default_path: &Path,
) -> Result<T, Error> {
    match (path, read(path.unwrap_or(default_path))) {
        (None, Err(Error::Unreadable { source, .. }))
            if source.kind() == io::ErrorKind::NotFound =>
        {
            Ok(T::default())
        }
        (_, text) => parse(&text?, path.unwrap_or(default_path)),
    }
}

fn read(path: &Path) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Error::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(text)
}

fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, Error> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        Error::Invalid {
            path: path.to_owned(),
            line: before(text, &span).lines().count().max(1),
            key: key_at(text, &span),
            message: error.message().replace('\n', ", "),
        }
    })
}

/// The text up to and with the first character of `span`.
fn before<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    let first = text[span.start..].chars().next().map_or(0, char::len_utf8);
    &text[..span.start + first]
}

/// The key of the line that `span` begins in, with the table that it stands under.
fn key_at(text: &str, span: &Range<usize>) -> Option<String> {
    let mut lines = before(text, span).lines().rev();
    lines.next()?;
    let start = text[..span.start]
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let (key, _) = text[start..].lines().next()?.split_once('=')?;
    let table = lines.find_map(|line| line.trim().strip_prefix('[')?.split(']').next());
    Some(match table.map(|table| table.trim_start_matches('[')) {
        Some(table) => format!("{table}.{}", key.trim()),
        None => key.trim().to_owned(),
    })
}

/// Makes a settings file for its owner alone, as it may come to hold the connection to a wallet. Answers whether it is
/// new; one that is there is left as it is.
///
/// # Errors
/// [`Error::Unwritable`].
pub fn make(path: &Path, template: &str) -> Result<bool, Error> {
    let mut file = OpenOptions::new();
    let file = file.write(true).create_new(true).mode(0o600).open(path);
    match file.and_then(|mut file| file.write_all(template.as_bytes())) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(Error::Unwritable {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What to tell the owner of a file that holds a wallet's connection, if others can read it.
pub fn warning_of_readers(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    (mode & 0o077 != 0).then(|| {
        format!(
            "warning: {} holds the connection to your wallet, and others on this machine can read it: chmod 600 {0}",
            path.display()
        )
    })
}

/// The folder where `role` keeps its data: `$INFERNET_HOME/<role>`, else `$XDG_DATA_HOME/infernet/<role>`, else
/// `~/.local/share/infernet/<role>`. Nothing is made here.
///
/// # Errors
/// When none of the three variables is set.
pub fn home(role: &str) -> Result<PathBuf, Error> {
    home_from(role, |name| std::env::var_os(name).map(PathBuf::from))
}

fn home_from(role: &str, variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Error> {
    let set = |name| variable(name).filter(|path| !path.as_os_str().is_empty());
    // The XDG specification has relative paths ignored.
    let xdg = || set("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let shared = || Some(set("HOME")?.join(".local/share"));
    set("INFERNET_HOME")
        .or_else(|| Some(xdg().or_else(shared)?.join("infernet")))
        .map(|home| home.join(role))
        .ok_or(Error::NoHome)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        name: String,
        limits: Limits,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Limits {
        jobs: u32,
        bytes: u64,
    }

    impl Default for Limits {
        fn default() -> Self {
            Self { jobs: 4, bytes: 9 }
        }
    }

    /// What the user reads when a file says `text`.
    fn refusal(text: &str) -> String {
        let file = Path::new("provider.toml");
        parse::<Settings>(text, file).unwrap_err().to_string()
    }

    #[test]
    fn a_file_lies_over_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("provider.toml");
        std::fs::write(&path, "name = \"here\"\n[limits]\njobs = 2\n").unwrap();
        let settings: Settings = load(None, &path).unwrap();
        assert_eq!(settings.name, "here");
        assert_eq!(settings.limits, Limits { jobs: 2, bytes: 9 });
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("provider.toml");
        assert!(make(&path, "name = \"new\"").unwrap());
        assert!(!make(&path, "name = \"newer\"").unwrap());
        assert_eq!(load::<Settings>(None, &path).unwrap().name, "new");
        assert_eq!(warning_of_readers(&path), None);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let warning = warning_of_readers(&path).unwrap();
        assert!(warning.contains("chmod 600"), "{warning}");
        let nowhere = folder.path().join("nowhere/provider.toml");
        assert!(matches!(make(&nowhere, ""), Err(Error::Unwritable { .. })));
    }

    #[test]
    fn only_a_named_file_must_be_there() {
        let nowhere = Path::new("/nonexistent/provider.toml");
        assert_eq!(
            load::<Settings>(None, nowhere).unwrap(),
            Settings::default()
        );
        let said = load::<Settings>(Some(nowhere), nowhere)
            .unwrap_err()
            .to_string();
        assert!(said.contains("/nonexistent/provider.toml"), "{said}");
    }

    #[test]
    fn an_unknown_key_is_named_with_file_and_line() {
        let said = refusal("name = \"é\"\n\n[limits]\njobs = 1\njosb = 2\n");
        assert!(
            said.starts_with("provider.toml:5: limits.josb: unknown field `josb`"),
            "{said}"
        );
    }

    #[test]
    fn a_wrong_type_is_named_with_file_and_line() {
        let said = refusal("[limits]\njobs = \"many\"\n");
        assert!(said.starts_with("provider.toml:2: limits.jobs: "), "{said}");
        let said = refusal("name = 3");
        assert!(said.starts_with("provider.toml:1: name: "), "{said}");
    }

    #[test]
    fn broken_syntax_is_named_with_file_and_line() {
        for text in ["\n[limits", "\nname", "\nname = \"é", "\n= = ="] {
            let said = refusal(text);
            assert!(said.starts_with("provider.toml:2: "), "{said}");
            assert!(!said.contains('\n'), "{said}");
        }
    }

    #[test]
    fn a_huge_file_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_CONFIG_BYTES + 1).unwrap();
        let refused = load::<Settings>(Some(file.path()), file.path());
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
    }

    #[test]
    fn home_follows_the_variables_in_their_order() {
        let home = |set: &[(&str, &str)]| {
            let found = home_from("relay", |name| {
                set.iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            });
            found.map(|path| path.display().to_string()).ok()
        };
        let user = ("HOME", "/home/ada");
        let xdg = ("XDG_DATA_HOME", "/data");
        let own = ("INFERNET_HOME", "/srv");
        assert_eq!(home(&[user, xdg, own]).unwrap(), "/srv/relay");
        assert_eq!(home(&[user, xdg]).unwrap(), "/data/infernet/relay");
        let shared = "/home/ada/.local/share/infernet/relay";
        assert_eq!(home(&[user]).unwrap(), shared);
        assert_eq!(home(&[user, ("XDG_DATA_HOME", "data")]).unwrap(), shared);
        assert_eq!(home(&[user, ("INFERNET_HOME", "")]).unwrap(), shared);
        assert_eq!(home(&[]), None);
    }
}
