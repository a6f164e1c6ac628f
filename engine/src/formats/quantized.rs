//! The number formats of GGUF tensors, and their way back to plain numbers.
//!
//! The formats and their names are llama.cpp's (ggml). A quantised tensor is a
//! row of blocks of 32 or 256 weights, a block is some groups that share a
//! scale, and every weight is `quant * scale + least` of its group.

mod decode;
mod groups;

use tch::Kind;

pub(crate) use decode::{DecodeError, FourBit, Rows};

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    /// One that is not decoded here, by its number in ggml.
    Other(u32),
}

/// A block's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    weights: usize,
    bytes: usize,
    /// Weights that share a scale.
    group: usize,
}

/// The names of ggml's types, by their numbers.
const NAMES: [&str; 42] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
    "Q1_0",
];

impl Encoding {
    pub(crate) fn from_gguf(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    /// What ggml calls it.
    pub(crate) fn name(self) -> String {
        let number = match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
            Self::Other(number) => number,
        };
        match NAMES.get(number as usize) {
            Some(name) => (*name).to_owned(),
            None => format!("number {number}"),
        }
    }

    /// Torch's name for it, if it is no quantised one.
    pub(crate) fn plain(self) -> Option<Kind> {
        match self {
            Self::F32 => Some(Kind::Float),
            Self::F16 => Some(Kind::Half),
            Self::Bf16 => Some(Kind::BFloat16),
            _ => None,
        }
    }

    /// A block's shape; `None` if the format is not known.
    const fn block(self) -> Option<Block> {
        let (weights, bytes, group) = match self {
            Self::F32 => (1, 4, 1),
            Self::F16 | Self::Bf16 => (1, 2, 1),
            Self::Q4_0 => (32, 2 + 16, 32),
            Self::Q4_1 => (32, 4 + 16, 32),
            Self::Q5_0 => (32, 2 + 4 + 16, 32),
            Self::Q5_1 => (32, 4 + 4 + 16, 32),
            Self::Q8_0 => (32, 2 + 32, 32),
            Self::Q2K => (256, 16 + 64 + 4, 16),
            Self::Q3K => (256, 32 + 64 + 12 + 2, 16),
            Self::Q4K => (256, 4 + 12 + 128, 32),
            Self::Q5K => (256, 4 + 12 + 32 + 128, 32),
            Self::Q6K => (256, 128 + 64 + 16 + 2, 16),
            Self::Other(_) => return None,
        };
        Some(Block {
            weights,
            bytes,
            group,
        })
    }

    /// The size of this many weights in bytes (0 if the format is not known);
    /// `None` if they do not fill their last block, or there are too many.
    pub(crate) fn bytes_of(self, weights: u64) -> Option<u64> {
        let Some(block) = self.block() else {
            return Some(0);
        };
        if !weights.is_multiple_of(block.weights as u64) {
            return None;
        }
        (weights / block.weights as u64).checked_mul(block.bytes as u64)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn half_a_block_has_no_size() {
        assert_eq!(Encoding::Q4_1.bytes_of(64), Some(40));
        assert_eq!(Encoding::Q4_1.bytes_of(33), None);
        assert_eq!(Encoding::Q6K.bytes_of(256), Some(210));
        assert_eq!(Encoding::F32.bytes_of(u64::MAX), None);
    }

    #[test]
    fn types_are_known_by_their_names() {
        for (number, name) in [
            (0, "F32"),
            (12, "Q4_K"),
            (23, "IQ4_XS"),
            (30, "BF16"),
            (39, "MXFP4"),
            (99, "number 99"),
        ] {
            assert_eq!(Encoding::from_gguf(number).name(), name);
        }
    }
}
