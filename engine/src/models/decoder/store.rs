//! Where keys and values lie: blocks of a fixed number of tokens, which the
//! scheduler hands to sequences, so that memory is bounded and a beginning that
//! sequences share is there once.

use tch::{Device, Kind, TchError, Tensor};

use super::Config;
use super::fixed::{Steps, finite};
use crate::models::Placement;

/// Tokens whose keys and values lie in one block.
pub(crate) const BLOCK_TOKENS: usize = 32;

/// The keys and values of all sequences.
#[derive(Debug)]
pub(crate) struct Store {
    /// For each layer, keys and values `[blocks, kv_heads, BLOCK_TOKENS,
    /// head_width]`, in the number format of activations.
    layers: Vec<[Tensor; 2]>,
    /// Decode steps in fixed shapes, on a GPU.
    pub(super) steps: Option<Steps>,
}

impl Store {
    pub(super) fn new(
        config: &Config,
        placement: Placement,
        blocks: usize,
    ) -> Result<Self, TchError> {
        let shape = [
            // One more, for the rows that fill up a step of a fixed shape.
            blocks as i64 + 1,
            config.kv_heads,
            BLOCK_TOKENS as i64,
            config.head_width,
        ];
        let options = (placement.kind, placement.device);
        // On the processor only what was written is read, and the system gives
        // pages when they are first written. On a GPU what was not is read too.
        let new = || match placement.device {
            Device::Cpu => Tensor::f_empty(shape, options),
            _ => Tensor::f_zeros(shape, options),
        };
        let layers = config.layers.iter().map(|_| Ok([new()?, new()?]));
        Ok(Self {
            layers: layers.collect::<Result<_, TchError>>()?,
            steps: Steps::on(placement.device, blocks),
        })
    }

    pub(super) fn layers(&mut self) -> &mut [[Tensor; 2]] {
        &mut self.layers
    }
}

/// What a block takes, all layers together, in bytes.
pub(super) fn bytes_per_block(config: &Config, kind: Kind) -> u64 {
    let numbers = config.layers.len() as i64 * 2 * config.kv_heads * config.head_width;
    numbers as u64 * BLOCK_TOKENS as u64 * kind.elt_size_in_bytes() as u64
}

/// The place of a sequence's token among all tokens of the store.
pub(super) fn slot(blocks: &[u32], position: usize) -> i64 {
    let block = i64::from(blocks[position / BLOCK_TOKENS]);
    block * BLOCK_TOKENS as i64 + (position % BLOCK_TOKENS) as i64
}

/// Puts keys or values `[tokens, kv_heads, head_width]` into their slots.
pub(super) fn put(cache: &Tensor, slots: &Tensor, new: &Tensor) -> Result<(), TchError> {
    let blocks = slots.f_floor_divide_scalar(BLOCK_TOKENS as i64)?;
    let inside = slots.f_remainder(BLOCK_TOKENS as i64)?;
    // A view with tokens before heads: indexing writes through it.
    let mut by_token = cache.f_transpose(1, 2)?;
    let place = [Some(blocks), Some(inside)];
    match cache.device() {
        Device::Cpu => by_token.f_index_put_(&place, new, false),
        _ => by_token.f_index_put_(&place, &finite(new)?, false),
    }
    .map(drop)
}

/// The keys or values of a sequence's first `tokens` tokens, as one piece
/// `[kv_heads, tokens, head_width]`.
pub(super) fn gather(cache: &Tensor, table: &Tensor, tokens: i64) -> Result<Tensor, TchError> {
    let (_, heads, _, width) = cache.size4()?;
    cache
        .f_index_select(0, table)?
        .f_transpose(0, 1)?
        .f_reshape([heads, -1, width])?
        .f_narrow(1, 0, tokens)
}
