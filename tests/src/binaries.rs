//! Where the binaries under test are. They are built here, once, so that a test
//! never runs yesterday's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// The path of one of the workspace's binaries.
pub fn binary(name: &str) -> PathBuf {
    FOLDER.get_or_init(build).join(name)
}

fn build() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--workspace", "--bins"])
        .current_dir(&workspace)
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the binaries do not build"
    );
    // A test binary lies in <target>/debug/deps.
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
