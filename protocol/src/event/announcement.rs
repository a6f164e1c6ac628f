//! Kind 38500: what a provider sells. A standing bid.

use std::collections::BTreeSet;

use nostr::{PublicKey, RelayUrl, Tag, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Body, Refusal, V1, expiration, tag};
use crate::bounds::{
    MAX_ACCEPTED_MODELS, MAX_ANNOUNCEMENT_BYTES, MAX_CONTEXT_TOKENS, MAX_DURATION_MS, MAX_MODELS,
    MAX_NAME_BYTES, MAX_RELAY_URL_BYTES, MAX_RELAYS, MAX_SAFE_INTEGER, at_most, count, instant,
    text,
};
use crate::inference::{Dtype, ModelId, Task};
use crate::kinds;
use crate::money::{Msat, PaymentTerms, Price};
use crate::tensor::Interface;

/// What a provider sells, at which price, on what machine, how busy it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Announcement {
    /// The protocol's version.
    pub v: V1,
    /// The announcement's name among its author's, usually `infernet`.
    pub id: String,
    /// What to call the provider.
    pub name: String,
    /// Whether it takes work.
    pub status: Status,
    /// What it serves; empty only when it is offline.
    pub models: Vec<AnnouncedModel>,
    /// What it runs on.
    pub hardware: Hardware,
    /// How much it takes at a time.
    pub capacity: Capacity,
    /// How much it is doing.
    pub load: Load,
    /// How it may be paid.
    pub terms: Vec<PaymentTerms>,
    /// Whether awards may rest on this announcement alone.
    pub direct: bool,
    /// Engine and version.
    pub engine: String,
    /// Where it listens.
    pub relays: Vec<RelayUrl>,
    /// Until when it stands, in Unix seconds; renewed before.
    pub expires_at: Timestamp,
}

/// Whether a provider takes work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It does.
    Online,
    /// Its queue is full.
    Busy,
    /// It said goodbye.
    Offline,
}

/// One model on sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnnouncedModel {
    /// The manifest's hash.
    pub model: ModelId,
    /// What people call it.
    pub name: String,
    /// Other names it answers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What it does.
    pub task: Task,
    /// The number format it is computed in.
    pub dtype: Dtype,
    /// Tokens of its context, input and output together.
    pub context: u32,
    /// What it costs.
    pub price: Price,
    /// How fast it is promised to be.
    pub promise: Promise,
    /// Whether it can go on behind another provider's tokens.
    pub continues: bool,
    /// What it takes and gives, for a module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Interface>,
}

impl AnnouncedModel {
    /// Whether a buyer who says `name` may mean this model. Names are compared
    /// without regard to case.
    pub fn answers_to(&self, name: &str) -> bool {
        std::iter::once(&self.name)
            .chain(&self.aliases)
            .any(|own| own.eq_ignore_ascii_case(name))
            || self.model.to_string() == name
    }
}

/// How fast a provider promises to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    /// Milliseconds from the award to the first token.
    pub first_token_ms: u64,
    /// Tokens a second after that.
    pub tokens_per_s: f32,
}

impl Promise {
    pub(crate) fn validate(&self) -> Result<(), Refusal> {
        at_most("first_token_ms", self.first_token_ms, MAX_DURATION_MS)?;
        match self.tokens_per_s.is_finite() && self.tokens_per_s >= 0.0 {
            true => Ok(()),
            false => Err(Refusal::Invalid("tokens_per_s is not a speed")),
        }
    }
}

/// What a provider runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// The kind of device.
    pub device: DeviceKind,
    /// Its name, as the driver or the system tells it.
    pub name: String,
    /// Its memory in MiB.
    pub memory_mib: u64,
}

/// A kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// How much a provider takes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Attempts that run side by side.
    pub slots: u32,
    /// Attempts that may wait.
    pub queue: u32,
}

/// How much a provider is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Attempts that run.
    pub running: u32,
    /// Attempts that wait.
    pub queued: u32,
}

impl Announcement {
    /// The model that is meant by a manifest's hash or a name, for a task.
    pub fn model(&self, name: &str, task: Task) -> Option<&AnnouncedModel> {
        let mut models = self.models.iter();
        models.find(|model| model.task == task && model.answers_to(name))
    }

    fn validate_models(&self) -> Result<(), Refusal> {
        count("models", self.models.len(), MAX_MODELS)?;
        if self.models.is_empty() && self.status != Status::Offline {
            return Err(Refusal::Invalid("there is no model on sale"));
        }
        self.models.iter().try_for_each(AnnouncedModel::validate)
    }
}

impl AnnouncedModel {
    fn validate(&self) -> Result<(), Refusal> {
        validate_name("model name", &self.name)?;
        count("aliases", self.aliases.len(), MAX_ACCEPTED_MODELS)?;
        for alias in &self.aliases {
            validate_name("alias", alias)?;
        }
        at_most("context", self.context.into(), MAX_CONTEXT_TOKENS.into())?;
        validate_price(&self.price)?;
        self.promise.validate()?;
        match (&self.interface, self.task) {
            (Some(interface), Task::Tensors) => interface.validate(),
            (None, Task::TextGeneration | Task::Embedding | Task::Verify) => Ok(()),
            (None, Task::Tensors) => Err(Refusal::Invalid("a module has no interface")),
            (Some(_), _) => Err(Refusal::Invalid("what is no module has an interface")),
        }
    }
}

/// A name that is there, short, and harmless on a terminal.
pub(crate) fn validate_name(what: &'static str, name: &str) -> Result<(), Refusal> {
    if name.is_empty() {
        return Err(Refusal::Invalid("a name is empty"));
    }
    text(what, name, MAX_NAME_BYTES)
}

pub(crate) fn validate_price(price: &Price) -> Result<(), Refusal> {
    at_most("input_msat", price.input_msat, MAX_SAFE_INTEGER)?;
    at_most("output_msat", price.output_msat, MAX_SAFE_INTEGER)
}

pub(crate) fn validate_terms(terms: &PaymentTerms) -> Result<(), Refusal> {
    match terms {
        PaymentTerms::Free | PaymentTerms::Escrow => Ok(()),
        PaymentTerms::Tab {
            min_payment_msat, ..
        } => at_most("min_payment_msat", min_payment_msat.0, Msat::MAX.0),
    }
}

pub(crate) fn validate_relays(relays: &[RelayUrl]) -> Result<(), Refusal> {
    count("relays", relays.len(), MAX_RELAYS)?;
    relays
        .iter()
        .try_for_each(|relay| text("relay", relay.as_str(), MAX_RELAY_URL_BYTES))
}

/// A model may be there twice: for its own work, and for checks.
fn each_once(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    all.filter(|one| seen.insert(one.clone())).collect()
}

impl Body for Announcement {
    const KIND: u16 = kinds::ANNOUNCEMENT;
    const MAX_CONTENT_BYTES: usize = MAX_ANNOUNCEMENT_BYTES;

    fn tags(&self) -> Vec<Tag> {
        let mut tags = vec![tag(["d", &self.id])];
        let mut tasks: Vec<_> = self.models.iter().map(|m| m.task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tags.extend(tasks.iter().map(|task| tag(["t", task.as_str()])));
        let models = each_once(self.models.iter().map(|m| m.model.to_string()));
        tags.extend(models.iter().map(|model| tag(["m", model])));
        tags.push(expiration(self.expires_at));
        tags
    }

    fn alt(&self) -> String {
        let models = each_once(self.models.iter().map(|m| m.name.clone()));
        match self.status {
            Status::Offline => format!("{} no longer sells inference", self.name),
            _ => format!("{} sells inference: {}", self.name, models.join(", ")),
        }
    }

    fn validate(&self, _author: &PublicKey, created_at: Timestamp) -> Result<(), Refusal> {
        validate_name("id", &self.id)?;
        validate_name("name", &self.name)?;
        self.validate_models()?;
        text("hardware name", &self.hardware.name, MAX_NAME_BYTES)?;
        at_most("memory_mib", self.hardware.memory_mib, MAX_SAFE_INTEGER)?;
        validate_name("engine", &self.engine)?;
        validate_relays(&self.relays)?;
        count("terms", self.terms.len(), MAX_ACCEPTED_MODELS)?;
        if self.terms.is_empty() {
            return Err(Refusal::Invalid("there are no terms of payment"));
        }
        self.terms.iter().try_for_each(validate_terms)?;
        instant("expires_at", self.expires_at)?;
        if self.expires_at <= created_at {
            return Err(Refusal::Invalid("it expires before it is made"));
        }
        Ok(())
    }
}
