//! What a test needs of the machine. Where it is missing the test is skipped,
//! loudly and by name; `scripts/test` counts these lines.

use std::path::{Path, PathBuf};

/// Says that a test did not run, and why.
pub fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
}

/// The path of a fetched model, if it is there.
pub fn model(path: &str) -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/models");
    let path = cache.join(path);
    path.exists().then_some(path)
}
