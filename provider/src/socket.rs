//! How the owner talks to a running provider: JSON lines over a Unix socket in
//! its home, which only its owner can open.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infernet_node::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::floor::Question;
use crate::status::Status;

/// Bytes of a question; there are few, and they are short.
const MAX_QUESTION_BYTES: u64 = 1_024;

/// Bytes of an answer: some hundred attempts, 300 bytes each.
const MAX_ANSWER_BYTES: u64 = 4 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a socket's path, as the operating system has it.
const MAX_PATH_BYTES: usize = 107;

/// What an owner may say, one JSON object a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase", deny_unknown_fields)]
enum Ask {
    /// How do you stand?
    Status,
    /// Stop: after what runs, or now. The connection ends when it is done.
    Stop {
        /// Fail what runs.
        now: bool,
    },
}

/// Why the owner gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no provider is running in {} (start one: infernet-provider start)", .0.display())]
    NotRunning(PathBuf),
    /// The path is longer than a socket's may be.
    #[error("{} is too long a path for a socket: choose a shorter --home", .0.display())]
    TooLong(PathBuf),
    /// The socket cannot be made, read or written.
    #[error("the provider's socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The provider does not answer, or not in time.
    #[error("the provider does not answer")]
    Silent,
}

/// A socket that is removed with the provider.
#[derive(Debug)]
pub struct Desk {
    path: PathBuf,
    listener: UnixListener,
}

impl Drop for Desk {
    fn drop(&mut self) {
        // What is left behind is replaced at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Desk {
    /// Opens the socket. The caller holds the home, so one that is there is an
    /// earlier process's, which died.
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
        let desk = Self {
            path: path.to_owned(),
            listener,
        };
        // The folder is its owner's alone as well.
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(failed)?;
        Ok(desk)
    }

    /// Answers until the task is dropped.
    pub async fn serve(self, questions: mpsc::Sender<Question>, shutdown: Shutdown) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(stream, questions.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(stream: UnixStream, questions: mpsc::Sender<Question>, shutdown: Shutdown) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read.take(MAX_QUESTION_BYTES)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said = match serde_json::from_str(&line) {
            Ok(Ask::Status) => tell_status(&mut write, &questions).await,
            Ok(Ask::Stop { now }) => return stop(write, &questions, &shutdown, now).await,
            Err(_) => write.write_all(b"{\"error\":\"not understood\"}\n").await,
        };
        if said.is_err() {
            return;
        }
    }
}

async fn tell_status(
    write: &mut OwnedWriteHalf,
    questions: &mpsc::Sender<Question>,
) -> io::Result<()> {
    let (asked, answered) = oneshot::channel();
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    let question = Question::Status(asked);
    questions.send(question).await.map_err(|_| gone())?;
    let status = answered.await.map_err(|_| gone())?;
    let mut line = serde_json::to_vec(&status)?;
    line.push(b'\n');
    write.write_all(&line).await
}

/// Begins the stop, and holds the connection open until it is done.
async fn stop(
    mut write: OwnedWriteHalf,
    questions: &mpsc::Sender<Question>,
    shutdown: &Shutdown,
    now: bool,
) {
    match now {
        true => shutdown.stop_now(),
        false => shutdown.stop_soon(),
    }
    // Whoever asked may have gone.
    let _ = write.write_all(b"{\"stopping\":true}\n").await;
    questions.closed().await;
}

/// A connection to a running provider.
#[derive(Debug)]
pub struct Visitor {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Visitor {
    /// Connects to the provider whose socket this is.
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
    /// A provider that does not answer.
    pub async fn status(&mut self) -> Result<Status, Error> {
        let line = timeout(PATIENCE, self.ask(Ask::Status)).await;
        let line = line.map_err(|_| Error::Silent)??;
        serde_json::from_str(&line).map_err(|_| Error::Silent)
    }

    /// Asks it to stop, and waits until it has.
    ///
    /// # Errors
    /// A provider that does not answer.
    pub async fn stop(mut self, now: bool) -> Result<(), Error> {
        let asked = timeout(PATIENCE, self.ask(Ask::Stop { now })).await;
        asked.map_err(|_| Error::Silent)??;
        let mut rest = Vec::new();
        // However the connection ends, the process behind it is done.
        let _ = self.stream.read_to_end(&mut rest).await;
        Ok(())
    }

    async fn ask(&mut self, ask: Ask) -> Result<String, Error> {
        let failed = |source| Error::Io {
            path: self.path.clone(),
            source,
        };
        let mut question = serde_json::to_vec(&ask).map_err(|e| failed(e.into()))?;
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
