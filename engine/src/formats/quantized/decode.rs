//! Whole tensors out of blocks: by rows, on all cores, straight into the number
//! format that is wanted.

use std::num::NonZero;
use std::thread;

use half::bf16;
use tch::{Device, Kind, TchError, Tensor};

use super::groups::{Groups, MOST_WEIGHTS};
use super::{Block, Encoding};
use crate::error::first_line;

/// Weights below which one thread does it alone.
const WORTH_A_THREAD: usize = 1 << 18;
/// Weights that share a scale in what [`Rows::four_bit`] gives.
const GROUP: usize = 32;

/// A matrix of four-bit weights in groups of 32 along a row, its rows one after
/// the other: weight = quant * scale + least.
#[derive(Debug, PartialEq)]
pub(crate) struct FourBit {
    /// 0 to 15, one a byte.
    pub(crate) quants: Vec<u8>,
    /// One for each group.
    pub(crate) scales: Vec<f32>,
    /// One for each group.
    pub(crate) leasts: Vec<f32>,
}

/// Why a quantised tensor cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A scale in the file is infinite or no number at all.
    #[error("one of its scales is no number")]
    NoNumber,
    /// There is no memory for it.
    #[error("{}", first_line(&.0.to_string()))]
    Memory(#[from] TchError),
}

/// A quantised tensor in its file: rows of whole blocks.
pub(crate) struct Rows<'a> {
    encoding: Encoding,
    block: Block,
    bytes: &'a [u8],
    rows: usize,
    /// Heads whose rows are interleaved; see [`Rows::interleaved`].
    heads: Option<usize>,
}

impl<'a> Rows<'a> {
    /// `None` if the format is no quantised one that is known, or the bytes are
    /// not so many rows of whole blocks.
    pub(crate) fn new(encoding: Encoding, bytes: &'a [u8], rows: usize) -> Option<Self> {
        let block = encoding.block().filter(|block| block.weights > 1)?;
        let whole = bytes.len().is_multiple_of(rows.checked_mul(block.bytes)?);
        (rows > 0 && whole).then_some(Self {
            encoding,
            block,
            bytes,
            rows,
            heads: None,
        })
    }

    /// The rows of each head lie in the file as the first of its first half, the
    /// first of its second half, the second of its first half, and so on; they
    /// are given with the halves one after the other.
    ///
    /// `None` if the rows are no pairs for so many heads.
    pub(crate) fn interleaved(self, heads: usize) -> Option<Self> {
        let pairs = self.rows.is_multiple_of(heads.checked_mul(2)?);
        (heads > 0 && pairs).then_some(Self {
            heads: Some(heads),
            ..self
        })
    }

    /// The weights as a tensor `[rows, columns]` in f32 or bf16; f32 if another
    /// kind is asked for.
    ///
    /// # Errors
    /// When a scale in the file is no number, or there is no memory.
    pub(crate) fn tensor(&self, kind: Kind) -> Result<Tensor, DecodeError> {
        match kind {
            Kind::BFloat16 => self.filled(kind, bf16::from_f32),
            _ => self.filled(Kind::Float, |weight| weight),
        }
    }

    /// The weights as they are, or `None` if they are not of four bits in groups
    /// of 32.
    ///
    /// # Errors
    /// When a scale in the file is no number.
    pub(crate) fn four_bit(&self) -> Result<Option<FourBit>, DecodeError> {
        if !matches!(
            self.encoding,
            Encoding::Q4_0 | Encoding::Q4_1 | Encoding::Q4K
        ) {
            return Ok(None);
        }
        let weights = self.rows * self.columns();
        let mut out = FourBit {
            quants: vec![0; weights],
            scales: vec![0.0; weights / GROUP],
            leasts: vec![0.0; weights / GROUP],
        };
        let share = self.rows_of_a_thread();
        let (length, groups) = (share * self.columns(), share * self.columns() / GROUP);
        let quants = out.quants.chunks_mut(length.max(1));
        let scales = out.scales.chunks_mut(groups.max(1));
        let leasts = out.leasts.chunks_mut(groups.max(1));
        let parts = quants.zip(scales).zip(leasts).collect();
        let sound = in_parallel(parts, |part, ((quants, scales), leasts)| {
            self.four_bit_rows(part * share, quants, scales, leasts)
        });
        match sound {
            true => Ok(Some(out)),
            false => Err(DecodeError::NoNumber),
        }
    }

    /// A new tensor of numbers `T`, of which `kind` says the same, filled.
    fn filled<T: Send>(
        &self,
        kind: Kind,
        number: impl Fn(f32) -> T + Sync,
    ) -> Result<Tensor, DecodeError> {
        let shape = [self.rows as i64, self.columns() as i64];
        let mut tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
        debug_assert_eq!(kind.elt_size_in_bytes(), size_of::<T>());
        // SAFETY: a new tensor's memory is contiguous, on the processor, and holds
        // this many numbers of the size of `T`, which is f32 or bf16.
        let numbers = unsafe { numbers(&mut tensor, self.rows * self.columns()) };
        match self.fill(numbers, number) {
            true => Ok(tensor),
            false => Err(DecodeError::NoNumber),
        }
    }

    fn columns(&self) -> usize {
        self.row_bytes() / self.block.bytes * self.block.weights
    }

    fn row_bytes(&self) -> usize {
        self.bytes.len() / self.rows
    }

    /// The blocks of a row, by its number in what is given.
    fn row(&self, row: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let row = match self.heads {
            Some(heads) => {
                let width = self.rows / heads;
                let (head, place) = (row / width, row % width);
                let (half, pair) = (place / (width / 2), place % (width / 2));
                head * width + 2 * pair + half
            }
            None => row,
        };
        let length = self.row_bytes();
        self.bytes[row * length..][..length].chunks_exact(self.block.bytes)
    }

    /// Rows that one thread takes.
    fn rows_of_a_thread(&self) -> usize {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let least = WORTH_A_THREAD.div_ceil(self.columns().max(1));
        self.rows.div_ceil(threads).max(least)
    }

    /// Writes all weights. Are all scales numbers?
    fn fill<T: Send>(&self, out: &mut [T], number: impl Fn(f32) -> T + Sync) -> bool {
        let share = self.rows_of_a_thread();
        let parts = out.chunks_mut((share * self.columns()).max(1)).collect();
        in_parallel(parts, |part, out: &mut [T]| {
            self.fill_rows(part * share, out, &number)
        })
    }

    /// Writes the rows from `first` on, as many as `out` holds.
    fn fill_rows<T>(&self, first: usize, out: &mut [T], number: impl Fn(f32) -> T) -> bool {
        let mut groups = Groups::new();
        let mut sound = true;
        let Block { weights, group, .. } = self.block;
        for (row, out) in out.chunks_exact_mut(self.columns()).enumerate() {
            for (block, out) in self.row(first + row).zip(out.chunks_exact_mut(weights)) {
                groups.take(self.encoding, block);
                sound &= groups.are_sound(weights / group);
                let quants = groups.quants.chunks_exact(group);
                let pairs = groups.scales.iter().zip(&groups.leasts);
                for ((out, quants), (&scale, &least)) in
                    out.chunks_exact_mut(group).zip(quants).zip(pairs)
                {
                    for (out, &quant) in out.iter_mut().zip(quants) {
                        *out = number(f32::from(quant) * scale + least);
                    }
                }
            }
        }
        sound
    }

    fn four_bit_rows(
        &self,
        first: usize,
        quants: &mut [u8],
        scales: &mut [f32],
        leasts: &mut [f32],
    ) -> bool {
        let mut groups = Groups::new();
        let mut sound = true;
        let weights = self.block.weights;
        let count = weights / GROUP;
        let rows = quants.len() / self.columns().max(1);
        let blocks = (first..first + rows).flat_map(|row| self.row(row));
        let out = quants
            .chunks_exact_mut(weights)
            .zip(scales.chunks_exact_mut(count))
            .zip(leasts.chunks_exact_mut(count));
        for (block, ((quants, scales), leasts)) in blocks.zip(out) {
            groups.take(self.encoding, block);
            sound &= groups.are_sound(count);
            for (out, &quant) in quants.iter_mut().zip(&groups.quants[..MOST_WEIGHTS]) {
                *out = quant as u8;
            }
            scales.copy_from_slice(&groups.scales[..count]);
            leasts.copy_from_slice(&groups.leasts[..count]);
        }
        sound
    }
}

/// Does the parts side by side, each with its number. Did all answer true?
fn in_parallel<P: Send>(parts: Vec<P>, work: impl Fn(usize, P) -> bool + Sync) -> bool {
    let work = &work;
    let mut parts = parts.into_iter().enumerate();
    let Some((number, first)) = parts.next() else {
        return true;
    };
    thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|(number, part)| scope.spawn(move || work(number, part)))
            .collect();
        let sound = work(number, first);
        // A thread that panicked has done no sound work; `scope` passes it on.
        others
            .into_iter()
            .fold(sound, |sound, other| sound & other.join().unwrap_or(false))
    })
}

/// A tensor's memory.
///
/// # Safety
/// The tensor must be contiguous, in the processor's memory, of `count` numbers
/// of the size of `T`, for which all bytes are valid.
unsafe fn numbers<T>(tensor: &mut Tensor, count: usize) -> &mut [T] {
    if count == 0 {
        return &mut [];
    }
    // SAFETY: what the caller warrants.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<T>(), count) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Reference {
        rows: usize,
        columns: usize,
        tensors: Vec<Stored>,
    }

    #[derive(Deserialize)]
    struct Stored {
        encoding: u32,
        name: String,
        blocks: String,
        weights: String,
    }

    /// Each format's name, blocks and weights, by gguf's own decoder.
    fn reference() -> Vec<(Encoding, usize, Vec<u8>, Vec<f32>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/formats");
        let text = std::fs::read(folder.join("quants.json")).unwrap();
        let reference: Reference = serde_json::from_slice(&text).unwrap();
        let tensors = reference.tensors.into_iter().map(|tensor| {
            let encoding = Encoding::from_gguf(tensor.encoding);
            assert_eq!(encoding.name(), tensor.name);
            let weights = hex::decode(tensor.weights).unwrap();
            let weights = weights
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| f32::from_le_bytes(bytes));
            let weights: Vec<_> = weights.collect();
            assert_eq!(weights.len(), reference.rows * reference.columns);
            let blocks = hex::decode(tensor.blocks).unwrap();
            (encoding, reference.rows, blocks, weights)
        });
        tensors.collect()
    }

    fn numbers_of(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor.to_kind(Kind::Float).reshape(-1)).unwrap()
    }

    #[test]
    fn weights_are_exactly_those_of_the_format() {
        let reference = reference();
        assert_eq!(reference.len(), 10);
        for (encoding, rows, blocks, weights) in reference {
            let tensor = Rows::new(encoding, &blocks, rows).unwrap();
            let own = numbers_of(&tensor.tensor(Kind::Float).unwrap());
            assert_eq!(own, weights, "{encoding:?}");
            let short = numbers_of(&tensor.tensor(Kind::BFloat16).unwrap());
            let rounded = weights
                .iter()
                .map(|&weight| bf16::from_f32(weight).to_f32());
            assert_eq!(short, rounded.collect::<Vec<_>>(), "{encoding:?}");
        }
    }

    #[test]
    fn four_bits_stay_four_bits() {
        let mut formats = 0;
        for (encoding, rows, blocks, weights) in reference() {
            let rows = Rows::new(encoding, &blocks, rows).unwrap();
            let Some(four_bit) = rows.four_bit().unwrap() else {
                continue;
            };
            formats += 1;
            for (place, &weight) in weights.iter().enumerate() {
                let quant = four_bit.quants[place];
                assert!(quant < 16);
                let (scale, least) = (four_bit.scales[place / 32], four_bit.leasts[place / 32]);
                assert_eq!(f32::from(quant) * scale + least, weight, "{encoding:?}");
            }
        }
        assert_eq!(formats, 3);
    }

    #[test]
    fn rows_of_heads_are_put_in_order() {
        for (encoding, rows, blocks, weights) in reference() {
            let tensor = Rows::new(encoding, &blocks, rows).unwrap();
            let own = tensor.interleaved(1).unwrap();
            let row = |row: usize| &weights[256 * row..256 * (row + 1)];
            let expected = [row(0), row(2), row(1), row(3)].concat();
            assert_eq!(numbers_of(&own.tensor(Kind::Float).unwrap()), expected);
        }
        let blocks = [0; 18 * 4];
        let rows = || Rows::new(Encoding::Q4_0, &blocks, 4).unwrap();
        assert!(rows().interleaved(2).is_some());
        for heads in [0, 3, 4, usize::MAX] {
            assert!(rows().interleaved(heads).is_none(), "{heads}");
        }
    }

    #[test]
    fn many_threads_write_what_one_writes() {
        let (encoding, rows, blocks, weights) = reference().swap_remove(0);
        let times = 3 * WORTH_A_THREAD / weights.len();
        let tensor = blocks.repeat(times);
        let tensor = Rows::new(encoding, &tensor, rows * times).unwrap();
        let own = numbers_of(&tensor.tensor(Kind::Float).unwrap());
        assert!(own == weights.repeat(times));
        let quants = tensor.four_bit().unwrap().unwrap().quants;
        let first = Rows::new(encoding, &blocks, rows).unwrap().four_bit();
        assert!(quants == first.unwrap().unwrap().quants.repeat(times));
    }

    #[test]
    fn a_scale_that_is_no_number_is_refused() {
        for half in [[0, 0x7e], [0, 0x7c], [0, 0xfc]] {
            let mut block = vec![0; 18];
            block[..2].copy_from_slice(&half);
            let rows = Rows::new(Encoding::Q4_0, &block, 1).unwrap();
            assert!(matches!(
                rows.tensor(Kind::Float),
                Err(DecodeError::NoNumber)
            ));
            assert!(matches!(rows.four_bit(), Err(DecodeError::NoNumber)));
        }
    }

    #[test]
    fn half_a_block_is_no_row() {
        assert!(Rows::new(Encoding::Q4_0, &[0; 36], 4).is_none());
        assert!(Rows::new(Encoding::Q4_0, &[0; 36], 0).is_none());
        assert!(Rows::new(Encoding::F32, &[0; 36], 1).is_none());
        assert!(Rows::new(Encoding::Q4_0, &[], usize::MAX).is_none());
    }
}
