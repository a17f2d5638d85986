//! What can be seen of the controller from outside.

mod measured;
mod metrics;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use measured::Measured;
pub use metrics::{Metrics, SetGauges, SetLabels, StartPhase};

/// What these locks guard is whole after every single write, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
