//! The number formats of GGUF tensors, and their way back to f32.
//!
//! A quantised tensor is a row of blocks of 32 weights. The formats and their
//! names are llama.cpp's (ggml).

use half::{bf16, f16};

/// Weights in one block of a quantised format.
const BLOCK: usize = 32;

/// How a tensor's numbers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    F32,
    F16,
    Bf16,
    /// Scale (f16), 32 weights of 8 bits.
    Q8_0,
    /// Scale (f16), 32 weights of 4 bits, of which 8 is taken away.
    Q4_0,
    /// Scale and least weight (f16 each), 32 weights of 4 bits.
    Q4_1,
    /// One that is not known here, by its number in ggml.
    Other(u32),
}

impl Encoding {
    pub(crate) fn from_gguf(number: u32) -> Self {
        match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            other => Self::Other(other),
        }
    }

    /// Weights and bytes of a block.
    const fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (BLOCK, 2 + BLOCK),
            Self::Q4_0 => (BLOCK, 2 + BLOCK / 2),
            Self::Q4_1 => (BLOCK, 4 + BLOCK / 2),
            Self::Other(_) => (1, 0),
        }
    }

    /// The size of this many weights in bytes (0 if the format is not known);
    /// `None` if they do not fill their last block, or there are too many.
    pub(crate) fn bytes_of(self, weights: u64) -> Option<u64> {
        let (block_weights, block_bytes) = self.block();
        if !weights.is_multiple_of(block_weights as u64) {
            return None;
        }
        (weights / block_weights as u64).checked_mul(block_bytes as u64)
    }

    /// The weights as f32; `None` if the format is not known.
    pub(crate) fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let (block_weights, block_bytes) = self.block();
        if block_bytes == 0 {
            return None;
        }
        let mut weights = Vec::with_capacity(bytes.len() / block_bytes * block_weights);
        for block in bytes.chunks_exact(block_bytes) {
            self.decode_block(block, &mut weights);
        }
        Some(weights)
    }

    fn decode_block(self, block: &[u8], weights: &mut Vec<f32>) {
        match self {
            Self::F32 => weights.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            Self::F16 => weights.push(half_at(block, 0)),
            Self::Bf16 => weights.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            Self::Q8_0 => {
                let scale = half_at(block, 0);
                weights.extend(block[2..].iter().map(|&q| f32::from(q as i8) * scale));
            }
            Self::Q4_0 => {
                let scale = half_at(block, 0);
                weights.extend(nibbles(&block[2..]).map(|q| (f32::from(q) - 8.0) * scale));
            }
            Self::Q4_1 => {
                let (scale, least) = (half_at(block, 0), half_at(block, 2));
                weights.extend(nibbles(&block[4..]).map(|q| f32::from(q) * scale + least));
            }
            Self::Other(_) => {}
        }
    }
}

fn half_at(block: &[u8], start: usize) -> f32 {
    f16::from_le_bytes([block[start], block[start + 1]]).to_f32()
}

/// The low halves of all bytes, then the high ones: a block's order.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let low = bytes.iter().map(|byte| byte & 0xf);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A block with scale 0.5, the least weight if there is one, then `quants`.
    fn block(least: Option<f32>, quants: &[u8]) -> Vec<u8> {
        let mut block = f16::from_f32(0.5).to_le_bytes().to_vec();
        if let Some(least) = least {
            block.extend(f16::from_f32(least).to_le_bytes());
        }
        block.extend(quants);
        block
    }

    #[test]
    fn four_bits_low_halves_first() {
        let mut quants = [0x00; 16];
        quants[0] = 0xf1;
        let weights = Encoding::Q4_0.decode(&block(None, &quants)).unwrap();
        assert_eq!((weights[0], weights[1], weights[16]), (-3.5, -4.0, 3.5));
        let weights = Encoding::Q4_1.decode(&block(Some(-2.0), &quants)).unwrap();
        assert_eq!((weights[0], weights[1], weights[16]), (-1.5, -2.0, 5.5));
        assert_eq!(weights.len(), 32);
    }

    #[test]
    fn eight_bits_are_signed() {
        let mut quants = [0; 32];
        quants[1] = 0xff;
        quants[31] = 127;
        let weights = Encoding::Q8_0.decode(&block(None, &quants)).unwrap();
        assert_eq!((weights[0], weights[1], weights[31]), (0.0, -0.5, 63.5));
    }

    #[test]
    fn plain_numbers() {
        let bytes = 1.5_f32.to_le_bytes();
        assert_eq!(Encoding::F32.decode(&bytes).unwrap(), [1.5]);
        let bytes = f16::from_f32(-2.0).to_le_bytes();
        assert_eq!(Encoding::F16.decode(&bytes).unwrap(), [-2.0]);
        let bytes = bf16::from_f32(3.0).to_le_bytes();
        assert_eq!(Encoding::Bf16.decode(&bytes).unwrap(), [3.0]);
        assert_eq!(Encoding::Other(99).decode(&[]), None);
    }

    #[test]
    fn half_a_block_has_no_size() {
        assert_eq!(Encoding::Q4_1.bytes_of(64), Some(40));
        assert_eq!(Encoding::Q4_1.bytes_of(33), None);
        assert_eq!(Encoding::F32.bytes_of(u64::MAX), None);
    }
}
