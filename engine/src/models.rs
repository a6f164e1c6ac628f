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
