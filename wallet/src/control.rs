//! How the command line talks to the running wallet: one JSON line each way, over a socket in the wallet's folder
//! that only its owner can open.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use infernet_node::link::Link;
use infernet_node::shutdown::Shutdown;
use nostr::{Keys, RelayUrl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::channels::{self, Opening};
use crate::nip47::{ConnectionString, Method};
use crate::record::{Budget, NewConnection, Period};
use crate::service::Service;
use crate::status;
use crate::wallet::{Wallet, now};

/// The longest line either side reads.
const MAX_LINE: u64 = 1 << 20;

/// The most connections a wallet keeps, revoked ones too: each request looks through them.
const MAX_CONNECTIONS: usize = 1_000;

/// What the command line can ask.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How the wallet stands.
    Status,
    /// Stop.
    Stop,
    /// Make a connection.
    Connect(Connect),
    /// List the connections.
    Connections,
    /// Revoke a connection.
    Revoke {
        /// Its name.
        name: String,
    },
    /// A new address on the chain.
    Address,
    /// Open a channel.
    ChannelOpen(Opening),
    /// Close a channel.
    ChannelClose {
        /// Its id.
        id: String,
        /// Against the other node.
        force: bool,
    },
    /// List the channels.
    ChannelList,
    /// Buy a channel.
    ChannelBuy {
        /// The first payment through it.
        sats: u64,
        /// The highest fee of the seller.
        max_fee_sats: Option<u64>,
    },
    /// Copy the records.
    CopyRecords {
        /// Into this new file.
        to: PathBuf,
    },
}

/// A connection to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connect {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub methods: Vec<String>,
    /// How much it may spend.
    pub budget_sats: Option<u64>,
    /// In how many seconds; none for good.
    pub per_s: Option<u64>,
    /// Whether it sees everything.
    pub whole_history: bool,
}

/// A connection as the user is told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Connected {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub methods: Vec<String>,
    /// How much it may spend, in msat.
    pub budget_msat: Option<u64>,
    /// Within which time.
    pub period: Option<String>,
    /// What is left of that.
    pub left_msat: Option<u64>,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// Why the running wallet cannot be asked, or what it refuses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("the wallet does not run. Start it: infernet-wallet start")]
    NotRunning,
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// The talk broke off.
    #[error("the wallet did not answer: {0}")]
    Broken(String),
}

/// Asks the wallet that runs in that folder.
///
/// # Errors
/// See [`Error`].
pub async fn ask<T: DeserializeOwned>(socket: &Path, command: &Command) -> Result<T, Error> {
    let broken = |error: &dyn std::fmt::Display| Error::Broken(error.to_string());
    let mut stream = UnixStream::connect(socket)
        .await
        .map_err(|_| Error::NotRunning)?;
    let line = format!("{}\n", json!(command));
    stream
        .write_all(line.as_bytes())
        .await
        .map_err(|error| broken(&error))?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream).take(MAX_LINE);
    reader
        .read_line(&mut answer)
        .await
        .map_err(|error| broken(&error))?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| broken(&error))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(refusal) => Err(Error::Refused(refusal.to_owned())),
        None => serde_json::from_value(answer["ok"].clone()).map_err(|error| broken(&error)),
    }
}

/// Answers the command line.
pub struct Control {
    /// The wallet.
    pub wallet: Arc<Wallet>,
    /// Its relays.
    pub link: Link,
    /// What connection strings name.
    pub relays: Vec<RelayUrl>,
    /// What serves connections.
    pub service: Arc<Service>,
    /// Told to stop.
    pub shutdown: Shutdown,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("relays", &self.relays)
            .finish_non_exhaustive()
    }
}

/// Listens on a socket of the wallet's own.
///
/// # Errors
/// A disk that refuses.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    // We hold the wallet's lock: a socket that is there is of a process that died.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Control {
    /// Answers until the wallet stops.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.wallet.stop.cancelled() => return,
            };
            if let Ok((stream, _)) = accepted {
                let control = self.clone();
                tokio::spawn(async move { control.answer(stream).await });
            }
        }
    }

    async fn answer(&self, stream: UnixStream) {
        let (reading, mut writing) = stream.into_split();
        let mut line = String::new();
        let mut reader = BufReader::new(reading).take(MAX_LINE);
        if reader.read_line(&mut line).await.is_err() {
            return;
        }
        let done = match serde_json::from_str(&line) {
            Ok(command) => self.act(command).await,
            Err(error) => Err(format!("unknown command: {error}")),
        };
        let answer = match done {
            Ok(ok) => json!({ "ok": ok }),
            Err(error) => json!({ "error": error }),
        };
        let _ = writing.write_all(format!("{answer}\n").as_bytes()).await;
    }

    async fn act(&self, command: Command) -> Result<Value, String> {
        let wallet = &self.wallet;
        match command {
            Command::Status => Ok(json!(status::status(wallet, &self.link, &self.relays))),
            Command::Stop => {
                self.shutdown.stop_soon();
                Ok(Value::Null)
            }
            Command::Connect(asked) => self.connect(&asked).await,
            Command::Connections => self.list(),
            Command::Revoke { name } => self.revoke(&name),
            Command::Address => wallet
                .node
                .onchain_payment()
                .new_address()
                .map(|to| json!(to.to_string()))
                .map_err(said),
            Command::ChannelOpen(asked) => channels::open(wallet, asked)
                .await
                .map(|id| json!(id))
                .map_err(said),
            Command::ChannelClose { id, force } => channels::close(wallet, &id, force)
                .await
                .map(|()| Value::Null)
                .map_err(said),
            Command::ChannelList => Ok(json!(channels::list(wallet))),
            Command::ChannelBuy { sats, max_fee_sats } => channels::buy(wallet, sats, max_fee_sats)
                .await
                .map(|invoice| json!(invoice))
                .map_err(said),
            Command::CopyRecords { to } => wallet
                .records
                .copy_to(&to)
                .map(|()| Value::Null)
                .map_err(said),
        }
    }

    async fn connect(&self, asked: &Connect) -> Result<Value, String> {
        let name = asked.name.trim();
        if name.is_empty() || name.len() > 64 {
            return Err("a connection's name has 1 to 64 characters".to_owned());
        }
        let methods = asked
            .methods
            .iter()
            .map(|name| name.parse().map_err(|error| format!("{name}: {error}")));
        let methods: BTreeSet<Method> = methods.collect::<Result<_, _>>()?;
        if methods.is_empty() {
            return Err("a connection needs at least one method".to_owned());
        }
        if self.wallet.records.connections().map_err(said)?.len() >= MAX_CONNECTIONS {
            return Err(format!(
                "this wallet has had {MAX_CONNECTIONS} connections, and takes no more"
            ));
        }
        let client = Keys::generate();
        let new = NewConnection {
            name: name.to_owned(),
            client: client.public_key(),
            methods,
            budget: budget(asked),
            whole_history: asked.whole_history,
        };
        let made = self.wallet.records.connect(&new, now()).map_err(said)?;
        let made =
            made.ok_or_else(|| format!("there is a connection {name:?} already: revoke it first"))?;
        self.service.add(&made).await.map_err(said)?;
        let string = ConnectionString {
            service: made.service.public_key(),
            relays: self.relays.clone(),
            client,
        };
        Ok(json!(string.to_string()))
    }

    fn list(&self) -> Result<Value, String> {
        let all = self.wallet.records.connections().map_err(said)?.into_iter();
        let told = all.map(|one| {
            Ok(Connected {
                left_msat: self.wallet.records.budget_left(&one, now()).map_err(said)?,
                name: one.name,
                methods: one
                    .methods
                    .iter()
                    .map(|method| method.name().to_owned())
                    .collect(),
                budget_msat: one.budget.map(|budget| budget.msat),
                period: one.budget.map(|budget| budget.period.to_string()),
                revoked: one.revoked_at.is_some(),
            })
        });
        Ok(json!(told.collect::<Result<Vec<_>, String>>()?))
    }

    fn revoke(&self, name: &str) -> Result<Value, String> {
        match self.wallet.records.revoke(name, now()).map_err(said)? {
            true => Ok(Value::Null),
            false => Err(format!(
                "there is no connection {name:?}; see: infernet-wallet connections"
            )),
        }
    }
}

fn budget(asked: &Connect) -> Option<Budget> {
    let period = [Period::Day, Period::Week, Period::Month]
        .into_iter()
        .find(|period| period.seconds() == asked.per_s)
        .unwrap_or(Period::Total);
    let msat = asked.budget_sats?.saturating_mul(1_000);
    Some(Budget { msat, period })
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}
