//! Blocks that are known and that nobody holds, from the one to give up first.

use std::collections::BTreeSet;

use super::Block;

/// Blocks in the order in which they became idle.
#[derive(Debug, Default)]
pub(super) struct Idle {
    order: BTreeSet<(u64, Block)>,
}

impl Idle {
    /// A block that was used last at `time`.
    pub(super) fn insert(&mut self, time: u64, block: Block) {
        self.order.insert((time, block));
    }

    pub(super) fn remove(&mut self, time: u64, block: Block) {
        self.order.remove(&(time, block));
    }

    /// The one that was used longest ago.
    pub(super) fn pop(&mut self) -> Option<Block> {
        self.order.pop_first().map(|(_, block)| block)
    }
}
