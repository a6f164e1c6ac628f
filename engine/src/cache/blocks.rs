//! Blocks: handed out, shared, found again, and given up.

use std::collections::HashMap;
use std::sync::Arc;

use infernet_protocol::inference::TokenId;

use super::Realm;
use super::idle::Idle;

/// A block's number: its place in the store.
pub(crate) type Block = u32;

/// A fixed number of blocks.
#[derive(Debug)]
pub(crate) struct Blocks {
    entries: Vec<Entry>,
    /// Blocks with nothing in them that anybody could want.
    free: Vec<Block>,
    /// Every block that is known, by what it holds.
    known: HashMap<Content, Block>,
    /// Known blocks without holder or successor.
    idle: Idle,
    /// Known blocks without holder, whatever comes after them.
    unheld: usize,
    /// Counts what happens, to tell older from newer.
    clock: u64,
}

/// One block.
#[derive(Debug, Default)]
struct Entry {
    holders: u32,
    /// What it holds, if it can be found.
    content: Option<Content>,
    /// Known blocks that come right after it.
    successors: u32,
    /// When it was held last.
    used: u64,
}

/// What a block holds: these tokens, after all those before them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Content {
    after: After,
    tokens: Arc<[TokenId]>,
}

/// What comes before a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum After {
    Nothing(Realm),
    Block(Block),
}

impl After {
    fn new(realm: Realm, before: Option<Block>) -> Self {
        before.map_or(Self::Nothing(realm), Self::Block)
    }
}

impl Blocks {
    /// So many blocks, all free.
    pub(crate) fn new(count: u32) -> Self {
        Self {
            entries: (0..count).map(|_| Entry::default()).collect(),
            // The lowest first: a store's later pages are not touched before they
            // are needed.
            free: (0..count).rev().collect(),
            known: HashMap::new(),
            idle: Idle::default(),
            unheld: 0,
            clock: 0,
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// How many can be taken: those that are free, and those that nobody holds.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + self.unheld
    }

    /// A block to write into, which is the caller's alone. What was used longest ago
    /// is given up for it, if need be; `None` if all are held.
    pub(crate) fn take(&mut self) -> Option<Block> {
        let block = match self.free.pop() {
            Some(block) => block,
            None => self.give_up()?,
        };
        self.entry(block).holders = 1;
        Some(block)
    }

    /// Holds the block with these tokens after the block `before`, which the caller
    /// holds, or at the beginning; `None` if there is none.
    pub(crate) fn find(
        &mut self,
        realm: Realm,
        before: Option<Block>,
        tokens: &[TokenId],
    ) -> Option<Block> {
        let content = Content {
            after: After::new(realm, before),
            tokens: tokens.into(),
        };
        let block = *self.known.get(&content)?;
        self.hold(block);
        Some(block)
    }

    /// Makes it known that these tokens are in `block`, after the known block
    /// `before` or at the beginning. The caller holds both and writes into the block
    /// no more. Answers the block to go on with: if there is one with the same in it
    /// already, that one is held instead.
    pub(crate) fn know(
        &mut self,
        block: Block,
        realm: Realm,
        before: Option<Block>,
        tokens: &[TokenId],
    ) -> Block {
        if let Some(same) = self.find(realm, before, tokens) {
            self.release(&[block]);
            return same;
        }
        let content = Content {
            after: After::new(realm, before),
            tokens: tokens.into(),
        };
        if let Some(before) = before {
            let before = self.entry(before);
            debug_assert!(before.content.is_some(), "what comes before is not known");
            before.successors += 1;
        }
        self.entry(block).content = Some(content.clone());
        self.known.insert(content, block);
        block
    }

    /// Lets go of blocks. Known ones stay until their room is needed.
    pub(crate) fn release(&mut self, blocks: &[Block]) {
        self.clock += 1;
        for &block in blocks {
            let now = self.clock;
            let entry = self.entry(block);
            debug_assert!(entry.holders > 0, "nobody holds block {block}");
            entry.holders -= 1;
            entry.used = now;
            let (is_held, is_known) = (entry.holders > 0, entry.content.is_some());
            match (is_held, is_known) {
                (true, _) => {}
                (false, false) => self.free.push(block),
                (false, true) => {
                    self.unheld += 1;
                    self.rest(block);
                }
            }
        }
    }

    fn hold(&mut self, block: Block) {
        let entry = self.entry(block);
        entry.holders += 1;
        if entry.holders == 1 {
            let used = entry.used;
            self.unheld -= 1;
            self.idle.remove(used, block);
        }
    }

    /// Lets a block be given up, if nothing rests on it.
    fn rest(&mut self, block: Block) {
        let entry = self.entry(block);
        if entry.holders == 0 && entry.successors == 0 {
            let used = entry.used;
            self.idle.insert(used, block);
        }
    }

    /// Forgets what was used longest ago; nobody holds its block.
    fn give_up(&mut self) -> Option<Block> {
        let block = self.idle.pop()?;
        self.unheld -= 1;
        if let Some(content) = self.entry(block).content.take() {
            self.known.remove(&content);
            if let After::Block(before) = content.after {
                self.entry(before).successors -= 1;
                self.rest(before);
            }
        }
        Some(block)
    }

    fn entry(&mut self, block: Block) -> &mut Entry {
        &mut self.entries[block as usize]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_beginning_is_found_again_in_its_realm_alone() {
        let mut blocks = Blocks::new(4);
        let first = blocks.take().unwrap();
        assert_eq!(blocks.know(first, 1, None, &[1, 2]), first);
        let second = blocks.take().unwrap();
        blocks.know(second, 1, Some(first), &[3, 4]);
        assert_eq!(blocks.find(1, None, &[1, 2]), Some(first));
        assert_eq!(blocks.find(1, Some(first), &[3, 4]), Some(second));
        assert_eq!(blocks.find(1, Some(first), &[3, 5]), None);
        assert_eq!(blocks.find(1, None, &[3, 4]), None, "not at the beginning");
        assert_eq!(blocks.find(2, None, &[1, 2]), None, "another's");
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_end_before_the_beginning() {
        let mut blocks = Blocks::new(3);
        let chain = chain(&mut blocks, &[1, 2]);
        blocks.release(&chain);
        let other = self::chain(&mut blocks, &[9]);
        blocks.release(&other);
        assert_eq!(blocks.available(), 3);
        assert_eq!(blocks.take(), Some(chain[1]));
        assert_eq!(blocks.find(0, None, &[1]), Some(chain[0]), "still there");
        assert_eq!(blocks.take(), Some(other[0]));
        assert_eq!(blocks.take(), None, "the rest is held");
    }

    #[test]
    fn two_that_compute_the_same_end_up_with_one() {
        let mut blocks = Blocks::new(2);
        let (mine, yours) = (blocks.take().unwrap(), blocks.take().unwrap());
        assert_eq!(blocks.know(mine, 0, None, &[5]), mine);
        assert_eq!(blocks.know(yours, 0, None, &[5]), mine);
        assert_eq!(blocks.available(), 1);
        blocks.release(&[mine]);
        assert_eq!(blocks.available(), 1, "the other still holds it");
        blocks.release(&[mine]);
        assert_eq!(blocks.available(), 2);
    }

    /// Takes and makes known one block for each token.
    fn chain(blocks: &mut Blocks, tokens: &[TokenId]) -> Vec<Block> {
        let mut chain: Vec<Block> = Vec::new();
        for token in tokens {
            let block = blocks.take().unwrap();
            chain.push(blocks.know(block, 0, chain.last().copied(), &[*token]));
        }
        chain
    }

    /// What a test's store has in a block.
    type Written = Option<(Realm, Vec<TokenId>)>;

    /// One that holds blocks: a token in each.
    #[derive(Debug)]
    struct Holder {
        realm: Realm,
        tokens: Vec<TokenId>,
        blocks: Vec<Block>,
    }

    impl Holder {
        /// Finds the next token's block or computes it; `false` without room.
        fn advance(&mut self, blocks: &mut Blocks, store: &mut [Written], token: TokenId) -> bool {
            let before = self.blocks.last().copied();
            self.tokens.push(token);
            let whole = Some((self.realm, self.tokens.clone()));
            if let Some(found) = blocks.find(self.realm, before, &[token]) {
                assert_eq!(
                    store[found as usize], whole,
                    "what is found is what was put"
                );
                self.blocks.push(found);
                return true;
            }
            let Some(block) = blocks.take() else {
                self.tokens.pop();
                return false;
            };
            assert_eq!(blocks.entries[block as usize].holders, 1, "in one hand");
            store[block as usize] = whole;
            self.blocks
                .push(blocks.know(block, self.realm, before, &[token]));
            true
        }
    }

    proptest! {
        /// Whatever holders do, nobody's blocks change under it, nothing leaks, and
        /// there is room exactly when a block is not held.
        #[test]
        fn blocks_are_what_their_holders_think(
            count in 1u32..12,
            deeds in prop::collection::vec((0usize..6, 0u64..2, 0u32..3, 0u8..8), 1..300),
        ) {
            let mut blocks = Blocks::new(count);
            let mut store: Vec<Written> = vec![None; count as usize];
            let mut holders: Vec<Option<Holder>> = (0..6).map(|_| None).collect();
            for (who, realm, token, deed) in deeds {
                match (&mut holders[who], deed) {
                    (Some(holder), 0) => {
                        blocks.release(&holder.blocks);
                        holders[who] = None;
                    }
                    (Some(holder), _) => {
                        let room = blocks.available() > 0;
                        let advanced = holder.advance(&mut blocks, &mut store, token);
                        prop_assert!(advanced || !room);
                    }
                    (empty, _) => {
                        *empty = Some(Holder { realm, tokens: vec![], blocks: vec![] });
                    }
                }
                let mut held: Vec<Block> = Vec::new();
                for holder in holders.iter().flatten() {
                    for (at, &block) in holder.blocks.iter().enumerate() {
                        let expected = Some((holder.realm, holder.tokens[..=at].to_vec()));
                        prop_assert_eq!(&store[block as usize], &expected);
                        held.push(block);
                    }
                }
                let references: u32 = blocks.entries.iter().map(|e| e.holders).sum();
                prop_assert_eq!(references as usize, held.len());
                held.sort_unstable();
                held.dedup();
                prop_assert_eq!(blocks.available(), count as usize - held.len());
            }
            for holder in holders.iter().flatten() {
                blocks.release(&holder.blocks);
            }
            prop_assert_eq!(blocks.available(), count as usize);
            let all = std::iter::from_fn(|| blocks.take()).count();
            prop_assert_eq!(all, count as usize);
        }
    }
}
