//! How its owner talks to a running process: JSON lines over a Unix socket in its home, which only its owner can open.
//! A question is a line, and so is its answer.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{
    AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines, Take,
};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::error::Elapsed;
use tokio::time::{sleep, timeout};

/// Bytes of all questions of a connection; there are few, and they are short: a filter is the longest.
const MAX_QUESTION_BYTES: u64 = 65_536;

/// Bytes of an answer: a thousand providers, or some thousand attempts.
const MAX_ANSWER_BYTES: u64 = 8 << 20;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a socket's path, as the operating system has it.
const MAX_PATH_BYTES: usize = 107;

/// The pause after a connection that could not be taken.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no talk.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no {role} is running in {} (start one: infernet-{role} start)", home.display())]
    NotRunning {
        /// What should.
        role: &'static str,
        /// Its home.
        home: PathBuf,
    },
    /// The path is longer than a socket's may be.
    #[error("{} is too long a path for a socket: choose a shorter --home", .0.display())]
    TooLong(PathBuf),
    /// The socket cannot be made, read or written.
    #[error("the {role}'s socket {}: {source}", path.display())]
    Io {
        /// Whose it is.
        role: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The process does not answer, or not in time.
    #[error("the {role} does not answer")]
    Silent {
        /// What it is.
        role: &'static str,
    },
    /// The process could not do what it was asked.
    #[error("the {role} says: {error}")]
    Refused {
        /// What it is.
        role: &'static str,
        /// What it says.
        error: String,
    },
}

/// An answer that is none: `{"error": …}`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failed {
    /// Why.
    pub error: String,
}

/// A running process's end. It is removed with this.
#[derive(Debug)]
pub struct Socket {
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
    /// Opens the socket of a `role` such as `provider`. The caller holds the home, so one that is there is an earlier
    /// process's, which died.
    ///
    /// # Errors
    /// A path that is too long, or a folder that cannot be written.
    pub fn open(role: &'static str, path: &Path) -> Result<Self, Error> {
        if path.as_os_str().len() > MAX_PATH_BYTES {
            return Err(Error::TooLong(path.to_owned()));
        }
        let failed = |source| Error::Io {
            role,
            path: path.to_owned(),
            source,
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = Self {
            listener: UnixListener::bind(path).map_err(failed)?,
            path: path.to_owned(),
        };
        // The folder is its owner's alone as well.
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path, mode).map_err(failed)?;
        Ok(socket)
    }

    /// The next who comes.
    pub async fn next(&self) -> Asked {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Asked::new(stream),
                Err(error) => {
                    tracing::warn!(%error, "the socket");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A connection from somebody who asks.
#[derive(Debug)]
pub struct Asked {
    lines: Lines<BufReader<Take<OwnedReadHalf>>>,
    write: OwnedWriteHalf,
}

impl Asked {
    fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        Self {
            lines: BufReader::new(read.take(MAX_QUESTION_BYTES)).lines(),
            write,
        }
    }

    /// The next question that is understood, until there are no more.
    pub async fn question<T: DeserializeOwned>(&mut self) -> Option<T> {
        while let Ok(Some(line)) = self.lines.next_line().await {
            if let Ok(question) = serde_json::from_str(&line) {
                return Some(question);
            }
            let error = "not understood".to_owned();
            self.answer(&Failed { error }).await.ok()?;
        }
        None
    }

    /// Answers it.
    ///
    /// # Errors
    /// Whoever asked has gone.
    pub async fn answer(&mut self, answer: &impl Serialize) -> io::Result<()> {
        self.write.write_all(&line(answer)?).await
    }
}

/// The owner's end.
#[derive(Debug)]
pub struct Visitor {
    role: &'static str,
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Visitor {
    /// Connects to the process of a `role` such as `provider` whose socket this is.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none.
    pub async fn connect(role: &'static str, path: &Path) -> Result<Self, Error> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Self {
                role,
                path: path.to_owned(),
                stream: BufReader::new(stream),
            }),
            Err(source) => Err(match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning {
                    role,
                    home: path.parent().unwrap_or(path).to_owned(),
                },
                _ => Error::Io {
                    role,
                    path: path.to_owned(),
                    source,
                },
            }),
        }
    }

    /// Asks, and reads the answer.
    ///
    /// # Errors
    /// A process that does not answer, or cannot do it.
    pub async fn ask<T: DeserializeOwned>(
        &mut self,
        question: &impl Serialize,
    ) -> Result<T, Error> {
        let asked = timeout(PATIENCE, self.say(question)).await;
        self.in_time(asked)?;
        self.more().await
    }

    /// Reads the next answer to a question that has several.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn more<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let said = timeout(PATIENCE, self.line()).await;
        let said = self.in_time(said)?;
        let silent = Error::Silent { role: self.role };
        match serde_json::from_str(&said) {
            Ok(Failed { error }) => Err(Error::Refused {
                role: self.role,
                error,
            }),
            Err(_) => serde_json::from_str(&said).map_err(|_| silent),
        }
    }

    fn in_time<T>(&self, done: Result<io::Result<T>, Elapsed>) -> Result<T, Error> {
        let role = self.role;
        let done = done.map_err(|_| Error::Silent { role })?;
        done.map_err(|source| Error::Io {
            role,
            path: self.path.clone(),
            source,
        })
    }

    async fn say(&mut self, question: &impl Serialize) -> io::Result<()> {
        self.stream.write_all(&line(question)?).await
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut answer = String::new();
        let mut bounded = (&mut self.stream).take(MAX_ANSWER_BYTES);
        bounded.read_line(&mut answer).await?;
        Ok(answer)
    }

    /// Waits until the process ends the connection: it does so with its own end.
    pub async fn ended(mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
    }
}

fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn questions_are_answered_and_nonsense_is_told_so() {
        const SEVERAL: u64 = 70;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("provider.sock");
        let nobody = Visitor::connect("provider", &path).await.unwrap_err();
        assert!(matches!(nobody, Error::NotRunning { .. }), "{nobody}");
        std::fs::write(&path, "left by a process that died").unwrap();
        let socket = Socket::open("provider", &path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let serve = async {
            let mut asked = socket.next().await;
            while let Some(number) = asked.question::<u64>().await {
                asked.answer(&(number + 1)).await.unwrap();
                if number == SEVERAL {
                    asked.answer(&1).await.unwrap();
                    asked.answer(&2).await.unwrap();
                }
            }
        };
        let ask = async {
            let mut visitor = Visitor::connect("provider", &path).await.unwrap();
            assert_eq!(visitor.ask::<u64>(&41).await.unwrap(), 42);
            let refused = visitor.ask::<Value>(&"what?").await.unwrap_err();
            assert_eq!(refused.to_string(), "the provider says: not understood");
            assert_eq!(visitor.ask::<u64>(&1).await.unwrap(), 2);
            let mut said = vec![visitor.ask::<u64>(&SEVERAL).await.unwrap()];
            for _ in 0..2 {
                said.push(visitor.more().await.unwrap());
            }
            assert_eq!(said, [SEVERAL + 1, 1, 2], "several answers to one question");
        };
        tokio::join!(serve, ask);
        drop(socket);
        assert!(!path.exists());
        let long = folder.path().join("x".repeat(MAX_PATH_BYTES));
        let refused = Socket::open("provider", &long).unwrap_err();
        assert!(matches!(refused, Error::TooLong(_)));
    }
}
