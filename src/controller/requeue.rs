//! When an object is to be reconciled again.

use std::time::Duration;

/// When an object is to be reconciled again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requeue {
    /// After this, or when it changes.
    After(Duration),
    /// When it changes.
    OnChange,
}
