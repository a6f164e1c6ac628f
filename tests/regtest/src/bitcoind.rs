//! A bitcoind of our own on a private regtest.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use base64::Engine as _;
use serde_json::{Value, json};

use crate::free_port;
use crate::wait::{PATIENCE, until};

const HOST: &str = "127.0.0.1";
const USER: &str = "infernet";
const PASSWORD: &str = "regtest";

/// Blocks after which the miner has rewards to spend. One would do after 101; but now and
/// then the node's wallet gives a transaction a lock time of up to a hundred blocks ago,
/// and Bitcoin Knots relays none of 21, which it takes for a token's.
const MATURITY: u32 = 130;

/// A bitcoind that runs; it ends with this value.
pub struct Bitcoind {
    process: Child,
    port: u16,
}

/// Where a bitcoind is: as `scripts/fetch bitcoind` finds or fetches one.
///
/// # Errors
/// With the reason, in one line, where none can be had.
pub fn find() -> Result<PathBuf> {
    let fetch = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/fetch");
    let found = Command::new(fetch).arg("bitcoind").output()?;
    let said = |bytes| String::from_utf8_lossy(bytes).trim().replace('\n', " ");
    match found.status.success() {
        true => Ok(PathBuf::from(said(&found.stdout))),
        false => bail!(said(&found.stderr)),
    }
}

impl Bitcoind {
    /// Starts one in a new folder, with a wallet and money that can be spent.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(executable: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let process = Command::new(executable)
            .arg(format!("-datadir={}", folder.display()))
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
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("bitcoind does not start")?;
        let mut node = Self { process, port };
        node.wait()?;
        node.call("createwallet", json!(["miner"]))?;
        node.mine(MATURITY)?;
        Ok(node)
    }

    fn wait(&mut self) -> Result<()> {
        until("bitcoind", || {
            if let Some(status) = self.process.try_wait()? {
                bail!("bitcoind has ended: {status}");
            }
            Ok(self.call("getblockchaininfo", json!([])).is_ok())
        })
    }

    /// What a wallet is told: `http://user:password@host:port`.
    pub fn url(&self) -> String {
        format!("http://{USER}:{PASSWORD}@{HOST}:{}", self.port)
    }

    /// The same in parts: host, port, user, password.
    pub fn rpc(&self) -> (String, u16, String, String) {
        (HOST.into(), self.port, USER.into(), PASSWORD.into())
    }

    /// Mines blocks.
    ///
    /// # Errors
    /// If bitcoind does not.
    pub fn mine(&self, blocks: u32) -> Result<()> {
        let to = self.call("getnewaddress", json!([]))?;
        self.call("generatetoaddress", json!([blocks, to]))?;
        Ok(())
    }

    /// Pays to an address; not mined yet.
    ///
    /// # Errors
    /// If bitcoind does not.
    pub fn pay(&self, address: &str, sats: u64) -> Result<()> {
        let bitcoin = format!("{}.{:08}", sats / 100_000_000, sats % 100_000_000);
        self.call("sendtoaddress", json!([address, bitcoin]))?;
        Ok(())
    }

    /// How many transactions wait to be mined.
    ///
    /// # Errors
    /// If bitcoind does not say.
    pub fn waiting(&self) -> Result<usize> {
        let waiting = self.call("getrawmempool", json!([]))?;
        Ok(waiting.as_array().map_or(0, Vec::len))
    }

    /// One call of its RPC.
    ///
    /// # Errors
    /// If it cannot be reached, or refuses.
    pub fn call(&self, method: &str, params: Value) -> Result<Value> {
        let body = json!({ "id": 1, "method": method, "params": params }).to_string();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let request = format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect((HOST, self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        let answer: Value = serde_json::from_str(body)?;
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(anyhow!("bitcoind {method}: {error}")),
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
