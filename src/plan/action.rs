//! What a decision may want done.

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a host ready for starts.
    Prepare {
        /// The backend.
        backend: String,
        /// The host.
        host: String,
    },
    /// Start a runner.
    Start {
        /// The backend.
        backend: String,
        /// The host.
        host: String,
    },
    /// Deregister a runner, then stop it.
    Remove {
        /// The runner.
        runner: String,
        /// Why.
        why: Removal,
    },
    /// Clear away what is left of a runner that ended.
    Collect {
        /// The runner.
        runner: String,
    },
}

/// Why a runner is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Removal {
    /// There has been no demand for it for `scaleDown.delay`.
    Surplus,
    /// Its template is not the current one.
    Outdated,
    /// `timeouts.idle`
    IdleTimeout,
    /// `timeouts.lifetime`
    Lifetime,
    /// `timeouts.start`
    StartTimeout,
    /// A controller that is no more made it and did not come to start it.
    NeverStarted,
    /// `timeouts.job`: even though a job runs.
    JobTimeout,
    /// GitHub said long ago that its job was over, and it is still there.
    LingeringAfterJob,
    /// GitHub does not know it any more, so that no job can come to it: its instance could not be removed yet.
    Unregistered,
    /// The spec does not name its host any more.
    HostRemoved,
    /// Its host has not answered for minutes: it is not counted on any more.
    HostLost,
    /// Jobs waited for minutes while it was idle: it seems never to have reached GitHub.
    NeverConnected,
    /// The set is suspended.
    Suspended,
    /// The operator's policy does not permit the spec.
    NotPermitted,
    /// The object is being deleted.
    Deleted,
    /// The object is being deleted and the drain is over: even though a job runs.
    DrainExpired,
}

impl Removal {
    /// Whether it takes a busy runner too, whatever GitHub says.
    pub fn forced(self) -> bool {
        matches!(self, Removal::JobTimeout | Removal::DrainExpired)
    }

    /// As events and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Removal::Surplus => "Surplus",
            Removal::Outdated => "Outdated",
            Removal::IdleTimeout => "IdleTimeout",
            Removal::Lifetime => "Lifetime",
            Removal::StartTimeout => "StartTimeout",
            Removal::NeverStarted => "NeverStarted",
            Removal::JobTimeout => "JobTimeout",
            Removal::LingeringAfterJob => "LingeringAfterJob",
            Removal::Unregistered => "Unregistered",
            Removal::HostRemoved => "HostRemoved",
            Removal::HostLost => "HostLost",
            Removal::NeverConnected => "NeverConnected",
            Removal::Suspended => "Suspended",
            Removal::NotPermitted => "NotPermitted",
            Removal::Deleted => "Deleted",
            Removal::DrainExpired => "DrainExpired",
        }
    }
}
