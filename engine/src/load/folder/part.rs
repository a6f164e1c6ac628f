//! A part of a larger model's weights, under the names of a model of its own.

use tch::{Kind, Tensor};

use crate::error::LoadError;
use crate::formats::quantized::FourBit;
use crate::formats::{MappedFile, Weights};
use crate::models::family::Part;

/// The weights of a decoder inside a larger model.
pub(super) struct Inside<'a> {
    whole: &'a dyn Weights,
    part: &'static Part,
}

impl<'a> Inside<'a> {
    pub(super) fn new(whole: &'a dyn Weights, part: &'static Part) -> Self {
        Self { whole, part }
    }

    /// What the larger model calls a tensor.
    fn name(&self, name: &str) -> String {
        let (own, others) = match name.split_once('.') {
            Some(("model", rest)) => (rest, self.part.model),
            Some(("lm_head", rest)) => (rest, self.part.head),
            _ => return name.to_owned(),
        };
        let mut names = others.iter().map(|root| format!("{root}{own}"));
        let found = names.clone().find(|name| self.whole.contains(name));
        found.or_else(|| names.next()).unwrap_or_default()
    }
}

impl Weights for Inside<'_> {
    fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        self.whole.tensor(&self.name(name), shape)
    }

    fn tensor_as(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor, LoadError> {
        self.whole.tensor_as(&self.name(name), shape, kind)
    }

    fn four_bit(&self, name: &str, shape: &[i64]) -> Result<Option<FourBit>, LoadError> {
        self.whole.four_bit(&self.name(name), shape)
    }

    fn contains(&self, name: &str) -> bool {
        self.whole.contains(&self.name(name))
    }

    fn files(&self) -> Vec<MappedFile> {
        self.whole.files()
    }
}
