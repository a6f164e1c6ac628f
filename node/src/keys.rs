//! Who a process is: its Nostr key pair, from the environment or from a file that is made at first use.
//!
//! The file holds one `nsec1…` (or 64 hex digits) and is readable by its owner alone. It appears under its name
//! whole or not at all, and never replaces another: two processes that start at once end with the same key.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nostr::{Keys, ToBech32};

/// The variable that holds the secret key (nsec or hex) where no file should, as in containers.
pub const SECRET_KEY_VARIABLE: &str = "INFERNET_SECRET_KEY";

/// A key file holds 63 or 64 characters; more than this is the wrong file.
const MAX_KEY_FILE_BYTES: u64 = 1_024;

/// A key pair and where it comes from. `Debug` shows the public key only.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The key pair.
    pub keys: Keys,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a key pair comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// [`SECRET_KEY_VARIABLE`] holds it.
    Environment,
    /// It was in this file.
    File(PathBuf),
    /// It was made just now and lies in this file: tell the user.
    Made(PathBuf),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others can read the file.
    #[error(
        "the secret key {0} can be read by others (mode {mode:03o}). Run: chmod 600 '{0}'",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What the file or the variable holds is no secret key.
    #[error("{place} holds no secret key: it wants one nsec1… or 64 hex digits")]
    NotAKey {
        /// The file or the variable.
        place: String,
    },
    /// The file cannot be read or made.
    #[error("cannot {action} the secret key {}: {source}", path.display())]
    Io {
        /// What was tried: read or make.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The key pair in [`SECRET_KEY_VARIABLE`], else the one in the file at `path`, which is made if it is not there.
///
/// # Errors
/// A file that others can read, something that is no key, a disk that refuses.
pub fn load_or_make(path: &Path) -> Result<Identity, Error> {
    load_or_make_with(std::env::var(SECRET_KEY_VARIABLE).ok(), path)
}

fn load_or_make_with(variable: Option<String>, path: &Path) -> Result<Identity, Error> {
    if let Some(secret) = variable.filter(|secret| !secret.trim().is_empty()) {
        return Ok(Identity {
            keys: parse(&secret, || format!("${SECRET_KEY_VARIABLE}"))?,
            origin: Origin::Environment,
        });
    }
    if let Some(keys) = load(path)? {
        return Ok(Identity {
            keys,
            origin: Origin::File(path.to_owned()),
        });
    }
    make(path)
}

/// The key pair in the file at `path`, or nothing if there is no such file.
///
/// # Errors
/// As [`load_or_make`].
pub fn load(path: &Path) -> Result<Option<Keys>, Error> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed("read", path)(source)),
    };
    let text = read(&mut file, path)?;
    parse(&text, || path.display().to_string()).map(Some)
}

/// What `file` holds; asked of the open file, so that nobody can swap it between the check and the reading.
fn read(file: &mut File, path: &Path) -> Result<String, Error> {
    let metadata = file.metadata().map_err(failed("read", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut text = String::new();
    file.take(MAX_KEY_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(failed("read", path))?;
    Ok(text)
}

fn parse(secret: &str, place: impl Fn() -> String) -> Result<Keys, Error> {
    // The parser's own error could quote the secret, so it is dropped.
    Keys::parse(secret.trim()).map_err(|_| Error::NotAKey { place: place() })
}

fn make(path: &Path) -> Result<Identity, Error> {
    let keys = Keys::generate();
    let written = write_new(&keys, path).map_err(failed("make", path))?;
    match written {
        Written::Ours => Ok(Identity {
            keys,
            origin: Origin::Made(path.to_owned()),
        }),
        Written::SomebodyElses => Ok(Identity {
            keys: load(path)?
                .ok_or(io::ErrorKind::NotFound.into())
                .map_err(failed("read", path))?,
            origin: Origin::File(path.to_owned()),
        }),
    }
}

enum Written {
    Ours,
    SomebodyElses,
}

/// Writes the key beside `path` and links it there: unlike a rename, a link never replaces what another process
/// has put there in the meantime.
fn write_new(keys: &Keys, path: &Path) -> io::Result<Written> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let draft = folder.join(format!(".secret-key-{:016x}", rand::random::<u64>()));
    let linked = write_draft(keys, &draft).and_then(|()| fs::hard_link(&draft, path));
    let cleared = fs::remove_file(&draft);
    match linked.and(cleared) {
        Ok(()) => File::open(folder)?.sync_all().map(|()| Written::Ours),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Written::SomebodyElses),
        Err(error) => Err(error),
    }
}

fn write_draft(keys: &Keys, draft: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    let Ok(nsec) = keys.secret_key().to_bech32();
    file.write_all(format!("{nsec}\n").as_bytes())?;
    file.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Barrier;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_use_makes_a_private_file_that_the_next_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("infernet/provider/secret-key");
        let made = load_or_make_with(None, &path).unwrap();
        assert_eq!(made.origin, Origin::Made(path.clone()));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

        let again = load_or_make_with(None, &path).unwrap();
        assert_eq!(again.origin, Origin::File(path));
        assert_eq!(again.keys, made.keys);
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        let start = Barrier::new(8);
        let keys: Vec<Keys> = std::thread::scope(|scope| {
            let start_one = || {
                start.wait();
                load_or_make_with(None, &path).unwrap().keys
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start_one)).collect();
            threads.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|one| *one == keys[0]));
    }

    #[test]
    fn the_variable_comes_first_and_an_empty_one_counts_as_unset() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        let hex = "0000000000000000000000000000000000000000000000000000000000000003";
        let set = load_or_make_with(Some(format!("{hex}\n")), &path).unwrap();
        assert_eq!(set.origin, Origin::Environment);
        assert_eq!(set.keys.secret_key().to_secret_hex(), hex);
        assert!(!path.exists());
        let unset = load_or_make_with(Some(" ".into()), &path).unwrap();
        assert_eq!(unset.origin, Origin::Made(path));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        load_or_make_with(None, &path).unwrap();
        for exposed in [0o640, 0o604, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
            let said = load(&path).unwrap_err().to_string();
            assert!(
                said.ends_with(&format!("Run: chmod 600 '{}'", path.display())),
                "{said}"
            );
        }
    }

    #[test]
    fn something_else_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        let words = [
            "",
            "nsec1qqqqqsecret",
            "npub1abc",
            "\u{0}\u{1}",
            &"f".repeat(65),
        ];
        for text in words {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let error = load_or_make_with(None, &path).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(matches!(error, Error::NotAKey { .. }), "{said}");
            assert!(text.is_empty() || !said.contains(text), "{said}");
        }
        let wrong = load_or_make_with(Some("nsec1hidden".into()), &path).unwrap_err();
        assert!(!format!("{wrong} {wrong:?}").contains("hidden"));
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let identity = load_or_make_with(None, &folder.path().join("secret-key")).unwrap();
        let shown = format!("{identity:?}");
        assert!(shown.contains(&identity.keys.public_key().to_hex()));
        assert!(!shown.contains(&identity.keys.secret_key().to_secret_hex()));
    }
}
