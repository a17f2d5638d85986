//! What is left to chance: names, and waits that are not to fall together. One source per thread, so that a simulation
//! that plants its seed can be run again.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

thread_local! {
    static SOURCE: RefCell<StdRng> = RefCell::new(rand::make_rng());
}

/// From now on chance on this thread follows from a seed.
pub fn plant(seed: u64) {
    SOURCE.with_borrow_mut(|source| *source = StdRng::seed_from_u64(seed));
}

/// A number below `end`, which is above 0.
pub(crate) fn below(end: usize) -> usize {
    SOURCE.with_borrow_mut(|source| source.random_range(0..end))
}

/// A share: from 0 up to 1.
pub(crate) fn share() -> f64 {
    SOURCE.with_borrow_mut(|source| source.random())
}

/// A seed for a source of its own.
pub(crate) fn seed() -> u64 {
    SOURCE.with_borrow_mut(|source| source.random())
}
