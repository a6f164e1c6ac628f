//! How the owner talks to a running aggregator: JSON lines over a Unix socket in its
//! home, which only its owner can open.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use infernet_node::shutdown::Shutdown;
use nostr::PublicKey;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use crate::house::House;
use crate::owner;
use crate::status::{Order, Provider, Status};

/// Bytes of a question; there are few, and they are short.
const MAX_QUESTION_BYTES: u64 = 2_048;

/// Bytes of an answer: a thousand providers, a kilobyte each.
const MAX_ANSWER_BYTES: u64 = 8 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a socket's path, as the operating system has it.
const MAX_PATH_BYTES: usize = 107;

/// What an owner may say, one JSON object a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Ask {
    /// How do you stand?
    Status,
    /// The newest orders.
    Jobs,
    /// Who is dealt with.
    Providers,
    /// Buy nothing more of a provider.
    Ban {
        /// Who.
        provider: PublicKey,
        /// Why.
        reason: String,
    },
    /// Buy of a provider again.
    Unban {
        /// Who.
        provider: PublicKey,
    },
    /// Stop. The connection ends when that is done.
    Stop {
        /// Wait for nothing.
        now: bool,
    },
}

/// Why the owner gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no aggregator is running in {} (start one: infernet-aggregator start)", .0.display())]
    NotRunning(PathBuf),
    /// The path is longer than a socket's may be.
    #[error("{} is too long a path for a socket: choose a shorter --home", .0.display())]
    TooLong(PathBuf),
    /// The socket cannot be made, read or written.
    #[error("the aggregator's socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The aggregator does not answer, or not in time.
    #[error("the aggregator does not answer")]
    Silent,
}

/// A socket that is removed with the aggregator.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Opens the socket. The caller holds the home, so one that is there is an earlier
    /// process's, which died.
    ///
    /// # Errors
    /// A path that is too long, or a folder that cannot be written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(Error::TooLong(path.to_owned()));
        }
        let failed = |source| Error::Io {
            path: path.to_owned(),
            source,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Self {
            path: path.to_owned(),
            listener,
        };
        // The folder is its owner's alone as well.
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(failed)?;
        Ok(socket)
    }

    /// Answers until the task is dropped.
    pub async fn serve(&self, house: &Arc<House>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(stream, house.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(stream: UnixStream, house: Arc<House>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(MAX_QUESTION_BYTES)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said = match serde_json::from_str(&line) {
            Ok(Ask::Stop { now }) => {
                stop(&house.shutdown, now);
                // Whoever asked may have gone.
                let _ = write.write_all(b"{\"stopping\":true}\n").await;
                house.ended.cancelled().await;
                return;
            }
            Ok(ask) => owner::answer(&house, ask).await,
            Err(_) => serde_json::json!({ "error": "not understood" }),
        };
        let mut line = said.to_string().into_bytes();
        line.push(b'\n');
        if write.write_all(&line).await.is_err() {
            return;
        }
    }
}

fn stop(shutdown: &Shutdown, now: bool) {
    match now {
        true => shutdown.stop_now(),
        false => shutdown.stop_soon(),
    }
}

/// A connection to a running aggregator.
#[derive(Debug)]
pub struct Visitor {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Visitor {
    /// Connects to the aggregator whose socket this is.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none.
    pub async fn connect(path: &Path) -> Result<Self, Error> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Self {
                stream: BufReader::new(stream),
                path: path.to_owned(),
            }),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Error::NotRunning(path.parent().unwrap_or(path).to_owned())
                }
                _ => Error::Io {
                    path: path.to_owned(),
                    source: error,
                },
            }),
        }
    }

    /// Asks how it stands.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn status(&mut self) -> Result<Status, Error> {
        self.ask(Ask::Status).await
    }

    /// Asks for the newest orders.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn jobs(&mut self) -> Result<Vec<Order>, Error> {
        self.ask(Ask::Jobs).await
    }

    /// Asks who is dealt with.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn providers(&mut self) -> Result<Vec<Provider>, Error> {
        self.ask(Ask::Providers).await
    }

    /// Has it buy nothing more of a provider.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn ban(&mut self, provider: PublicKey, reason: String) -> Result<(), Error> {
        self.ask::<serde_json::Value>(Ask::Ban { provider, reason })
            .await
            .map(drop)
    }

    /// Has it buy of a provider again; false if it was not banned.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn unban(&mut self, provider: PublicKey) -> Result<bool, Error> {
        self.ask(Ask::Unban { provider }).await
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// An aggregator that does not answer.
    pub async fn stop(mut self, now: bool) -> Result<(), Error> {
        self.ask::<serde_json::Value>(Ask::Stop { now }).await?;
        let mut rest = Vec::new();
        // However the connection ends, the process behind it is done.
        let _ = self.stream.read_to_end(&mut rest).await;
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(&mut self, ask: Ask) -> Result<T, Error> {
        let line = timeout(PATIENCE, self.line(&ask)).await;
        let line = line.map_err(|_| Error::Silent)??;
        serde_json::from_str(&line).map_err(|_| Error::Silent)
    }

    async fn line(&mut self, ask: &Ask) -> Result<String, Error> {
        let failed = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let mut question = serde_json::to_vec(ask).map_err(|e| failed(e.into()))?;
        question.push(b'\n');
        self.stream.write_all(&question).await.map_err(failed)?;
        let mut answer = String::new();
        let mut bounded = (&mut self.stream).take(MAX_ANSWER_BYTES);
        bounded.read_line(&mut answer).await.map_err(failed)?;
        match answer.is_empty() {
            true => Err(Error::Silent),
            false => Ok(answer),
        }
    }
}
