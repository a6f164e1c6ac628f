//! What a decoder's weights take.

use super::Config;
use crate::linear::Packing;
use crate::models::Placement;

/// The memory that the weights take, in bytes, but for norms and biases, which are
/// next to nothing.
pub(super) fn bytes(config: &Config, placement: Placement) -> u64 {
    let heads = config.heads * config.head_width;
    let both = 2 * config.kv_heads * config.head_width;
    let attention = config.width * (2 * heads + both);
    let feed_forward = 3 * config.width * config.feed_forward;
    let layers = config.layers.len() as u64 * (attention + feed_forward) as u64;
    let tables = if config.tied { 1 } else { 2 };
    let tables = tables * (config.vocabulary * config.width) as u64;
    let plain = 8 * placement.kind.elt_size_in_bytes() as u64;
    let (bits, bits_of_tables) = match placement.packing {
        Packing::None => (plain, plain),
        Packing::Int8 => (8, 8),
        // And a scale and a zero of 16 bits for each 32 weights.
        Packing::Int4 => (5, 8),
    };
    // In another order it could overflow.
    layers / 8 * bits + tables / 8 * bits_of_tables
}
