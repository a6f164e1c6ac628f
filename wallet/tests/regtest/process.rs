//! A wallet's process, and two of them with a channel between them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use infernet_wallet::fault;
use infernet_wallet::nip47::ConnectionString;
use serde_json::Value;

use crate::bitcoind::{self, Bitcoind, free_port};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_infernet-wallet");
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A wallet in a folder of its own. It dies with this value.
pub struct Process {
    pub home: tempfile::TempDir,
    child: Option<Child>,
    name: &'static str,
}

impl Process {
    /// Makes a wallet; it does not run yet.
    pub fn init(name: &'static str, bitcoind: &Bitcoind, more: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let process = Self {
            home,
            child: None,
            name,
        };
        let listen = format!("127.0.0.1:{}", free_port());
        let url = bitcoind.url();
        let args = [
            "init",
            "--network",
            "regtest",
            "--bitcoind",
            &url,
            "--listen",
            &listen,
            "--alias",
            name,
        ];
        process.cli(&[&args, more].concat());
        process
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(EXECUTABLE);
        command.arg("--home").arg(self.home.path()).args(args);
        command.env_remove(fault::VARIABLE);
        command
    }

    /// Starts it, and waits until it serves.
    pub fn start(&mut self) {
        self.begin(None);
    }

    /// Starts it, to die at a point.
    pub fn start_to_die_at(&mut self, point: fault::Point) {
        self.begin(Some(point));
    }

    fn begin(&mut self, dies_at: Option<fault::Point>) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"));
        let mut command = self.command(&["start"]);
        if let Some(point) = dies_at {
            command.env(fault::VARIABLE, point.name());
        }
        command.stdout(Stdio::piped()).stderr(log.expect("a log"));
        let mut child = command.spawn().expect("the wallet starts");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        self.child = Some(child);
        let (said, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        let line = ready.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("{} does not start:\n{}", self.name, self.log()));
        assert!(line.starts_with("ready ws://127.0.0.1:"), "{line}");
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Runs its command line.
    pub fn cli(&self, args: &[&str]) -> String {
        self.try_cli(args)
            .unwrap_or_else(|said| panic!("{} {args:?}: {said}\n{}", self.name, self.log()))
    }

    /// Runs its command line; what it says when it fails.
    pub fn try_cli(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().expect("the command line runs");
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// How it stands.
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.cli(&["status", "--json"])).expect("JSON")
    }

    /// `node@host:port`.
    pub fn address(&self) -> String {
        let status = self.status();
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        format!("{}@{}", text(&status["node"]), text(&status["listen"][0]))
    }

    /// Makes a connection.
    pub fn connect(&self, args: &[&str]) -> ConnectionString {
        self.cli(&[&["connect"], args].concat())
            .parse()
            .expect("a connection string")
    }

    /// Kills it, as by SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until it has died by itself.
    pub fn wait_dead(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        let child = self.child.as_mut().expect("it runs");
        while child.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < deadline, "{} does not die", self.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = None;
    }

    /// Stops it properly.
    pub fn stop(&mut self) {
        self.cli(&["stop"]);
        self.wait_dead();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("---- {} ----", self.name);
            for line in last.into_iter().rev() {
                eprintln!("{line}");
            }
        }
    }
}

/// Waits until `look` is true.
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !look() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Two wallets with a channel between them: Alice has opened it and given Bob the smaller part.
pub struct Pair {
    pub alice: Process,
    pub bob: Process,
    pub bitcoind: Bitcoind,
}

/// The channel's size, and Bob's part of it.
pub const CHANNEL_SATS: u64 = 2_000_000;
pub const BOB_SATS: u64 = 800_000;

impl Pair {
    /// Sets them up; nothing where no bitcoind can be had.
    pub fn start(test: &str) -> Option<Self> {
        let bitcoind = Bitcoind::start(&bitcoind::find(test)?);
        let mut alice = Process::init("alice", &bitcoind, &[]);
        let mut bob = Process::init("bob", &bitcoind, &[]);
        std::thread::scope(|scope| {
            scope.spawn(|| alice.start());
            scope.spawn(|| bob.start());
        });
        let pair = Self {
            alice,
            bob,
            bitcoind,
        };
        pair.fund();
        Some(pair)
    }

    fn fund(&self) {
        for wallet in [&self.alice, &self.bob] {
            self.bitcoind.pay(&wallet.cli(&["address"]), 10_000_000);
        }
        self.bitcoind.mine(1);
        for wallet in [&self.alice, &self.bob] {
            until("money on the chain", || {
                wallet.status()["spendable_sats"].as_u64() > Some(0)
            });
        }
        let (sats, push) = (CHANNEL_SATS.to_string(), BOB_SATS.to_string());
        let peer = self.bob.address();
        self.alice.cli(&[
            "channel",
            "open",
            &peer,
            "--sats",
            &sats,
            "--push-sats",
            &push,
        ]);
        until("a funding transaction", || self.bitcoind.waiting() > 0);
        self.bitcoind.mine(6);
        self.wait_usable();
    }

    /// Waits until both can use the channel.
    pub fn wait_usable(&self) {
        for wallet in [&self.alice, &self.bob] {
            until("a usable channel", || {
                wallet.status()["can_send_msat"].as_u64() > Some(0)
            });
        }
    }
}
