//! What a decoder's weights take.

use super::Config;
use crate::linear::Packing;
use crate::models::{self, Placement, wide};

/// The memory that the weights take, in bytes, but for norms and biases, which are
/// next to nothing.
pub(super) fn bytes(config: &Config, placement: Placement) -> u64 {
    let (width, head_width) = (wide(config.width), wide(config.head_width));
    let attention = 2 * (wide(config.heads) + wide(config.kv_heads)) * head_width;
    let layer = width * (attention + 3 * wide(config.feed_forward));
    let layers = config.layers.len() as u128 * layer;
    let tables = if config.tied { 1 } else { 2 };
    let tables = tables * wide(config.vocabulary) * width;
    let bits_of_tables = match placement.packing {
        Packing::None => placement.bits(),
        Packing::Int8 | Packing::Int4 => 8,
    };
    models::bytes(layers * placement.bits_of_weights() + tables * bits_of_tables)
}
