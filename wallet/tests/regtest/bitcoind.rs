//! The chain of these tests: that of the market's.

use std::io::Write;
use std::path::PathBuf;

pub use infernet_regtest::Bitcoind;

/// Where a bitcoind is; nothing, and a loud word, where none is.
pub fn find(test: &str) -> Option<PathBuf> {
    let found = infernet_regtest::find();
    if let Err(why) = &found {
        // Past the test's captured output: a skip must be seen.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    }
    found.ok()
}

/// A port that is free now.
pub fn free_port() -> u16 {
    infernet_regtest::free_port().unwrap()
}
