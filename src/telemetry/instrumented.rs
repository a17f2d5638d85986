//! A seam, measured: each call that is passed on is counted and timed.

mod backend;
mod service;

use std::fmt;
use std::sync::Arc;

use super::Metrics;

/// Counts and times each call of what it wraps. A call that its caller gave up is not counted.
pub struct Instrumented<T: ?Sized> {
    inner: Arc<T>,
    metrics: Metrics,
}

impl<T: ?Sized> Instrumented<T> {
    /// Measures `inner` in `metrics`.
    pub fn new(inner: Arc<T>, metrics: Metrics) -> Instrumented<T> {
        Instrumented { inner, metrics }
    }
}

impl<T: ?Sized> fmt::Debug for Instrumented<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instrumented").finish_non_exhaustive()
    }
}
