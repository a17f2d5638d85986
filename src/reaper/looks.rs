//! Patience: what was seen, how often, and since when.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::time::Plus;
use jiff::Timestamp;

/// Counts in how many looks in a row each thing was seen.
#[derive(Debug)]
pub(super) struct Looks<K> {
    least: u32,
    age: Duration,
    seen: HashMap<K, (Timestamp, u32)>,
}

impl<K: Clone + Eq + Hash> Looks<K> {
    /// Believes what was seen in `least` looks in a row, the first of them `age` ago.
    pub fn new(least: u32, age: Duration) -> Looks<K> {
        Looks { least, age, seen: HashMap::new() }
    }

    /// One look at all that is there now; answers what is to be believed. What is not there is forgotten.
    pub fn look(&mut self, there: impl IntoIterator<Item = K>, now: Timestamp) -> Vec<K> {
        let mut seen = HashMap::new();
        for key in there {
            let (first, looks) = self.seen.get(&key).copied().unwrap_or((now, 0));
            seen.insert(key, (first, looks + 1));
        }
        self.seen = seen;
        let ripe = |(first, looks): &(Timestamp, u32)| *looks >= self.least && first.plus(self.age) <= now;
        self.seen.iter().filter(|(_, counts)| ripe(counts)).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_thing_is_believed_after_enough_looks_and_time_without_a_gap() {
        let mut looks = Looks::new(2, Duration::from_secs(600));
        assert!(looks.look(["a"], at(0)).is_empty());
        assert!(looks.look(["a", "b"], at(599)).is_empty(), "too young");
        assert_eq!(looks.look(["a", "b"], at(600)), ["a"]);
        assert!(looks.look(["b"], at(700)).is_empty());
        assert!(looks.look(["a"], at(1400)).is_empty(), "it was away in between");
    }

    #[test]
    fn age_alone_is_not_enough() {
        let mut looks = Looks::new(2, Duration::from_secs(600));
        assert!(looks.look(["a"], at(0)).is_empty());
        looks.look([], at(300));
        assert!(looks.look(["a"], at(900)).is_empty());
    }
}
