//! Random numbers: names, and waits that are not to fall together. One source per thread, so that a simulation
//! that plants its seed can be run again.

use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

thread_local! {
    static SOURCE: RefCell<StdRng> = RefCell::new(rand::make_rng());
}

/// Makes this thread's random numbers follow from a seed.
pub fn seed(seed: u64) {
    SOURCE.with_borrow_mut(|source| *source = StdRng::seed_from_u64(seed));
}

/// Returns a random number below `end`, which is above 0.
pub(crate) fn below(end: usize) -> usize {
    SOURCE.with_borrow_mut(|source| source.random_range(0..end))
}

/// Returns a random number from 0 up to 1.
pub(crate) fn unit() -> f64 {
    SOURCE.with_borrow_mut(|source| source.random())
}

/// Returns a seed for a source of its own.
pub(crate) fn fresh_seed() -> u64 {
    SOURCE.with_borrow_mut(|source| source.random())
}
