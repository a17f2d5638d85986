//! A set that remembers only the last so many values, by their hashes: what it holds costs the same whatever they are.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};

/// The last `capacity` values inserted. Of two values with one hash (64 bits, seeded) the second would be taken for the first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    capacity: usize,
    hasher: RandomState,
    hashes: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Recent {
    pub(super) fn new(capacity: usize) -> Recent {
        Recent { capacity, ..Recent::default() }
    }

    /// Inserts a value; answers whether it is new.
    pub(super) fn insert(&mut self, value: impl Hash) -> bool {
        let hash = self.hasher.hash_one(value);
        if !self.hashes.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.hashes.remove(&oldest);
        }
        true
    }

    pub(super) fn contains(&self, value: impl Hash) -> bool {
        self.hashes.contains(&self.hasher.hash_one(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_until_as_many_others_came_after_it() {
        let mut recent = Recent::new(2);
        assert!(recent.insert(("a", true)) && recent.insert(("a", false)));
        assert!(!recent.insert(("a", true)), "a repeat is no news");
        assert!(recent.insert(("b", true)));
        assert!(
            !recent.contains(("a", true)) && recent.contains(("a", false)) && recent.contains(("b", true))
        );
    }
}
