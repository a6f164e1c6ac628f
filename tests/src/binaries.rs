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
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--workspace", "--bins"]);
    // Benchmarks are built for release, and so is what they measure.
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.current_dir(&workspace).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the binaries do not build"
    );
    // A test's own binary lies in <target>/<profile>/deps.
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}
