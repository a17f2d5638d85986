//! Turns: what a thousand scale sets want at once, as when a controller begins, is done for some of them at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many turns are had at a time.
const AT_A_TIME: usize = 16;

/// The turns at one thing.
#[derive(Debug, Clone)]
pub(super) struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Turns {
        Turns(Arc::new(Semaphore::new(AT_A_TIME)))
    }
}

impl Turns {
    /// Waits for a turn, and has it until what is returned is dropped. None only if turns were closed, which nobody does.
    pub async fn wait(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok()
    }
}
