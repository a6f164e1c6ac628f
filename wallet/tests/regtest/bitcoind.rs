//! A bitcoind of our own on a private regtest. Needs nothing but the standard library, `serde_json`, `base64` and
//! `tempfile`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

const USER: &str = "infernet";
const PASSWORD: &str = "regtest";
const PATIENCE: Duration = Duration::from_secs(60);

/// A bitcoind that runs; it ends with this value.
pub struct Bitcoind {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

/// Where a bitcoind is: as `scripts/fetch bitcoind` finds or fetches one; nothing, and a loud word, where none is.
pub fn find(test: &str) -> Option<PathBuf> {
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/fetch");
    let found = Command::new(fetch).arg("bitcoind").output().ok()?;
    if !found.status.success() {
        let why = String::from_utf8_lossy(&found.stderr);
        // Past the test's captured output: a skip must be seen.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {test}: {}",
            why.trim().replace('\n', " ")
        );
        return None;
    }
    Some(PathBuf::from(String::from_utf8_lossy(&found.stdout).trim()))
}

/// A port that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}

impl Bitcoind {
    /// Starts one, with a wallet and 101 blocks.
    pub fn start(executable: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let process = Command::new(executable)
            .arg(format!("-datadir={}", folder.path().display()))
            .arg(format!("-rpcport={port}"))
            .args([
                "-regtest",
                "-server=1",
                "-listen=0",
                "-dnsseed=0",
                "-fallbackfee=0.0001",
                "-txindex=1",
                "-rest=1",
                "-printtoconsole=0",
                "-rpcworkqueue=256",
                "-rpcthreads=8",
                "-dbcache=16",
            ])
            .args([
                format!("-rpcuser={USER}"),
                format!("-rpcpassword={PASSWORD}"),
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bitcoind starts");
        let node = Self {
            process,
            port,
            _folder: folder,
        };
        node.wait();
        node.call("createwallet", json!(["miner"]))
            .expect("a wallet");
        node.mine(101);
        node
    }

    fn wait(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.call("getblockchaininfo", json!([])).is_err() {
            assert!(Instant::now() < deadline, "bitcoind does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a wallet is told: `http://user:password@host:port`.
    pub fn url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@127.0.0.1:{}", self.port)
    }

    /// The same in parts: host, port, user, password.
    pub fn rpc(&self) -> (String, u16, String, String) {
        (
            "127.0.0.1".to_owned(),
            self.port,
            USER.to_owned(),
            PASSWORD.to_owned(),
        )
    }

    /// Mines blocks.
    pub fn mine(&self, blocks: u32) {
        let to = self.call("getnewaddress", json!([])).expect("an address");
        self.call("generatetoaddress", json!([blocks, to]))
            .expect("blocks");
    }

    /// Pays to an address; not mined yet.
    pub fn pay(&self, address: &str, sats: u64) {
        let bitcoin = format!("{}.{:08}", sats / 100_000_000, sats % 100_000_000);
        self.call("sendtoaddress", json!([address, bitcoin]))
            .expect("paid");
    }

    /// How many transactions wait to be mined.
    pub fn waiting(&self) -> usize {
        let waiting = self.call("getrawmempool", json!([])).expect("the mempool");
        waiting.as_array().map_or(0, Vec::len)
    }

    /// One call of its RPC.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, String> {
        let body = json!({ "id": 1, "method": method, "params": params }).to_string();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut answer = String::new();
        TcpStream::connect(("127.0.0.1", self.port))
            .and_then(|mut stream| {
                stream.write_all(request.as_bytes())?;
                stream.read_to_string(&mut answer)
            })
            .map_err(|error| error.to_string())?;
        let (_, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        let answer: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(error.to_string()),
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
