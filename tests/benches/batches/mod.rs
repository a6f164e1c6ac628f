//! The parts of the benchmark of batches, and what they share.

pub mod crowd;
pub mod lines;
pub mod providers;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub use crate::measure::usage::Usage;

/// Writes a file of so many chats, each of which may have so many tokens of answer.
pub fn chats(folder: &Path, lines: usize, max_tokens: usize) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(format!("{lines}.jsonl"));
    let mut file = BufWriter::new(File::create(&path).unwrap());
    for n in 0..lines {
        writeln!(
            file,
            r#"{{"custom_id":"chat-{n}","method":"POST","url":"/v1/chat/completions","body":{{"model":"scripted","messages":[{{"role":"user","content":"question number {n}, which is of a usual length: what are the first things to look at?"}}],"max_tokens":{max_tokens}}}}}"#
        )
        .unwrap();
    }
    file.flush().unwrap();
    path
}

/// The arguments of a free batch that nobody checks.
pub fn batch(input: &Path, output: &Path) -> Vec<String> {
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    ["batch", input, "-o", output, "--yes", "--checking", "none"]
        .map(str::to_owned)
        .into()
}
