//! The relays, each a process of its own over a folder.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use infernet_tests::load::{Connection, Cpu, Population};
use infernet_tests::{Process, binary};
use nostr::Timestamp;

/// How many write.
pub const AUTHORS: u64 = 2_000;

const READY: Duration = Duration::from_secs(60);

/// A relay that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Ours with no limits, and every kind taken, as the others.
    Ours,
    /// Ours as it comes, but for the kinds and the number of connections, to authors of its allow list.
    OursDefault,
    /// nostr-rs-relay, by scripts/peers/nostr_rs_relay.
    NostrRs,
    /// nostr-relay-builder on nostr-lmdb (examples/relay_builder.rs).
    Builder,
}

impl Peer {
    pub const ALL: [Self; 4] = [Self::Ours, Self::OursDefault, Self::NostrRs, Self::Builder];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursDefault => "ours-default",
            Self::NostrRs => "nostr-rs-relay",
            Self::Builder => "relay-builder",
        }
    }

    /// Starts it over a folder.
    pub async fn start(self, folder: &Path) -> Running {
        std::fs::create_dir_all(folder).unwrap();
        let (process, url) = match self {
            Self::Ours => ours(folder, UNLIMITED),
            Self::OursDefault => ours(folder, &known()),
            Self::NostrRs => nostr_rs(folder).await,
            Self::Builder => listening(Command::new(builder()).arg(folder.join("data"))),
        };
        Running { process, url }
    }
}

/// A relay that runs, and ends with this value.
pub struct Running {
    pub process: Process,
    pub url: String,
}

impl Running {
    pub fn cpu(&self) -> Cpu {
        Cpu::of(self.process.id())
    }

    /// The bytes that it holds in memory.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) << 10
    }
}

/// What has our relay hold back nothing.
const UNLIMITED: &str = "\
[work]
max_bits = 0
[limits]
connections = 15000
messages_per_second = 1000000
burst = 1000000
bytes_per_second = 1073741824
[limits.key]
events = { per_second = 0, burst = 0 }
bytes = { per_second = 0, burst = 0 }
[limits.all]
events = { per_second = 0, burst = 0 }
bytes = { per_second = 0, burst = 0 }
";

/// Our relay as it comes, which knows the authors: unknown keys would be asked to work.
fn known() -> String {
    let people = Population::new(AUTHORS, 1, Timestamp::now(), 1);
    let authors: Vec<String> = (0..AUTHORS).map(|n| people.author(n).to_hex()).collect();
    format!("[limits]\nconnections = 15000\n[lists]\nallow = {authors:?}\n")
}

fn ours(folder: &Path, settings: &str) -> (Process, String) {
    let config = folder.join("relay.toml");
    std::fs::write(
        &config,
        format!("blobs = false\ngeneral = true\n{settings}"),
    )
    .unwrap();
    let mut command = Command::new(binary("infernet-relay"));
    command
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(config);
    listening(command.arg("--data").arg(folder.join("data")))
}

/// Starts what says where it listens.
fn listening(command: &mut Command) -> (Process, String) {
    let process = Process::start("relay", command).unwrap();
    let url = process.wait_stdout(READY, |said| {
        let (_, rest) = said.split_once("listening on ")?;
        Some(rest.split_once('\n')?.0.trim().to_owned())
    });
    (process, url.unwrap())
}

fn builder() -> PathBuf {
    let programs = binary("examples/relay_builder");
    assert!(
        programs.exists(),
        "build it first: cargo build --release -p infernet-tests --example relay_builder"
    );
    programs
}

/// nostr-rs-relay as it comes: SQLite in WAL mode with `synchronous = NORMAL`, which syncs at checkpoints only.
async fn nostr_rs(folder: &Path) -> (Process, String) {
    let installer = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../scripts/peers/nostr_rs_relay"
    );
    let program = Command::new(installer).output().unwrap().stdout;
    let program = String::from_utf8(program).unwrap();
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let config = folder.join("config.toml");
    let settings = format!(
        "[network]\naddress = \"127.0.0.1\"\nport = {}\n",
        free.port()
    );
    std::fs::write(&config, settings).unwrap();
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let mut command = Command::new(program.trim());
    command
        .env("RUST_LOG", "off")
        .arg("--config")
        .arg(config)
        .arg("--db")
        .arg(data);
    let process = Process::start("nostr-rs-relay", &mut command).unwrap();
    let url = format!("ws://{free}");
    let by = Instant::now() + READY;
    while Connection::open(&url).await.is_err() {
        assert!(Instant::now() < by, "nostr-rs-relay does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (process, url)
}
