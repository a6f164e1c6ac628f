//! A model's identity: the hash of a manifest of everything that decides what
//! it answers (`nips/models.md`).

use std::fmt;

use infernet_protocol::inference::{ModelId, Task, TokenId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What precedes the manifest's text in the hash, so that no other hash of the
/// market can be taken for a model's identity.
const DOMAIN: &[u8] = b"infernet/model/1\n";

/// A sha256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The same 64 digits as a model's identity.
        ModelId::deserialize(deserializer).map(|id| Self(*id.as_bytes()))
    }
}

/// What a file is for. In a manifest, files stand in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileRole {
    /// `config.json`: the shapes.
    Config,
    /// A GGUF: shapes, weights, tokenizer and template in one.
    Gguf,
    /// `module.json`: what a module takes and gives.
    Interface,
    /// `modules.json`: what follows the last layer of a sentence model.
    Modules,
    /// `1_Pooling/config.json`: how token vectors become one.
    Pooling,
    /// A TorchScript file.
    Script,
    /// `tokenizer.json`.
    Tokenizer,
    /// `tokenizer_config.json`: the texts that a chat template may name.
    TokenizerConfig,
    /// A safetensors file.
    Weights,
}

/// A file of a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// What it is for.
    pub role: FileRole,
    /// The hash of its bytes.
    pub sha256: Digest,
}

/// Everything that decides what a model answers. Its name and where it lies do
/// not. The fields stand in the order in which they are hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The family whose code runs it.
    pub architecture: String,
    /// The hash of the chat template's text; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<Digest>,
    /// What it can hold, in tokens.
    pub context: u32,
    /// The tokens that end an answer, from the lowest on.
    pub end_tokens: Vec<TokenId>,
    /// Its files, in the order of their roles, and of their hashes within one.
    pub files: Vec<File>,
    /// What it does.
    pub task: Task,
}

impl Manifest {
    /// The identity: the hash of the domain and of the manifest as JSON, with
    /// the keys in alphabetical order and no spaces.
    pub fn id(&self) -> ModelId {
        let mut hash = Sha256::new();
        hash.update(DOMAIN);
        hash.update(self.canonical_json());
        ModelId::from_bytes(hash.finalize().into())
    }

    /// The JSON that is hashed.
    pub fn canonical_json(&self) -> String {
        let mut sorted = self.clone();
        sorted.end_tokens.sort_unstable();
        sorted.end_tokens.dedup();
        sorted.files.sort_unstable();
        #[expect(
            clippy::expect_used,
            reason = "strings and integers always become JSON"
        )]
        serde_json::to_string(&sorted).expect("a manifest is plain data")
    }
}
