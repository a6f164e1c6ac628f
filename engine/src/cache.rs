//! The cache of keys and values, as far as it can be thought of without tensors:
//! blocks of so many tokens each, who holds which, and what is in them.
//!
//! A sequence holds one block for every [`BLOCK_TOKENS`](crate::models::decoder::BLOCK_TOKENS)
//! of its tokens. A block that is full is *known* by what it holds and by the block
//! before it, so that whoever begins with the same tokens holds the same blocks
//! instead of computing them again: a system prompt, the earlier turns of a chat.
//! Known blocks that nobody holds stay until their room is needed, and then go in
//! the order in which they were used last.
//!
//! **Invariant:** what is found is what was put. A block is looked up by its tokens
//! themselves and the block before it, not by a hash of them, and no block leaves
//! before those behind it.
//!
//! **Invariant:** what one [`Realm`] has put is found in no other. Whether a prompt is
//! answered sooner tells whether its beginning was seen before; between customers who
//! do not trust each other that would be a leak.

mod blocks;
mod idle;

pub(crate) use blocks::{Block, Blocks};

/// Within which prefixes are shared. One for each customer, or one for all.
pub(crate) type Realm = u64;
