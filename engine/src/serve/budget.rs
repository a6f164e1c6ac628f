//! How large the cache of keys and values is.

use crate::models::decoder::BLOCK_TOKENS;

/// The share of the free memory that a cache takes if nobody says how much: the rest
/// is for what is computed, for other models, and for the neighbours.
const SHARE_OF_FREE_MEMORY: u64 = 2;

/// How much memory is assumed where the system does not tell.
const ASSUMED_FREE_BYTES: u64 = 2 << 30;

/// What the size of a cache depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    /// Requests in one batch.
    pub(crate) slots: usize,
    /// The model's context, in tokens.
    pub(crate) context: usize,
    /// What one block takes, in bytes.
    pub(crate) block_bytes: u64,
}

/// How many blocks there are to be: as many as `asked` bytes hold; else what all slots
/// can fill, within a share of the free memory. At least one.
pub(crate) fn blocks(needs: Needs, asked: Option<u64>, free: Option<u64>) -> u32 {
    let holds = |bytes: u64| bytes / needs.block_bytes.max(1);
    let blocks = match asked {
        Some(bytes) => holds(bytes),
        None => {
            let each = needs.context.div_ceil(BLOCK_TOKENS) as u64;
            let free = free.unwrap_or(ASSUMED_FREE_BYTES);
            (each * needs.slots as u64).min(holds(free / SHARE_OF_FREE_MEMORY))
        }
    };
    u32::try_from(blocks.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs {
        slots: 4,
        context: 100,
        block_bytes: 1_000,
    };

    #[test]
    fn it_holds_what_was_asked_for_else_all_slots_else_what_fits() {
        assert_eq!(blocks(NEEDS, Some(7_999), Some(1)), 7);
        assert_eq!(blocks(NEEDS, None, Some(1 << 30)), 16);
        assert_eq!(blocks(NEEDS, None, Some(20_000)), 10);
        assert_eq!(blocks(NEEDS, Some(0), None), 1);
    }
}
