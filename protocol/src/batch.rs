//! What a buyer and an aggregator tell each other about a batch (kind 24602).
//!
//! A batch is ordered as a whole and done in groups of lines. Each group has its
//! input in a blob, is paid by a hold invoice of its own where it is not free, and
//! is delivered in a blob whose key is made of that payment's preimage: to claim
//! the money is to open the answers. Questions may be asked again at any time; what
//! was begun is answered with how it stands, and begun no second time. So neither
//! side needs more than this: ask until it is done.

use std::fmt;

use nostr::{Event, EventId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::bounds::{
    MAX_ACCEPTED_MODELS, MAX_BLOB_BYTES, MAX_BLOB_SERVERS, MAX_GROUP_LINES, MAX_GROUPS,
    MAX_INVOICE_BYTES, MAX_REASON_BYTES, MAX_RELAY_URL_BYTES, MAX_SAFE_INTEGER, MAX_TEXTS, at_most,
    count, instant, text,
};
use crate::event::{Accepts, Checkers, Checking, Refusal, validate_name};
use crate::hex32::hex32;
use crate::inference::Task;
use crate::money::{Msat, Price};
use crate::payload::{Payload, Work};
use crate::seal::Digest;

hex32!(
    /// The key of a blob. Whoever has it can read the blob.
    BlobKey
);

impl fmt::Debug for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BlobKey(…)")
    }
}

impl BlobKey {
    /// The key of a group's output: sha256("infernet/delivery/1" ‖ preimage of its
    /// hold's payment). Of a free group, 32 random bytes stand for the preimage.
    pub fn of_delivery(preimage: &[u8; 32]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"infernet/delivery/1");
        hash.update(preimage);
        Self::from_bytes(hash.finalize().into())
    }
}

/// An encrypted blob (`nips/sealing.md`), without its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blob {
    /// Hash of the encrypted bytes: its name on a Blossom server (BUD-01).
    pub sha256: Digest,
    /// How many encrypted bytes there are.
    pub bytes: u64,
    /// Servers that have it.
    pub servers: Vec<String>,
}

impl Blob {
    /// The blob that these encrypted bytes are, at these servers.
    pub fn of(bytes: &[u8], servers: Vec<String>) -> Self {
        Self {
            sha256: Digest::of(bytes),
            bytes: bytes.len() as u64,
            servers,
        }
    }

    /// Whether these are its bytes.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() as u64 == self.bytes && Digest::of(bytes) == self.sha256
    }

    /// Refuses one that is too large, or that no server has.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        at_most("blob bytes", self.bytes, MAX_BLOB_BYTES)?;
        count("blob servers", self.servers.len(), MAX_BLOB_SERVERS)?;
        let mut servers = self.servers.iter();
        servers.try_for_each(|server| validate_server(server))?;
        match self.servers.is_empty() {
            true => Err(Refusal::Invalid("no server has the blob")),
            false => Ok(()),
        }
    }
}

pub(crate) fn validate_server(server: &str) -> Result<(), Refusal> {
    text("blob server", server, MAX_RELAY_URL_BYTES)?;
    match server.starts_with("https://") || server.starts_with("http://") {
        true => Ok(()),
        false => Err(Refusal::Invalid("a blob server is no web address")),
    }
}

/// What a buyer says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// A number of the buyer's, which the answer repeats.
    pub number: u64,
    /// The order it is about, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<EventId>,
    /// What is asked.
    #[serde(flatten)]
    pub ask: Ask,
}

/// One thing that a buyer asks.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Ask {
    /// For a quote.
    Quote(Wanted),
    /// Takes a quote. The order (kind 8609) is published too.
    Order {
        /// The signed order.
        event: Box<Event>,
    },
    /// To do a group, or how it stands.
    Group(Group),
    /// Has fetched a delivered group: it may be claimed.
    Fetched {
        /// The group.
        group: u32,
    },
    /// How the whole stands.
    Standing,
    /// To pay back what is left, to this invoice.
    Refund {
        /// A BOLT-11 invoice of the buyer's for it.
        invoice: String,
    },
    /// To begin nothing more, and give back what is held for what is not done.
    Stop,
}

impl fmt::Debug for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quote(wanted) => wanted.fmt(f),
            Self::Order { event } => write!(f, "Order({})", event.id),
            Self::Group(group) => group.fmt(f),
            Self::Fetched { group } => write!(f, "Fetched({group})"),
            Self::Standing => f.write_str("Standing"),
            Self::Refund { .. } => f.write_str("Refund(…)"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

/// What a batch is to be quoted for: its size, without its content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The kind of work.
    pub task: Task,
    /// The models that will do.
    pub accepts: Vec<Accepts>,
    /// The size of it.
    pub size: Size,
    /// The highest price, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<Price>,
    /// Who may see the work to check it.
    pub checkers: Checkers,
    /// How much is to be checked.
    pub checking: Checking,
    /// When it must be done, in Unix seconds.
    pub deadline: nostr::Timestamp,
}

/// How large a batch, or a part of it, is, as its buyer guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub lines: u64,
    /// Tokens of all prompts.
    pub input_tokens: u64,
    /// Tokens that all answers may have.
    pub output_tokens: u64,
    /// The most that one line may have: prompt and answer.
    pub longest: u64,
}

impl Size {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        at_most("lines", self.lines, MAX_SAFE_INTEGER)?;
        at_most("input_tokens", self.input_tokens, MAX_SAFE_INTEGER)?;
        at_most("output_tokens", self.output_tokens, MAX_SAFE_INTEGER)?;
        at_most("longest", self.longest, MAX_SAFE_INTEGER)?;
        match self.lines {
            0 => Err(Refusal::Invalid("there is no line")),
            _ => Ok(()),
        }
    }
}

/// A group of lines to be done.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its number in the batch, from 0. On the wire `group`: a question has a
    /// `number` of its own.
    #[serde(rename = "group")]
    pub number: u32,
    /// Its size; at most [`MAX_GROUP_LINES`] lines.
    pub size: Size,
    /// Its lines: a [`crate::batch::Lines`], encrypted.
    pub input: Blob,
    /// Key of that blob.
    pub key: BlobKey,
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Group({}, {} lines)", self.number, self.size.lines)
    }
}

/// What the hold invoice of a group says that it is for.
pub fn invoice_description(order: &EventId, group: u32) -> String {
    format!("infernet batch, order {order}, group {group}")
}

/// What is in a group's input blob, as JSON: the works of its lines, in their order.
pub type Lines = Vec<Work>;

/// What is in a group's output blob, as JSON: one for each line, in their order.
pub type Done = Vec<LineOutcome>;

/// What came of a line.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum LineOutcome {
    /// A text.
    Text(crate::payload::Generated),
    /// Vectors.
    Vectors {
        /// One for each text.
        vectors: Vec<crate::payload::Vector>,
        /// Tokens of the texts.
        input_tokens: u64,
    },
    /// It could not be done; nothing was charged for it.
    Failed {
        /// Why.
        reason: String,
    },
}

impl fmt::Debug for LineOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::Vectors { .. } => "Vectors(…)",
            Self::Failed { .. } => "Failed(…)",
        })
    }
}

/// What an aggregator says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's number; none of what was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The order it is about, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<EventId>,
    /// What is said.
    #[serde(flatten)]
    pub reply: Reply,
}

/// One thing that an aggregator says.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Reply {
    /// The quote, signed (kind 8608).
    Quoted {
        /// The event.
        event: Box<Event>,
    },
    /// How a group stands.
    Group(GroupStanding),
    /// How the whole stands: after an order was taken, or when asked.
    Standing(Standing),
    /// What was left is being paid back, or has been.
    Refunding,
    /// It will not be done.
    Refused {
        /// Why, in words that say what to do.
        reason: String,
    },
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quoted { event } => write!(f, "Quoted({})", event.id),
            Self::Group(standing) => standing.fmt(f),
            Self::Standing(standing) => standing.fmt(f),
            Self::Refunding => f.write_str("Refunding"),
            Self::Refused { reason } => write!(f, "Refused({reason})"),
        }
    }
}

/// How one group stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupStanding {
    /// The group's number; on the wire `group`, as in a question.
    #[serde(rename = "group")]
    pub number: u32,
    /// How far it is.
    pub phase: Phase,
    /// How much of it is done.
    pub progress: Progress,
}

/// How far a group is.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Phase {
    /// Money is to be held for it first.
    Unpaid {
        /// A BOLT-11 hold invoice.
        invoice: String,
    },
    /// It is being done.
    Working,
    /// It is done, and the answers are closed until the money is claimed.
    Delivered(Delivery),
    /// It is done, and the answers can be opened.
    Settled {
        /// The answers.
        delivery: Delivery,
        /// The preimage of the hold's payment, which the buyer's wallet has too, or
        /// what stands for it: [`BlobKey::of_delivery`].
        preimage: BlobKey,
    },
    /// Nothing came of it: what was held went back.
    Cancelled {
        /// Why.
        reason: String,
    },
}

impl fmt::Debug for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unpaid { .. } => "Unpaid",
            Self::Working => "Working",
            Self::Delivered(_) => "Delivered",
            Self::Settled { .. } => "Settled",
            Self::Cancelled { .. } => "Cancelled",
        })
    }
}

/// What is delivered for a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// The outcomes of its lines: a [`Done`], encrypted under
    /// [`BlobKey::of_delivery`].
    pub output: Blob,
    /// What it is charged.
    pub charge: Charge,
}

/// What a group is charged, on accepted lines only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Charge {
    /// What its providers ask.
    pub work_msat: Msat,
    /// What its checkers ask.
    pub checking_msat: Msat,
    /// The aggregator's fee on the work.
    pub fee_msat: Msat,
}

impl Charge {
    /// All of it; more than all the money there is becomes that.
    pub fn total(&self) -> Msat {
        let work = self.work_msat.checked_add(self.checking_msat);
        let all = work.and_then(|work| work.checked_add(self.fee_msat));
        all.unwrap_or(Msat::MAX)
    }
}

/// How much of something is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Lines in all.
    pub lines: u64,
    /// Lines at a provider now.
    pub running: u64,
    /// Lines that have come back, whatever became of them.
    pub done: u64,
    /// Of these, lines that were checked and accepted, or need no check.
    pub verified: u64,
    /// Lines that could not be done.
    pub failed: u64,
    /// What the lines done cost so far.
    pub cost_msat: Msat,
    /// Seconds it will still take, as the aggregator guesses; none as long as it
    /// cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Standing {
    /// How much is done, of the groups that were given.
    pub progress: Progress,
    /// What the aggregator owes the buyer: claimed, and not charged.
    pub credit_msat: Msat,
    /// Groups that may be given before the first of them is settled.
    pub groups_at_once: u32,
    /// The most that is held for one group.
    pub max_hold_msat: Msat,
    /// Whether nothing more is taken.
    pub closed: bool,
}

impl Payload for Question {
    fn validate(&self) -> Result<(), Refusal> {
        at_most("number", self.number, MAX_SAFE_INTEGER)?;
        match (&self.ask, self.order) {
            (Ask::Quote(wanted), None) => wanted.validate(),
            (Ask::Order { .. }, None) => Ok(()),
            (Ask::Group(group), Some(_)) => group.validate(),
            (Ask::Fetched { group }, Some(_)) => number_of_group(*group),
            (Ask::Refund { invoice }, Some(_)) => text("invoice", invoice, MAX_INVOICE_BYTES),
            (Ask::Standing | Ask::Stop, Some(_)) => Ok(()),
            (Ask::Quote(_) | Ask::Order { .. }, Some(_)) => {
                Err(Refusal::Invalid("it is about no order yet"))
            }
            (_, None) => Err(Refusal::Invalid("it does not say which order it is about")),
        }
    }
}

fn number_of_group(number: u32) -> Result<(), Refusal> {
    at_most("group", number.into(), (MAX_GROUPS - 1).into())
}

impl Payload for Lines {
    fn validate(&self) -> Result<(), Refusal> {
        count("lines", self.len(), MAX_GROUP_LINES as usize)?;
        if self.is_empty() {
            return Err(Refusal::Invalid("there is no line"));
        }
        self.iter().try_for_each(validate_line)
    }
}

/// A line is a single text, or texts to embed.
fn validate_line(line: &Work) -> Result<(), Refusal> {
    match line {
        Work::TextGeneration(generate) if !generate.prefix.is_empty() => {
            Err(Refusal::Invalid("a line has a prefix"))
        }
        Work::TextGeneration(_) | Work::Embedding { .. } => line.validate(),
        Work::Tensors { .. } | Work::Shard { .. } | Work::Verify { .. } => Err(Refusal::Invalid(
            "a line is neither a text nor texts to embed",
        )),
    }
}

impl Payload for Done {
    fn validate(&self) -> Result<(), Refusal> {
        count("lines", self.len(), MAX_GROUP_LINES as usize)?;
        self.iter().try_for_each(|outcome| match outcome {
            LineOutcome::Text(text) => text.validate(),
            LineOutcome::Vectors {
                vectors,
                input_tokens,
            } => {
                count("vectors", vectors.len(), MAX_TEXTS)?;
                at_most("input_tokens", *input_tokens, MAX_SAFE_INTEGER)
            }
            LineOutcome::Failed { reason } => text("reason", reason, MAX_REASON_BYTES),
        })
    }
}

impl Wanted {
    fn validate(&self) -> Result<(), Refusal> {
        count("accepted models", self.accepts.len(), MAX_ACCEPTED_MODELS)?;
        for accepted in &self.accepts {
            if let Accepts::Name(name) = accepted {
                validate_name("model name", name)?;
            }
        }
        self.size.validate()?;
        self.checking.validate()?;
        instant("deadline", self.deadline)?;
        match self.accepts.is_empty() {
            true => Err(Refusal::Invalid("it accepts no model")),
            false => Ok(()),
        }
    }
}

impl Group {
    fn validate(&self) -> Result<(), Refusal> {
        number_of_group(self.number)?;
        self.size.validate()?;
        at_most("lines", self.size.lines, MAX_GROUP_LINES.into())?;
        self.input.validate()
    }
}

impl Payload for Answer {
    fn validate(&self) -> Result<(), Refusal> {
        at_most("number", self.number.unwrap_or(0), MAX_SAFE_INTEGER)?;
        match (&self.reply, self.order) {
            (Reply::Group(standing), Some(_)) => standing.validate(),
            (Reply::Standing(standing), Some(_)) => standing.validate(),
            (Reply::Refunding, Some(_)) => Ok(()),
            (Reply::Quoted { .. }, None) => Ok(()),
            (Reply::Refused { reason }, _) => text("reason", reason, MAX_REASON_BYTES),
            (Reply::Quoted { .. }, Some(_)) => Err(Refusal::Invalid("a quote is not ordered yet")),
            (_, None) => Err(Refusal::Invalid("it does not say which order it is about")),
        }
    }
}

impl GroupStanding {
    fn validate(&self) -> Result<(), Refusal> {
        number_of_group(self.number)?;
        self.progress.validate()?;
        match &self.phase {
            Phase::Unpaid { invoice } => text("invoice", invoice, MAX_INVOICE_BYTES),
            Phase::Working => Ok(()),
            Phase::Delivered(delivery) | Phase::Settled { delivery, .. } => delivery.validate(),
            Phase::Cancelled { reason } => text("reason", reason, MAX_REASON_BYTES),
        }
    }
}

impl Delivery {
    fn validate(&self) -> Result<(), Refusal> {
        self.charge.validate()?;
        self.output.validate()
    }
}

impl Charge {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        at_most("work_msat", self.work_msat.0, Msat::MAX.0)?;
        at_most("checking_msat", self.checking_msat.0, Msat::MAX.0)?;
        at_most("fee_msat", self.fee_msat.0, Msat::MAX.0)
    }
}

impl Progress {
    fn validate(&self) -> Result<(), Refusal> {
        for (what, number) in [
            ("lines", self.lines),
            ("running", self.running),
            ("done", self.done),
            ("verified", self.verified),
            ("failed", self.failed),
            ("seconds_left", self.seconds_left.unwrap_or(0)),
        ] {
            at_most(what, number, MAX_SAFE_INTEGER)?;
        }
        at_most("cost_msat", self.cost_msat.0, Msat::MAX.0)
    }
}

impl Standing {
    fn validate(&self) -> Result<(), Refusal> {
        self.progress.validate()?;
        at_most(
            "groups_at_once",
            self.groups_at_once.into(),
            MAX_GROUPS.into(),
        )?;
        at_most("credit_msat", self.credit_msat.0, Msat::MAX.0)?;
        at_most("max_hold_msat", self.max_hold_msat.0, Msat::MAX.0)
    }
}
