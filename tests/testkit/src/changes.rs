//! That something changed. Who waits is woken in the order in which it began to wait, always: a `tokio::sync::watch` would
//! leave that to chance, and no history would come out twice the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Something that changes.
#[derive(Debug, Default, Clone)]
pub struct Changes(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    version: AtomicU64,
    waiting: Notify,
}

/// Who follows it.
#[derive(Debug)]
pub struct Follower {
    changes: Changes,
    seen: u64,
}

impl Changes {
    /// It changed.
    pub fn tell(&self) {
        self.0.version.fetch_add(1, Ordering::Relaxed);
        self.0.waiting.notify_waiters();
    }

    /// Follows what changes from now on.
    pub fn follow(&self) -> Follower {
        Follower { changes: self.clone(), seen: self.0.version.load(Ordering::Relaxed) }
    }
}

impl Follower {
    /// Waits until something changed that was not noticed yet.
    pub async fn changed(&mut self) {
        let inner = self.changes.0.clone();
        let mut told = std::pin::pin!(inner.waiting.notified());
        told.as_mut().enable();
        let version = inner.version.load(Ordering::Relaxed);
        if version == self.seen {
            told.await;
        }
        self.seen = inner.version.load(Ordering::Relaxed);
    }
}
