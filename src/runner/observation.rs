//! What a host showed of a scale set.

use jiff::Timestamp;

use super::Instance;

/// The instances of the scale set on one host of one backend.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// When the host last answered a whole listing; none when what is shown is not current, so that absence means nothing.
    pub listed_at: Option<Timestamp>,
    /// The instances.
    pub instances: Vec<Instance>,
}
