//! How large the cache of keys and values is.

use crate::models::decoder::BLOCK_TOKENS;

/// The share of the free memory that a cache takes if nobody says how much: the rest
/// is for what is computed, for other models, and for the neighbours.
const SHARE_OF_FREE_MEMORY: u64 = 2;

/// Who sells a model with less context than this sells nothing of use.
const LEAST_TOKENS: usize = 512;

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

/// A cache that does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Scarce {
    #[error(
        "a cache of {asked} MiB for keys and values does not fit: {free} MiB are free; ask for \
         less (--kv-cache)"
    )]
    Asked { asked: u64, free: u64 },
    #[error(
        "{free} MiB are free, which leaves no room for keys and values ({needed} MiB at least); \
         take a smaller model or number format (--dtype), or say how much to use (--kv-cache)"
    )]
    Free { needed: u64, free: u64 },
}

/// How many blocks there are to be: as many as `asked` bytes hold; else what all slots
/// can fill, within a share of the free memory. At least one.
///
/// # Errors
/// When there is not so much memory, as far as can be told.
pub(crate) fn blocks(needs: Needs, asked: Option<u64>, free: Option<u64>) -> Result<u32, Scarce> {
    let holds = |bytes: u64| bytes / needs.block_bytes.max(1);
    let known = free;
    let free = free.unwrap_or(ASSUMED_FREE_BYTES);
    let blocks = match asked {
        Some(asked) if known.is_some() && asked > free => {
            let (asked, free) = (asked >> 20, free >> 20);
            return Err(Scarce::Asked { asked, free });
        }
        Some(bytes) => holds(bytes),
        None => {
            let least = needs.context.min(LEAST_TOKENS).div_ceil(BLOCK_TOKENS) as u64;
            let each = needs.context.div_ceil(BLOCK_TOKENS) as u64;
            let within = holds(free / SHARE_OF_FREE_MEMORY);
            if within < least {
                let needed = (least * needs.block_bytes * SHARE_OF_FREE_MEMORY) >> 20;
                let free = free >> 20;
                return Err(Scarce::Free { needed, free });
            }
            (each * needs.slots as u64).min(within)
        }
    };
    Ok(u32::try_from(blocks.max(1)).unwrap_or(u32::MAX))
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
        assert_eq!(blocks(NEEDS, Some(7_999), Some(8_000)), Ok(7));
        assert_eq!(blocks(NEEDS, Some(7_999), None), Ok(7));
        assert_eq!(blocks(NEEDS, Some(0), None), Ok(1));
        assert_eq!(blocks(NEEDS, None, Some(1 << 30)), Ok(16));
        assert_eq!(blocks(NEEDS, None, Some(20_000)), Ok(10));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let asked = blocks(NEEDS, Some(3 << 20), Some(2 << 20));
        assert_eq!(asked, Err(Scarce::Asked { asked: 3, free: 2 }));
        let large = Needs {
            context: 100_000,
            block_bytes: 1 << 20,
            ..NEEDS
        };
        let free = blocks(large, None, Some(10 << 20));
        let expected = Scarce::Free {
            needed: 32,
            free: 10,
        };
        assert_eq!(free, Err(expected));
    }
}
