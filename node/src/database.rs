//! Databases that several processes share: their files are their owner's alone, and locks on files beside them say who
//! does what nobody else may do at the same time. The locks are the system's: they end with their process, however
//! that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What whoever opens a database locks while its tables are made or changed: two at once would make them twice.
pub const TABLES: &str = "lock";

/// Waits until no other process holds this lock of a database. It is held as long as what is answered here.
///
/// # Errors
/// The file beside the database cannot be made.
pub async fn lock(database: &Path, what: &'static str) -> io::Result<File> {
    let database = database.to_owned();
    let locking = tokio::task::spawn_blocking(move || {
        let file = lock_file(&database, what)?;
        file.lock()?;
        Ok(file)
    });
    locking.await?
}

/// The file of a database's lock, for its owner alone; not locked yet.
///
/// # Errors
/// It cannot be made.
pub fn lock_file(database: &Path, what: &str) -> io::Result<File> {
    let mut name = database.as_os_str().to_owned();
    name.push(".");
    name.push(what);
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(PathBuf::from(name))
}

/// Makes a database's file if it is not there, so that nobody but its owner can read it. SQLite gives the files beside
/// it the same mode.
///
/// # Errors
/// It cannot be made.
pub fn make_private(database: &Path) -> io::Result<()> {
    // A file that is there is not opened: closing it would drop the locks that SQLite has on it.
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(database);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn a_lock_ends_with_its_file_and_each_name_is_one_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ledger.sqlite");
        let held = lock(&database, TABLES).await.unwrap();
        assert!(lock_file(&database, TABLES).unwrap().try_lock().is_err());
        lock(&database, "another").await.unwrap();
        drop(held);
        lock(&database, TABLES).await.unwrap();
    }

    #[test]
    fn what_is_made_is_its_owners_alone_and_what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("ledger.sqlite");
        make_private(&database).unwrap();
        let mode = std::fs::metadata(&database).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&database, "books").unwrap();
        make_private(&database).unwrap();
        assert_eq!(std::fs::read(&database).unwrap(), b"books");
        make_private(&folder.path().join("nowhere/ledger.sqlite")).unwrap_err();
    }
}
