//! The seed: twenty-four words (BIP-39) in a file that is made once and that only its owner reads.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ldk_node::bip39::Mnemonic;
use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::bip32::Xpriv;
use ldk_node::bitcoin::secp256k1::SecretKey;
use ldk_node::lightning::sign::KeysManager;

use crate::home::write_private;

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The wallet has not been made.
    #[error("there is no wallet here ({} is missing). Run: infernet-wallet init", .0.display())]
    Missing(PathBuf),
    /// There is a wallet already.
    #[error("there is a wallet here already ({})", .0.display())]
    There(PathBuf),
    /// Others can read the file.
    #[error("{0} can be read by others (mode {mode:03o}). Run: chmod 600 '{0}'", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else. Its words are not repeated.
    #[error("{} does not hold the words of a seed", .0.display())]
    NotASeed(PathBuf),
    /// The disk refuses.
    #[error("cannot use the seed {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// The words. `Debug` shows none of them.
#[derive(Clone)]
pub struct Seed(Mnemonic);

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed")
    }
}

impl Seed {
    /// Makes a new seed in a file that was not there.
    ///
    /// # Errors
    /// [`Error::There`], or a disk that refuses.
    pub fn make(path: &Path) -> Result<Self, Error> {
        let seed = Self(ldk_node::generate_entropy_mnemonic(None));
        match write_private(path, format!("{}\n", seed.0).as_bytes()) {
            Ok(()) => Ok(seed),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::There(path.to_owned()))
            }
            Err(source) => Err(failed(path, source)),
        }
    }

    /// Reads the seed.
    ///
    /// # Errors
    /// No file, one that others can read, or one that holds something else.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing(path.to_owned()));
            }
            Err(source) => return Err(failed(path, source)),
        };
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::Exposed {
                path: path.to_owned(),
                mode,
            });
        }
        let words = fs::read_to_string(path).map_err(|source| failed(path, source))?;
        let words = Mnemonic::from_str(words.trim());
        words
            .map(Self)
            .map_err(|_| Error::NotASeed(path.to_owned()))
    }

    /// The words, for LDK and for who asks to see them.
    pub fn words(&self) -> &Mnemonic {
        &self.0
    }

    /// The key with which LDK signs invoices, derived as LDK derives it.
    pub fn node_secret(&self, network: Network) -> Option<SecretKey> {
        let master = Xpriv::new_master(network, &self.0.to_seed("")).ok()?;
        // The times only seed randomness that is not used here.
        let keys = KeysManager::new(&master.private_key.secret_bytes(), 0, 0, true);
        Some(keys.get_node_secret_key())
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_seed_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed-words");
        assert!(matches!(Seed::read(&path), Err(Error::Missing(_))));
        let made = Seed::make(&path).unwrap();
        assert!(matches!(Seed::make(&path), Err(Error::There(_))));
        let read = Seed::read(&path).unwrap();
        assert_eq!(read.words(), made.words());
        assert_eq!(read.words().word_count(), 24);
        assert_eq!(format!("{read:?}"), "Seed");
    }

    #[test]
    fn what_others_can_read_and_what_is_no_seed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seed-words");
        Seed::make(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            Seed::read(&path),
            Err(Error::Exposed { mode: 0o640, .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "abandon hope").unwrap();
        let error = Seed::read(&path).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hope"));
    }
}
