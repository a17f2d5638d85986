//! A set that remembers only the last so many.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

/// The last `capacity` values inserted.
#[derive(Debug)]
pub(super) struct Recent<T> {
    capacity: usize,
    values: HashSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Recent<T> {
    fn default() -> Self {
        Recent { capacity: 0, values: HashSet::new(), order: VecDeque::new() }
    }
}

impl<T: Clone + Eq + Hash> Recent<T> {
    pub(super) fn new(capacity: usize) -> Recent<T> {
        Recent { capacity, values: HashSet::new(), order: VecDeque::new() }
    }

    /// Inserts a value; answers whether it is new.
    pub(super) fn insert(&mut self, value: T) -> bool {
        if !self.values.insert(value.clone()) {
            return false;
        }
        self.order.push_back(value);
        if self.order.len() > self.capacity
            && let Some(oldest) = self.order.pop_front()
        {
            self.values.remove(&oldest);
        }
        true
    }

    pub(super) fn contains(&self, value: &T) -> bool {
        self.values.contains(value)
    }
}
