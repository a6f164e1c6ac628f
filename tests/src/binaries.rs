//! Where the binaries under test are. They are built here, once, so that a test
//! never runs yesterday's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The variable that names a folder with programs that were built before, all of them: nothing is built then.
const PROGRAMS: &str = "INFERNET_PROGRAMS";

static FOLDER: OnceLock<PathBuf> = OnceLock::new();
static WALLET: OnceLock<PathBuf> = OnceLock::new();

/// The path of one of the workspace's binaries.
pub fn binary(name: &str) -> PathBuf {
    FOLDER.get_or_init(build).join(name)
}

/// The path of the wallet's program, which is a package of its own.
pub fn wallet() -> PathBuf {
    WALLET.get_or_init(build_wallet).clone()
}

fn built_before() -> Option<PathBuf> {
    std::env::var_os(PROGRAMS).map(PathBuf::from)
}

fn build() -> PathBuf {
    if let Some(folder) = built_before() {
        return folder;
    }
    cargo_build(&["--workspace", "--bins"]);
    // A test's own binary lies in <target>/<profile>/deps.
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .unwrap_or_default()
}

/// The path of an example of the wallet's package, built here.
pub fn wallet_example(name: &str) -> PathBuf {
    if let Some(folder) = built_before() {
        return folder.join(name);
    }
    cargo_build(&["--manifest-path", "wallet/Cargo.toml", "--example", name]);
    wallet_target().join("examples").join(name)
}

fn build_wallet() -> PathBuf {
    if let Some(folder) = built_before() {
        return folder.join("infernet-wallet");
    }
    cargo_build(&["--manifest-path", "wallet/Cargo.toml"]);
    wallet_target().join("infernet-wallet")
}

fn wallet_target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or("wallet/target".into());
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    workspace().join(target).join(profile)
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn cargo_build(what: &[&str]) {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet"]).args(what);
    // What cargo tells a test of its package would have build scripts run again, and half of everything with them.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            build.env_remove(name.as_ref());
        }
    }
    // Benchmarks are built for release, and so is what they measure.
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let status = build.current_dir(workspace()).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "the binaries do not build"
    );
}
