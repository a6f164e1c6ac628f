//! A database's tables are made and changed by one process at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Waits until no other process opens this database for the first time: two at once would make its tables twice. The
/// lock is the system's, on a file beside it, and ends with what is answered here, or with the process.
///
/// # Errors
/// The file beside it cannot be made.
pub(crate) async fn lock(database: &Path) -> io::Result<File> {
    let mut beside = database.as_os_str().to_owned();
    beside.push(".lock");
    let beside = PathBuf::from(beside);
    let locking = tokio::task::spawn_blocking(move || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(beside)?;
        file.lock()?;
        Ok(file)
    });
    locking.await?
}
