//! One block of each quantised format, taken apart.

use half::f16;

use super::Encoding;

/// Weights in the largest block.
pub(super) const MOST_WEIGHTS: usize = 256;
/// Groups in the block that has most of them.
const MOST_GROUPS: usize = 16;

/// A block taken apart: weight `i` is `quants[i] * scales[g] + leasts[g]`, where
/// `g` is the group it is in. What lies beyond the block's size is left over
/// from another block.
pub(super) struct Groups {
    pub(super) quants: [i8; MOST_WEIGHTS],
    pub(super) scales: [f32; MOST_GROUPS],
    pub(super) leasts: [f32; MOST_GROUPS],
}

impl Groups {
    pub(super) fn new() -> Self {
        Self {
            quants: [0; MOST_WEIGHTS],
            scales: [0.0; MOST_GROUPS],
            leasts: [0.0; MOST_GROUPS],
        }
    }

    /// Takes a block apart; it has the size that the format says.
    pub(super) fn take(&mut self, encoding: Encoding, block: &[u8]) {
        match encoding {
            Encoding::Q4_0 => {
                self.centred(half_at(block, 0), 8);
                self.nibbles(0, &block[2..]);
            }
            Encoding::Q4_1 => {
                self.one(half_at(block, 0), half_at(block, 2));
                self.nibbles(0, &block[4..]);
            }
            Encoding::Q5_0 => {
                self.centred(half_at(block, 0), 16);
                self.nibbles(0, &block[6..]);
                self.fifth_bits(&block[2..6]);
            }
            Encoding::Q5_1 => {
                self.one(half_at(block, 0), half_at(block, 2));
                self.nibbles(0, &block[8..]);
                self.fifth_bits(&block[4..8]);
            }
            Encoding::Q8_0 => {
                self.one(half_at(block, 0), 0.0);
                for (quant, &byte) in self.quants.iter_mut().zip(&block[2..]) {
                    *quant = byte as i8;
                }
            }
            Encoding::Q2K => self.q2_k(block),
            Encoding::Q3K => self.q3_k(block),
            Encoding::Q4K => self.q4_k(block),
            Encoding::Q5K => self.q5_k(block),
            Encoding::Q6K => self.q6_k(block),
            Encoding::F32 | Encoding::F16 | Encoding::Bf16 | Encoding::Other(_) => {}
        }
    }

    /// Are the scales and leasts of the first groups all finite?
    pub(super) fn are_sound(&self, groups: usize) -> bool {
        let both = self.scales[..groups].iter().chain(&self.leasts[..groups]);
        both.fold(true, |sound, number| sound & number.is_finite())
    }

    /// One group.
    fn one(&mut self, scale: f32, least: f32) {
        (self.scales[0], self.leasts[0]) = (scale, least);
    }

    /// One group, whose quant `centre` means 0.
    fn centred(&mut self, scale: f32, centre: i8) {
        self.one(scale, -f32::from(centre) * scale);
    }

    /// Quants of four bits from place `start` on: the low halves of all bytes,
    /// then the high ones.
    fn nibbles(&mut self, start: usize, bytes: &[u8]) {
        let quants = &mut self.quants[start..start + 2 * bytes.len()];
        let (low, high) = quants.split_at_mut(bytes.len());
        for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
            *low = (byte & 0xf) as i8;
            *high = (byte >> 4) as i8;
        }
    }

    /// The fifth bits of 32 quants, the first one lowest.
    fn fifth_bits(&mut self, bytes: &[u8]) {
        let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        for (place, quant) in self.quants[..32].iter_mut().enumerate() {
            *quant |= ((bits >> place & 1) << 4) as i8;
        }
    }

    /// Quants of two bits: of each 32 bytes first all the lowest pairs, then the
    /// next ones.
    fn pairs(&mut self, bytes: &[u8]) {
        for (quants, bytes) in self
            .quants
            .chunks_exact_mut(128)
            .zip(bytes.chunks_exact(32))
        {
            for (shift, quants) in quants.chunks_exact_mut(32).enumerate() {
                for (quant, byte) in quants.iter_mut().zip(bytes) {
                    *quant = (byte >> (2 * shift) & 3) as i8;
                }
            }
        }
    }

    /// A bit for each quant, worth `worth`: of 32 bytes first all the lowest
    /// bits, then the next ones.
    fn add_bits(&mut self, bytes: &[u8], worth: u8) {
        for (shift, quants) in self.quants.chunks_exact_mut(32).enumerate() {
            for (quant, byte) in quants.iter_mut().zip(bytes) {
                *quant |= ((byte >> shift & 1) * worth) as i8;
            }
        }
    }

    fn q2_k(&mut self, block: &[u8]) {
        let (scales, rest) = block.split_at(16);
        let (scale, least) = (half_at(rest, 64), half_at(rest, 66));
        for (group, &packed) in scales.iter().enumerate() {
            self.scales[group] = scale * f32::from(packed & 0xf);
            self.leasts[group] = -(least * f32::from(packed >> 4));
        }
        self.pairs(&rest[..64]);
    }

    fn q3_k(&mut self, block: &[u8]) {
        let (bits, pairs, scales) = (&block[..32], &block[32..96], &block[96..108]);
        let scale = half_at(block, 108);
        for group in 0..16 {
            let low = scales[group % 8] >> (group / 8 * 4) & 0xf;
            let high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
            // Six bits, of which 32 means 0; of the quants, 4 does.
            self.scales[group] = scale * (f32::from(low | high << 4) - 32.0);
            self.leasts[group] = -4.0 * self.scales[group];
        }
        self.pairs(pairs);
        self.add_bits(bits, 4);
    }

    /// Scales and leasts of the eight groups of Q4_K and Q5_K.
    fn scales_of_eight(&mut self, block: &[u8]) {
        let (scale, least) = (half_at(block, 0), half_at(block, 2));
        let packed = &block[4..16];
        for group in 0..4 {
            let (first, second, third) = (packed[group], packed[group + 4], packed[group + 8]);
            let pairs = [
                (first & 0x3f, second & 0x3f),
                (
                    third & 0xf | first >> 2 & 0x30,
                    third >> 4 | second >> 2 & 0x30,
                ),
            ];
            for (half, (scales, leasts)) in pairs.into_iter().enumerate() {
                self.scales[4 * half + group] = scale * f32::from(scales);
                self.leasts[4 * half + group] = -(least * f32::from(leasts));
            }
        }
    }

    fn q4_k(&mut self, block: &[u8]) {
        self.scales_of_eight(block);
        for (part, bytes) in block[16..].chunks_exact(32).enumerate() {
            self.nibbles(64 * part, bytes);
        }
    }

    fn q5_k(&mut self, block: &[u8]) {
        self.scales_of_eight(block);
        for (part, bytes) in block[48..].chunks_exact(32).enumerate() {
            self.nibbles(64 * part, bytes);
        }
        self.add_bits(&block[16..48], 16);
    }

    fn q6_k(&mut self, block: &[u8]) {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let scale = half_at(block, 208);
        for (group, &times) in scales.iter().enumerate() {
            self.scales[group] = scale * f32::from(times as i8);
            // Six bits, of which 32 means 0.
            self.leasts[group] = -32.0 * self.scales[group];
        }
        for (part, (low, high)) in low.chunks_exact(64).zip(high.chunks_exact(32)).enumerate() {
            let quants = &mut self.quants[128 * part..128 * (part + 1)];
            for (quarter, quants) in quants.chunks_exact_mut(32).enumerate() {
                let low = &low[quarter % 2 * 32..][..32];
                for ((quant, low), high) in quants.iter_mut().zip(low).zip(high) {
                    let low = low >> (quarter / 2 * 4) & 0xf;
                    *quant = (low | (high >> (2 * quarter) & 3) << 4) as i8;
                }
            }
        }
    }
}

/// A number of two bytes.
fn half_at(block: &[u8], start: usize) -> f32 {
    f16::from_le_bytes([block[start], block[start + 1]]).to_f32()
}
