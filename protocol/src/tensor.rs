//! Tensors, and what a module takes and gives: the vocabulary of models that are
//! no language models.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bounds::{
    MAX_DIMENSIONS, MAX_NAME_BYTES, MAX_SAFE_INTEGER, MAX_TENSORS, at_most, count, text,
};
use crate::event::Refusal;

/// Bytes of tensor data that count as one token.
pub const BYTES_PER_TOKEN: usize = 4;

/// The number format of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
    /// 16-bit floats of IEEE 754.
    F16,
    /// bfloat16.
    Bf16,
    /// Unsigned bytes.
    U8,
    /// Signed bytes.
    I8,
    /// 16-bit integers.
    I16,
    /// 32-bit integers.
    I32,
    /// 64-bit integers.
    I64,
    /// One byte each, 0 or 1.
    Bool,
}

impl Element {
    /// The size of one element in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::Bool => "bool",
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A tensor with its name.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tensor {
    /// Which input or output it is.
    pub name: String,
    /// The number format of its elements.
    pub dtype: Element,
    /// Its dimensions; none for a single number.
    pub shape: Vec<u64>,
    /// Its elements, the last dimension running fastest, each little-endian; in
    /// JSON their base64.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Vec<u8>,
}

impl fmt::Debug for Tensor {
    /// Never shows the data: they must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype, self.shape)
    }
}

fn to_base64<S: Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64.encode(data))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64.decode(text).map_err(serde::de::Error::custom)
}

impl Tensor {
    /// What it counts for, in tokens: one for every four bytes, rounded up.
    pub fn tokens(&self) -> u64 {
        self.data.len().div_ceil(BYTES_PER_TOKEN) as u64
    }

    /// Refuses a tensor whose shape is not that of its data.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        validate_tensor_name(&self.name)?;
        count("dimensions", self.shape.len(), MAX_DIMENSIONS)?;
        if size(self.dtype, &self.shape) != Some(self.data.len() as u64) {
            return Err(Refusal::Invalid("a tensor's shape is not that of its data"));
        }
        let is_bool = |byte: &u8| *byte <= 1;
        match self.dtype == Element::Bool && !self.data.iter().all(is_bool) {
            true => Err(Refusal::Invalid("a bool is neither 0 nor 1")),
            false => Ok(()),
        }
    }
}

/// A tensor's size in bytes; none if it is beyond all numbers.
fn size(dtype: Element, shape: &[u64]) -> Option<u64> {
    let element = dtype.bytes() as u64;
    shape
        .iter()
        .try_fold(element, |bytes, &length| bytes.checked_mul(length))
}

/// What tensors count for together, in tokens.
pub fn tokens(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(Tensor::tokens).sum()
}

/// Refuses tensors that are too many, wrong in themselves, or named alike.
///
/// # Errors
/// The first bound that is broken.
pub fn validate(tensors: &[Tensor]) -> Result<(), Refusal> {
    count("tensors", tensors.len(), MAX_TENSORS)?;
    tensors.iter().try_for_each(Tensor::validate)?;
    validate_unlike(tensors.iter().map(|tensor| tensor.name.as_str()))
}

/// A name that a file may bear, too.
fn validate_tensor_name(name: &str) -> Result<(), Refusal> {
    text("a tensor's name", name, MAX_NAME_BYTES)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    match !name.is_empty() && name.chars().all(is_plain) && !name.starts_with('.') {
        true => Ok(()),
        false => Err(Refusal::Invalid(
            "a tensor's name is not of letters, digits and _-.",
        )),
    }
}

fn validate_unlike<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    match names.all(|name| seen.insert(name)) {
        true => Ok(()),
        false => Err(Refusal::Invalid("two tensors have the same name")),
    }
}

/// What a module takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// What it does, in a word: `image-classification`.
    pub label: String,
    /// The tensors it takes, in the order in which the module takes them.
    pub inputs: Vec<Slot>,
    /// The tensors it gives, in their order.
    pub outputs: Vec<Slot>,
}

/// A place for a tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The tensor's name.
    pub name: String,
    /// The number format of its elements.
    pub dtype: Element,
    /// Its dimensions; -1 where any length is taken.
    pub shape: Vec<i64>,
}

/// A length that is left to whoever makes the tensor.
const FREE: i64 = -1;

/// How tensors differ from what a module takes or gives.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// One is missing, or there is one that nobody asked for.
    #[error("the tensors are to be {expected}, and nothing else")]
    Names {
        /// The names there should be.
        expected: String,
    },
    /// Number format or shape differ.
    #[error("{name} is to be {expected}, and is {found}")]
    Kind {
        /// The tensor's name.
        name: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

impl Interface {
    /// Refuses an interface that is none.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn validate(&self) -> Result<(), Refusal> {
        text("a module's label", &self.label, MAX_NAME_BYTES)?;
        for slots in [&self.inputs, &self.outputs] {
            if slots.is_empty() {
                return Err(Refusal::Invalid("a module has no input or no output"));
            }
            count("tensors", slots.len(), MAX_TENSORS)?;
            slots.iter().try_for_each(Slot::validate)?;
            validate_unlike(slots.iter().map(|slot| slot.name.as_str()))?;
        }
        Ok(())
    }

    /// Inputs of zeros, with this length wherever one is free; none where they
    /// have more than so many bytes.
    pub fn zeros(&self, free: u64, most_bytes: u64) -> Option<Vec<Tensor>> {
        let mut left = most_bytes;
        let zeros = |slot: &Slot| {
            let shape = slot.shape_with(free);
            let bytes = size(slot.dtype, &shape).filter(|bytes| *bytes <= left)?;
            left -= bytes;
            Some(Tensor {
                name: slot.name.clone(),
                dtype: slot.dtype,
                shape,
                data: vec![0; usize::try_from(bytes).ok()?],
            })
        };
        self.inputs.iter().map(zeros).collect()
    }

    /// The largest input in tokens; none where a length is free.
    pub fn most_input_tokens(&self) -> Option<u64> {
        let tokens = |slot: &Slot| Some(slot.bytes()?.div_ceil(BYTES_PER_TOKEN as u64));
        self.inputs
            .iter()
            .try_fold(0_u64, |sum, slot| sum.checked_add(tokens(slot)?))
    }
}

impl Slot {
    fn validate(&self) -> Result<(), Refusal> {
        validate_tensor_name(&self.name)?;
        count("dimensions", self.shape.len(), MAX_DIMENSIONS)?;
        for &length in &self.shape {
            match u64::try_from(length) {
                Ok(0) => return Err(Refusal::Invalid("a dimension is 0")),
                Ok(length) => at_most("a dimension", length, MAX_SAFE_INTEGER)?,
                Err(_) if length == FREE => {}
                Err(_) => return Err(Refusal::Invalid("a dimension is negative")),
            }
        }
        Ok(())
    }

    /// A tensor's size in bytes; none where a length is free.
    fn bytes(&self) -> Option<u64> {
        let is_fixed = !self.shape.contains(&FREE);
        size(self.dtype, &self.shape_with(0)).filter(|_| is_fixed)
    }

    fn shape_with(&self, free: u64) -> Vec<u64> {
        let length = |&length: &i64| u64::try_from(length).unwrap_or(free);
        self.shape.iter().map(length).collect()
    }

    /// Whether a tensor has this place's format and shape.
    fn fits(&self, tensor: &Tensor) -> bool {
        let fits = |(&own, &length): (&i64, &u64)| own == FREE || u64::try_from(own) == Ok(length);
        self.dtype == tensor.dtype
            && self.shape.len() == tensor.shape.len()
            && self.shape.iter().zip(&tensor.shape).all(fits)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

/// Puts tensors into the order of their places, each into its own.
///
/// # Errors
/// How they differ from what is expected.
pub fn arrange<'a>(slots: &[Slot], tensors: &'a [Tensor]) -> Result<Vec<&'a Tensor>, Misfit> {
    let names = || Misfit::Names {
        expected: slots
            .iter()
            .map(|slot| slot.name.as_str())
            .collect::<Vec<_>>()
            .join(", "),
    };
    if slots.len() != tensors.len() {
        return Err(names());
    }
    let place = |slot: &Slot| {
        let tensor = tensors.iter().find(|tensor| tensor.name == slot.name);
        let tensor = tensor.ok_or_else(names)?;
        match slot.fits(tensor) {
            true => Ok(tensor),
            false => Err(Misfit::Kind {
                name: slot.name.clone(),
                expected: slot.to_string(),
                found: format!("{} {:?}", tensor.dtype, tensor.shape),
            }),
        }
    };
    slots.iter().map(place).collect()
}
