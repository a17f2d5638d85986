//! What a status tells of a runner.

use jiff::Timestamp;

use super::{Job, Phase};

/// What an earlier controller wrote down of a runner.
#[derive(Debug, Clone)]
pub struct PersistedRunner {
    /// Its name.
    pub name: String,
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// The backend's id of its instance, if it had one.
    pub instance_id: Option<String>,
    /// The phase it had.
    pub phase: Phase,
    /// Since when.
    pub since: Timestamp,
    /// The job it had.
    pub job: Option<Job>,
}
