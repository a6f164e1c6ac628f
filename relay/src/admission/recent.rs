//! A table that remembers the latest.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// A map that holds a bounded number of entries and forgets those which were not changed for the longest time. It
/// holds two generations: when the younger one has grown to half the bound, the older one goes.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// A table of at most so many entries, of which it remembers at least the latest half.
    pub fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (most / 2).max(1),
        }
    }

    /// What is remembered. Asking does not make it younger.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// Remembers `value`, and forgets what was remembered of `key` before.
    pub fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// How many entries are remembered.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

impl<K: Eq + Hash, V: Copy + Default> Recent<K, V> {
    /// What is remembered, or else the default.
    pub fn value(&self, key: &K) -> V {
        self.get(key).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_and_the_number_is_bounded() {
        let mut table = Recent::new(1_000);
        for key in 0..1_000_000_u32 {
            table.insert(key, key);
            table.insert(7, 7);
            assert!(table.len() <= 1_000);
        }
        assert_eq!(table.get(&7), Some(&7), "it was changed again and again");
        assert_eq!(table.get(&8), None);
        for key in 999_502..1_000_000 {
            assert_eq!(table.get(&key), Some(&key));
        }
    }

    #[test]
    fn an_entry_has_one_value() {
        let mut table = Recent::new(4);
        for (key, value) in [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)] {
            table.insert(key, value);
        }
        assert_eq!(
            (table.value(&1), table.value(&2), table.value(&3)),
            (2, 2, 1)
        );
        assert_eq!(table.len(), 3);
    }
}
