//! What can be seen of the controller from outside: metrics, health and logs, and the server that shows the first two.

mod connections;
mod health;
mod instrumented;
mod logs;
mod metrics;
mod server;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use health::{Health, Stalled};
pub use instrumented::Instrumented;
pub use logs::{LogError, LogFormat, init};
pub use metrics::{Metrics, SetGauges, SetLabels, StartPhase};
pub use server::{Ports, serve};

/// What these locks guard is whole after every single write, so a panic elsewhere leaves it usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
