//! How an answer was computed: what a provider says of it, and how far that is from
//! what a checker finds (TOPLOC, arXiv 2501.16007; `nips/verification.md`).
//!
//! Of every 32 tokens of an answer, the states that they were drawn from are laid one
//! behind the other, and the 128 numbers that are largest, whatever their sign, are
//! kept: as a polynomial that has their bits where their places are. Whoever computes
//! the answer again finds nearly the same numbers in nearly the same places; whoever
//! has another model does not, and cannot tell from the proof what they should be.

mod field;

use half::bf16;
use infernet_protocol::payload::Proof;
use infernet_protocol::verification::ChunkDistance;

use field::{PRIME, Polynomial};

/// Tokens whose states are proven together.
const CHUNK: usize = 32;
/// Numbers that are kept of them.
const KEPT: usize = 128;
/// Bytes of a chunk's proof: a modulus and the coefficients, 16 bits each.
const CHUNK_BYTES: usize = 2 + 2 * KEPT;
/// Numbers that are gathered before the largest of them are sorted out.
const GATHERED: usize = 16 * KEPT;

/// Bytes of the proof of so many tokens.
pub(crate) const fn bytes_of(tokens: usize) -> usize {
    tokens.div_ceil(CHUNK) * CHUNK_BYTES
}

/// Gathers the states that an answer's tokens are drawn from, and proves them.
#[derive(Debug, Default)]
pub(crate) struct Prover {
    chunk: Chunk,
    proof: Vec<u8>,
}

impl Prover {
    /// Takes the state that one more token was drawn from.
    pub(crate) fn push(&mut self, state: &[bf16]) {
        self.chunk.push(state);
        if self.chunk.tokens == CHUNK {
            self.close();
        }
    }

    /// The proof of all tokens that were taken.
    pub(crate) fn finish(mut self) -> Proof {
        if self.chunk.tokens > 0 {
            self.close();
        }
        Proof(self.proof)
    }

    fn close(&mut self) {
        let largest = std::mem::take(&mut self.chunk).largest();
        self.proof.extend(encode(&largest));
    }
}

/// Compares a proof with the states that a checker finds.
#[derive(Debug)]
pub(crate) struct Comparison {
    chunk: Chunk,
    proof: Proof,
    distances: Vec<ChunkDistance>,
}

impl Comparison {
    /// Of a proof of so many tokens; `None` if it is none.
    pub(crate) fn new(proof: Proof, tokens: usize) -> Option<Self> {
        (proof.0.len() == bytes_of(tokens)).then(|| Self {
            chunk: Chunk::default(),
            proof,
            distances: Vec::new(),
        })
    }

    /// Begins from the first token again.
    pub(crate) fn begin_anew(&mut self) {
        self.chunk = Chunk::default();
        self.distances.clear();
    }

    /// Takes the state that the checker would draw one more token from.
    pub(crate) fn push(&mut self, state: &[bf16]) {
        self.chunk.push(state);
        if self.chunk.tokens == CHUNK {
            self.close();
        }
    }

    /// How far each chunk is from its proof.
    pub(crate) fn finish(mut self) -> Vec<ChunkDistance> {
        if self.chunk.tokens > 0 {
            self.close();
        }
        self.distances
    }

    fn close(&mut self) {
        let largest = std::mem::take(&mut self.chunk).largest();
        let start = self.distances.len() * CHUNK_BYTES;
        let said = self.proof.0.get(start..start + CHUNK_BYTES);
        self.distances.push(distance(&largest, said.unwrap_or(&[])));
    }
}

/// A number of a chunk: its place among all of the chunk's, and its bits.
type Entry = (u32, u16);

/// The largest numbers of the states of some tokens.
#[derive(Debug, Default)]
struct Chunk {
    tokens: usize,
    /// All that may be among the largest, and some that are not.
    entries: Vec<Entry>,
    /// What is not larger than this is not among them.
    floor: u16,
}

impl Chunk {
    fn push(&mut self, state: &[bf16]) {
        let first = (self.tokens * state.len()) as u32;
        for (place, number) in (first..).zip(state) {
            let bits = number.to_bits();
            if magnitude(bits) > self.floor || self.entries.len() < KEPT {
                self.entries.push((place, bits));
            }
            if self.entries.len() >= GATHERED {
                self.sort_out();
            }
        }
        self.tokens += 1;
    }

    /// Leaves the largest: of numbers as large as each other those that come first.
    fn sort_out(&mut self) {
        if self.entries.len() > KEPT {
            let by_rank = |&(place, bits): &Entry| (u16::MAX - magnitude(bits), place);
            self.entries.select_nth_unstable_by_key(KEPT - 1, by_rank);
            self.entries.truncate(KEPT);
            let least = self.entries.last().map(|&(_, bits)| magnitude(bits));
            self.floor = least.unwrap_or(0);
        }
    }

    /// The largest numbers, in the order of their places.
    fn largest(mut self) -> Vec<Entry> {
        self.sort_out();
        self.entries.sort_unstable();
        self.entries
    }
}

/// A number's bits without its sign: the larger, the larger its magnitude is.
const fn magnitude(bits: u16) -> u16 {
    bits & 0x7fff
}

/// The proof of a chunk.
fn encode(largest: &[Entry]) -> [u8; CHUNK_BYTES] {
    let mut bytes = [0; CHUNK_BYTES];
    let Some(modulus) = modulus_of(largest) else {
        return bytes; // fits nothing
    };
    let points = largest.iter().map(|&(place, bits)| {
        let place = place % u32::from(modulus);
        (place, u32::from(bits) % PRIME)
    });
    let polynomial = Polynomial::through(&points.collect::<Vec<_>>());
    let numbers = std::iter::once(modulus).chain(polynomial.coefficients());
    for (bytes, number) in bytes.chunks_exact_mut(2).zip(numbers) {
        bytes.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// A smaller modulus is none: places that fall together would be said by one number.
const LEAST_MODULUS: u16 = 1 << 15;

/// The greatest number up to the prime by which all places leave different remainders.
fn modulus_of(largest: &[Entry]) -> Option<u16> {
    let mut remainders = Vec::with_capacity(largest.len());
    (LEAST_MODULUS..=PRIME as u16).rev().find(|&modulus| {
        remainders.clear();
        let places = largest.iter().map(|(place, _)| place);
        remainders.extend(places.map(|place| place % u32::from(modulus)));
        remainders.sort_unstable();
        remainders.windows(2).all(|pair| pair[0] != pair[1])
    })
}

/// How far a checker's largest numbers are from what a proof says of them.
fn distance(largest: &[Entry], said: &[u8]) -> ChunkDistance {
    let (numbers, _) = said.as_chunks::<2>();
    let mut numbers = numbers.iter().map(|&number| u16::from_be_bytes(number));
    let modulus = numbers.next().unwrap_or(0);
    if modulus < LEAST_MODULUS {
        return far();
    }
    let polynomial = Polynomial::of(numbers);
    let mut mantissas: Vec<u16> = Vec::with_capacity(KEPT);
    for &(place, bits) in largest {
        let said = polynomial.at(place % u32::from(modulus));
        if said >> MANTISSA_BITS == u32::from(bits >> MANTISSA_BITS) {
            mantissas.push(mantissa(said as u16).abs_diff(mantissa(bits)));
        }
    }
    summarise(largest.len(), &mut mantissas)
}

/// What bf16 has after sign and exponent.
const MANTISSA_BITS: u32 = 7;

const fn mantissa(bits: u16) -> u16 {
    bits & ((1 << MANTISSA_BITS) - 1)
}

/// Of a proof that fits nothing.
const fn far() -> ChunkDistance {
    ChunkDistance {
        exponents: KEPT as u32,
        mantissa_mean: 0.0,
        mantissa_median: 0.0,
    }
}

/// Of so many numbers, those whose exponents are the same differ by these mantissas.
fn summarise(numbers: usize, mantissas: &mut [u16]) -> ChunkDistance {
    if mantissas.is_empty() {
        return far();
    }
    mantissas.sort_unstable();
    let (low, high) = ((mantissas.len() - 1) / 2, mantissas.len() / 2);
    let sum: f64 = mantissas.iter().copied().map(f64::from).sum();
    // A model so narrow that there are fewer numbers counts as if there were all.
    let others = (numbers - mantissas.len()) * KEPT / numbers;
    ChunkDistance {
        exponents: others as u32,
        mantissa_mean: sum / mantissas.len() as f64,
        mantissa_median: (f64::from(mantissas[low]) + f64::from(mantissas[high])) / 2.0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
