//! The families of models, one file each.

pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod family;

use tch::{Device, Kind};

use crate::linear::Packing;

/// Where and in what number format a model is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub(crate) device: Device,
    /// Of activations.
    pub(crate) kind: Kind,
    /// Of matrices.
    pub(crate) packing: Packing,
}

impl Placement {
    /// What a number of an activation, and of what is not packed, takes.
    fn bits(self) -> u128 {
        8 * self.kind.elt_size_in_bytes() as u128
    }

    /// What a weight of a matrix takes.
    fn bits_of_weights(self) -> u128 {
        match self.packing {
            Packing::None => self.bits(),
            Packing::Int8 => 8,
            // And a scale and a zero of 16 bits for each 32 weights.
            Packing::Int4 => 5,
        }
    }
}

/// A valid size, wide enough for products of several.
fn wide(size: i64) -> u128 {
    size.unsigned_abs().into()
}

/// So many bits in bytes.
fn bytes(bits: u128) -> u64 {
    u64::try_from(bits / 8).unwrap_or(u64::MAX)
}

/// Far above any model's, and small enough that no product of two overflows.
const MAX_SIZE: i64 = 1 << 24;

/// Refuses sizes that no model has.
fn validate_sizes(sizes: &[(&str, i64)]) -> Result<(), String> {
    match sizes
        .iter()
        .find(|(_, size)| !(1..=MAX_SIZE).contains(size))
    {
        Some((name, size)) => Err(format!("its {name} cannot be {size}")),
        None => Ok(()),
    }
}
