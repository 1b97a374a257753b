//! A bounded memory that forgets the older half when it is full.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: when the young one is full it becomes the old one, and what was old is forgotten.
#[derive(Debug)]
pub(crate) struct Known<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Known<K, V> {
    /// A memory of at least `generation` and at most twice as many things.
    pub(crate) fn new(generation: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let old = self.old.remove(key);
        self.young.remove(key).or(old)
    }

    pub(crate) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_used_stays() {
        let mut known = Known::new(4);
        known.insert(0, 'x');
        for i in 1..100 {
            known.insert(i, 'y');
            assert_eq!(known.get(&0), Some('x'));
        }
        assert_eq!((known.get(&1), known.remove(&0), known.get(&0)), (None, Some('x'), None));
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_two_generations(keys in proptest::collection::vec(0u8..50, 0..200)) {
            let mut known = Known::new(8);
            for key in keys {
                known.insert(key, ());
                prop_assert_eq!(known.get(&key), Some(()));
                prop_assert!(known.len() <= 16);
            }
        }
    }
}
