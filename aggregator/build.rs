//! Has the migrations compiled in anew when one is added, and bundles what models' work
//! is judged by.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=migrations");
    bundle_thresholds()
}

/// Writes `thresholds.rs`: a list of the texts of all files under `nips/thresholds`.
fn bundle_thresholds() -> io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nips/thresholds");
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut files: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<_>>()?,
        Err(_) => Vec::new(),
    };
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    let texts = files
        .iter()
        .map(|path| format!("include_str!({path:?}),\n"));
    let list = format!("&[\n{}]", texts.collect::<String>());
    let out = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?;
    fs::write(Path::new(&out).join("thresholds.rs"), list)
}
