use std::collections::HashMap;
use std::hash::Hash;

use davy_model::ProcessKey;

/// Entries of one generation; two are kept.
const GENERATION: usize = 32 * 1024;

/// Whose a flow is, and who listens where: the kernel tells it once, when it begins.
#[derive(Default)]
pub(super) struct Owners {
    pub(super) flows: Generations<u64>,
    /// By network namespace (zero where unknown), whether UDP, and port.
    pub(super) listeners: Generations<(u32, bool, u16)>,
}

/// A bounded table that forgets what was not asked for since it last filled up.
pub(super) struct Generations<K> {
    young: HashMap<K, ProcessKey>,
    old: HashMap<K, ProcessKey>,
}

impl<K> Default for Generations<K> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash + Copy> Generations<K> {
    pub(super) fn insert(&mut self, key: K, owner: ProcessKey) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, owner);
    }

    pub(super) fn get(&mut self, key: K) -> Option<ProcessKey> {
        if let Some(owner) = self.young.get(&key) {
            return Some(*owner);
        }
        let owner = self.old.remove(&key)?;
        self.insert(key, owner);
        Some(owner)
    }

    pub(super) fn remove(&mut self, key: K) -> Option<ProcessKey> {
        self.young.remove(&key).or_else(|| self.old.remove(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pid: u32) -> ProcessKey {
        ProcessKey { pid, start_ticks: 0, boot: 0 }
    }

    #[test]
    fn what_is_asked_for_is_kept_and_the_rest_is_bounded() {
        let mut table = Generations::default();
        table.insert(0u64, owner(1));
        for key in 1..200_000 {
            table.insert(key, owner(2));
            if key % 1000 == 0 {
                assert_eq!(table.get(0), Some(owner(1)));
            }
        }
        assert!(table.young.len() + table.old.len() <= 2 * GENERATION + 1);
        assert_eq!(table.get(1), None);
        assert_eq!(table.remove(0), Some(owner(1)));
        assert_eq!(table.get(0), None);
    }
}
