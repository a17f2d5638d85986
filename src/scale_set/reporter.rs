//! How a scale set at work reaches the object that declares it.

use async_trait::async_trait;

use super::event::Event;
use super::handle::ScaleSetHandle;

/// Tells of scale sets where their objects are kept. Failures are its own to log: nothing waits for them.
#[async_trait]
pub trait Reporter: Send + Sync {
    /// Publishes an event about a scale set. It returns at once.
    fn publish(&self, set: &ScaleSetHandle, event: Event);

    /// Writes down, before anything else happens, that a message session was opened or closed; and first, which scale set
    /// at GitHub is the object's own: a session that is written down without that would be closed by nobody.
    async fn session_changed(&self, set: &ScaleSetHandle);
}
