//! This relay's admission for a strfry: it asks a program by lines of JSON whether an event may be written, one at a
//! time, and waits for each answer.
//!
//! Signatures and ids were checked by strfry, and what is stored there is not known here: a deletion (NIP-09) that
//! names events by their ids could name evidence, so none is let through; by address one may delete.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nostr::{Event, EventId, Kind, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::admission::{Admission, Origin, Refusal, Source};
use crate::lists::{self, Lists, LogError};
use crate::options::Options;

/// Bytes of a question. Far above any event that is taken: each question must be answered, or strfry waits.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// What strfry asks.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(default)]
    source_type: Option<String>,
    #[serde(default)]
    source_info: Option<String>,
    #[serde(default)]
    authed: Option<String>,
}

/// The part of a question that an answer cannot do without.
#[derive(Debug, Deserialize)]
struct Named {
    event: Id,
}

#[derive(Debug, Deserialize)]
struct Id {
    id: EventId,
}

/// What it is told.
#[derive(Debug, Serialize)]
struct Answer {
    id: EventId,
    action: &'static str,
    msg: String,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("not understood: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("not understood: no question of type {0:?} is known")]
    UnknownType(String),
    #[error("not understood: it has no event")]
    NoEvent,
    #[error("not understood: it is no UTF-8 text, or has more than {MAX_LINE_BYTES} bytes")]
    NoText,
}

/// Answers each line of `questions` with one in `answers`, until there are no more. `before_each` is called before each
/// question is judged. What cannot be answered is told to `complaints`.
///
/// # Errors
/// When nothing can be read or written any more.
fn answer_all(
    admission: &Admission,
    mut before_each: impl FnMut(),
    mut questions: impl BufRead,
    mut answers: impl Write,
    mut complaints: impl Write,
) -> io::Result<()> {
    let mut line = Vec::new();
    while next_line(&mut questions, &mut line)? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        before_each();
        let answer = match judge(admission, &line) {
            Ok(answer) => Some(answer),
            Err(fault) => {
                writeln!(complaints, "infernet-relay policy: {fault}")?;
                unanswerable(&line, &fault)
            }
        };
        if let Some(answer) = answer {
            let mut answer = serde_json::to_vec(&answer)?;
            answer.push(b'\n');
            answers.write_all(&answer)?;
            answers.flush()?;
        }
    }
    Ok(())
}

/// Reads a line, of which no more than fits is kept. False at the end.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut bounded = from.by_ref().take(MAX_LINE_BYTES);
    let read = bounded.read_until(b'\n', line)?;
    if read as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
        line.clear();
        line.push(b'?');
        from.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

fn judge(admission: &Admission, line: &[u8]) -> Result<Answer, Fault> {
    let line = std::str::from_utf8(line).map_err(|_| Fault::NoText)?;
    let question: Question<'_> = serde_json::from_str(line)?;
    if question.kind != "new" {
        return Err(Fault::UnknownType(question.kind));
    }
    let event = question.event.ok_or(Fault::NoEvent)?;
    let event: Event = serde_json::from_str(event.get())?;
    let authed = question.authed.as_deref().map(PublicKey::from_hex);
    let authed = authed.and_then(Result::ok);
    let origin = Origin {
        address: question.source_info.and_then(|info| address(&info)),
        authenticated: authed.as_slice(),
        source: source(question.source_type.as_deref()),
    };
    let judged = check(admission, &event, &origin);
    Ok(Answer {
        id: event.id,
        action: if judged.is_ok() { "accept" } else { "reject" },
        msg: judged.err().unwrap_or_default(),
    })
}

fn check(admission: &Admission, event: &Event, origin: &Origin<'_>) -> Result<(), String> {
    let said = |refusal: Refusal| refusal.to_string();
    admission.arrived(origin).map_err(said)?;
    admission.glance(event, origin).map_err(said)?;
    if event.kind == Kind::EventDeletion && event.tags.event_ids().next().is_some() {
        let said = "blocked: this relay keeps evidence, and deletes by address (a) only";
        return Err(said.to_owned());
    }
    admission.examine(event, origin).map_err(said)?;
    admission.admitted(event);
    Ok(())
}

/// By which way an event came to strfry. What is not from a client is what its operator brings in.
fn source(said: Option<&str>) -> Source {
    match said {
        Some("Import" | "Stored") => Source::Import,
        Some("Stream" | "Sync") => Source::Sync,
        _ => Source::Client,
    }
}

fn address(info: &str) -> Option<IpAddr> {
    info.parse().ok()
}

/// The rejection of an event that could not be judged, if as much as its id can be read: strfry waits for it.
fn unanswerable(line: &[u8], fault: &Fault) -> Option<Answer> {
    let named: Named = serde_json::from_slice(line).ok()?;
    Some(Answer {
        id: named.event.id,
        action: "reject",
        msg: format!("error: the question was {fault}"),
    })
}

/// Judges what comes in on standard input, by these options and the lists in their folder, until there is no more. What
/// the operator follows and trusts is learned before from the events in the file `learn`, one a line.
///
/// # Errors
/// Lists or events that cannot be read, or nobody who reads the answers.
pub fn run(options: &Options, learn: Option<&Path>) -> Result<(), Error> {
    let lists = Arc::new(Lists::configured(options.lists.clone()));
    let mut watched = Watched::new(&options.data, lists.clone());
    watched.look()?;
    let admission = Admission::new(options, lists);
    if let Some(path) = learn {
        learn_from(&admission, path).map_err(|source| Error::Learn {
            path: path.to_owned(),
            source,
        })?;
    }
    let look = || {
        if let Err(error) = watched.look() {
            tracing::warn!(%error, "the lists stay as they were");
        }
    };
    let (questions, answers) = (io::stdin().lock(), io::stdout().lock());
    Ok(answer_all(
        &admission,
        look,
        questions,
        answers,
        io::stderr(),
    )?)
}

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lists cannot be read.
    #[error(transparent)]
    Lists(#[from] LogError),
    /// There is nothing to learn from.
    #[error("cannot learn from {}: {source}", path.display())]
    Learn {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// Nobody asks or hears any more.
    #[error("strfry cannot be talked to: {0}")]
    Io(#[from] io::Error),
}

/// Learns whom the events in a file ban and trust. `strfry scan` prints the newest first; of two
/// lists by one author the newer counts.
fn learn_from(admission: &Admission, path: &Path) -> io::Result<()> {
    let mut in_order = Vec::new();
    for (line, number) in BufReader::new(File::open(path)?).lines().zip(1..) {
        let event: Event = serde_json::from_str(&line?)?;
        if event.verify().is_err() {
            let said = format!("line {number}: id or signature is wrong");
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        match event.kind {
            Kind::MuteList | Kind::EventDeletion => in_order.push(event),
            _ => admission.admitted(&event),
        }
    }
    in_order.sort_by_key(|event| event.created_at);
    for event in &in_order {
        admission.admitted(event);
    }
    Ok(())
}

/// Lists that somebody else keeps, in a file.
struct Watched<'a> {
    folder: &'a Path,
    lists: Arc<Lists>,
    seen: Option<Version>,
}

/// What tells one version of a file from the next.
#[derive(PartialEq, Eq)]
struct Version(u64, u64, Option<SystemTime>);

impl<'a> Watched<'a> {
    fn new(folder: &'a Path, lists: Arc<Lists>) -> Self {
        let seen = None;
        Self {
            folder,
            lists,
            seen,
        }
    }

    /// Reads the lists again if they have changed.
    fn look(&mut self) -> Result<(), LogError> {
        let version = fs::metadata(lists::file(self.folder)).ok();
        let version = version.map(|file| Version(file.ino(), file.len(), file.modified().ok()));
        if version != self.seen {
            self.seen = version;
            self.lists.read(self.folder)?;
        }
        Ok(())
    }
}
