//! The parts of the benchmark of batches, and what they share.

pub mod crowd;
pub mod lines;
pub mod providers;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

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

/// A process's use of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Seconds of processor time.
    pub cpu_s: f64,
    /// The most memory that it ever had, in MiB.
    pub peak_mib: f64,
}

impl Usage {
    /// What a running process has used.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: f64 = peak.split_whitespace().next()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // The fields utime and stime (proc(5)), in hundredths of a second on Linux.
        let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        Some(Self {
            cpu_s: ticks / 100.0,
            peak_mib: kib / 1_024.0,
        })
    }
}
