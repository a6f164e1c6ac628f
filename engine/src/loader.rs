//! Puts a model's weights where it is computed.

use tch::{Device, Kind, TchError, Tensor};

use crate::error::{LoadError, first_line};
use crate::formats::Weights;
use crate::formats::quantized::FourBit;
use crate::kernels;
use crate::linear::Packing;
use crate::memory;
use crate::models::Placement;

/// Puts the weights of one model in their place and counts them.
pub(crate) struct Loader<'a> {
    weights: &'a dyn Weights,
    placement: Placement,
    parameters: u64,
}

impl<'a> Loader<'a> {
    pub(crate) fn new(weights: &'a dyn Weights, placement: Placement) -> Self {
        Self {
            weights,
            placement,
            parameters: 0,
        }
    }

    /// How many weights were loaded.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters
    }

    /// How matrices are to be kept.
    pub(crate) fn packing(&self) -> Packing {
        self.placement.packing
    }

    /// Will our own kernels compute with what is loaded?
    pub(crate) fn has_kernels(&self) -> bool {
        kernels::serve_on(self.placement.device, self.placement.kind)
    }

    /// The tensor of this name and shape, in the model's number format. In the
    /// processor's memory and already in that format, it stays in its file.
    ///
    /// # Errors
    /// When there is none such, or the device has no room.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
        let Placement { kind, device, .. } = self.placement;
        let tensor = self.weights.tensor_as(name, shape, kind)?;
        self.parameters += tensor.numel() as u64;
        tensor.f_to_device(device).map_err(on_device)
    }

    /// A matrix in the processor's memory that is to be packed, in f32, f16 or
    /// bf16: the best that the file has.
    ///
    /// # Errors
    /// When there is none such.
    pub(crate) fn dense(&mut self, name: &str, shape: &[i64; 2]) -> Result<Tensor, LoadError> {
        let tensor = self.weights.tensor(name, shape)?;
        self.parameters += tensor.numel() as u64;
        Ok(tensor)
    }

    /// A matrix that has four bits already, or `None`.
    ///
    /// # Errors
    /// When there is none such.
    pub(crate) fn four_bit(
        &mut self,
        name: &str,
        shape: &[i64; 2],
    ) -> Result<Option<FourBit>, LoadError> {
        let own = self.weights.four_bit(name, shape)?;
        self.parameters += own.as_ref().map_or(0, |own| own.quants.len() as u64);
        Ok(own)
    }
}

/// Refuses weights that the device has no room for, before any is read.
///
/// # Errors
/// What they need, what there is, and what would need less.
pub(crate) fn require(bytes: u64, placement: Placement) -> Result<(), LoadError> {
    match memory::free(placement.device) {
        Some(free) if free < bytes => Err(no_room(bytes, free, placement)),
        _ => Ok(()),
    }
}

fn no_room(bytes: u64, free: u64, placement: Placement) -> LoadError {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let less = match (placement.device, placement.packing, placement.kind) {
        (Device::Cpu, Packing::None, Kind::Float) => "take bf16, int8 or int4",
        (Device::Cpu, Packing::None, _) => "take int8 or int4",
        (_, _, Kind::Float) => "take bf16",
        (_, Packing::Int8, _) => "take int4",
        _ => "take a smaller model",
    };
    LoadError::Device(format!(
        "the model needs {:.1} GiB of memory and {:.1} GiB are free; {less}",
        gib(bytes),
        gib(free)
    ))
}

/// What the device refuses while a model is put on it.
pub(crate) fn on_device(error: TchError) -> LoadError {
    LoadError::Device(first_line(&error.to_string()))
}

/// Weights out of nowhere, for tests.
#[cfg(test)]
pub(crate) mod testing {
    use std::path::Path;

    use tch::{Device, Kind, Tensor};

    use super::*;
    use crate::formats::{MappedFile, damaged};

    /// Matrices of random weights.
    pub(crate) struct Made {
        packing: Packing,
        weights: Vec<(&'static str, Tensor)>,
    }

    impl Made {
        pub(crate) fn new<const N: usize>(
            packing: Packing,
            shapes: [(&'static str, [i64; 2]); N],
        ) -> Self {
            tch::manual_seed(7);
            let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.1;
            Self {
                packing,
                weights: shapes.map(|(name, shape)| (name, random(shape))).into(),
            }
        }

        pub(crate) fn loader(&self) -> Loader<'_> {
            let placement = Placement {
                device: Device::Cpu,
                kind: Kind::BFloat16,
                packing: self.packing,
            };
            Loader::new(self, placement)
        }

        /// All of them, one after the other.
        pub(crate) fn stacked(&self) -> Tensor {
            let weights: Vec<_> = self.weights.iter().map(|(_, weights)| weights).collect();
            Tensor::cat(&weights, 0)
        }

        pub(crate) fn input(&self, shape: [i64; 2]) -> Tensor {
            Tensor::randn(shape, (Kind::Float, Device::Cpu))
        }
    }

    impl Weights for Made {
        fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor, LoadError> {
            let found = self.weights.iter().find(|(own, _)| *own == name);
            match found {
                Some((_, weights)) if weights.size() == shape => Ok(weights.shallow_clone()),
                _ => Err(damaged(Path::new("made"), format!("there is no {name}"))),
            }
        }

        fn contains(&self, name: &str) -> bool {
            self.weights.iter().any(|(own, _)| *own == name)
        }

        fn files(&self) -> Vec<MappedFile> {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_without_room_are_refused_with_what_would_fit() {
        for (kind, packing, expected) in [
            (Kind::Float, Packing::None, "take bf16, int8 or int4"),
            (Kind::BFloat16, Packing::None, "take int8 or int4"),
            (Kind::BFloat16, Packing::Int8, "take int4"),
            (Kind::BFloat16, Packing::Int4, "take a smaller model"),
        ] {
            let placement = Placement {
                device: Device::Cpu,
                kind,
                packing,
            };
            assert!(require(1, placement).is_ok());
            let refused = no_room(15 << 30, 3 << 29, placement).to_string();
            let needs = "the model needs 15.0 GiB of memory and 1.5 GiB are free; ";
            assert_eq!(refused, format!("{needs}{expected}"));
            assert!(require(u64::MAX, placement).is_err());
        }
    }
}
