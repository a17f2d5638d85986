//! The types and reasons of the conditions in a set's status: part of the API, so each is spelt once, here.

/// Registered at GitHub and listening, with the current generation applied. It does not move with load.
pub const READY: &str = "Ready";
/// The latest spec is not wholly applied yet (kstatus). Scaling with demand is not this.
pub const RECONCILING: &str = "Reconciling";
/// Nothing goes on without a change by a person (kstatus); reason and message say which.
pub const STALLED: &str = "Stalled";
/// The scale set exists at GitHub under this name, group and labels.
pub const REGISTERED: &str = "Registered";
/// The message session is open and the last poll is recent.
pub const LISTENING: &str = "Listening";
/// No assigned job waits for a runner that could not be placed.
pub const DEMAND_MET: &str = "DemandMet";

/// Why a condition is as it is.
pub mod reason {
    /// All is as the condition's type says.
    pub const AS_EXPECTED: &str = "AsExpected";
    /// A new generation of the spec is being applied.
    pub const PROGRESSING: &str = "Progressing";
    /// The object is being deleted; busy runners finish first.
    pub const DRAINING: &str = "Draining";

    /// The spec names a backend that this version does not have.
    pub const BACKEND_NOT_AVAILABLE: &str = "BackendNotAvailable";
    /// A backend refuses the spec as it is; a change is needed.
    pub const BACKEND_REFUSED: &str = "BackendRefused";
    /// A cron line, a time zone or a window's bounds make no sense.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// The object cannot be read: it is of another version of the CRD. An event's, for no status can be written.
    pub const UNREADABLE: &str = "Unreadable";
    /// The spec is wrong in a way that the schema cannot judge.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// A Secret or one of its keys is not there.
    pub const SECRET_MISSING: &str = "SecretMissing";
    /// A Secret holds something that cannot be used, such as a key that does not parse.
    pub const SECRET_INVALID: &str = "SecretInvalid";
    /// The ConfigMap or Secret of the CA bundle, or its key, is not there.
    pub const CA_BUNDLE_MISSING: &str = "CaBundleMissing";

    /// GitHub refuses the credentials.
    pub const AUTH_REJECTED: &str = "AuthRejected";
    /// GitHub takes the credentials but they may not do this.
    pub const FORBIDDEN: &str = "Forbidden";
    /// The runner group does not exist.
    pub const GROUP_NOT_FOUND: &str = "GroupNotFound";
    /// Another scale set has the name.
    pub const NAME_TAKEN: &str = "NameTaken";
    /// GitHub keeps fewer labels than the spec asks for.
    pub const LABELS_DROPPED: &str = "LabelsDropped";
    /// GitHub no longer knows the scale set; it is made anew.
    pub const SCALE_SET_GONE: &str = "ScaleSetGone";
    /// Not registered yet.
    pub const NOT_REGISTERED: &str = "NotRegistered";

    /// Another session holds the scale set; it is waited out.
    pub const SESSION_CONFLICT: &str = "SessionConflict";
    /// The session was lost and is opened again.
    pub const SESSION_LOST: &str = "SessionLost";
    /// GitHub asks to slow down.
    pub const RATE_LIMITED: &str = "RateLimited";
    /// GitHub does not answer.
    pub const UNREACHABLE: &str = "Unreachable";
    /// GitHub answers something that cannot be understood.
    pub const BAD_REPLY: &str = "BadReply";
    /// No message session is open yet.
    pub const NOT_LISTENING: &str = "NotListening";

    /// No host or backend has a free slot.
    pub const NO_CAPACITY: &str = "NoCapacity";
    /// The set is at `maxRunners`.
    pub const AT_MAX_RUNNERS: &str = "AtMaxRunners";
    /// Jobs are assigned that idle runners do not take.
    pub const PHANTOM_DEMAND: &str = "PhantomDemand";
    /// A runner was recycled: it was idle for minutes, and no job that waited came to it.
    pub const NEVER_CONNECTED: &str = "NeverConnected";
    /// Runners fail to start again and again.
    pub const START_FAILURES: &str = "StartFailures";
    /// The image is being pulled.
    pub const IMAGE_PULLING: &str = "ImagePulling";
    /// The image is not there, and is not to be pulled.
    pub const IMAGE_MISSING: &str = "ImageMissing";
    /// The image cannot be pulled.
    pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
    /// The Docker network does not exist on the host.
    pub const NETWORK_MISSING: &str = "NetworkMissing";
    /// The engine failed: its disk is full, for one.
    pub const ENGINE_ERROR: &str = "EngineError";
    /// A host runs as many virtual machines as it may: someone else's are among them.
    pub const HOST_FULL: &str = "HostFull";
    /// A host's disk is full.
    pub const DISK_FULL: &str = "DiskFull";
    /// Tart failed.
    pub const TART_ERROR: &str = "TartError";
    /// The guest agent of a virtual machine does not answer.
    pub const GUEST_AGENT_SILENT: &str = "GuestAgentSilent";
    /// A host does not answer.
    pub const HOST_UNREACHABLE: &str = "HostUnreachable";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// The controller has just started: the hosts have not shown yet what runs on them.
    pub const STARTING: &str = "Starting";
    /// GitHub has not told the demand yet.
    pub const NO_READING: &str = "NoReading";

    /// A runner was not up within `timeouts.start`.
    pub const START_TIMEOUT: &str = "StartTimeout";
    /// A runner was stopped at `timeouts.job`.
    pub const JOB_TIMEOUT: &str = "JobTimeout";
    /// A runner's name is taken at GitHub.
    pub const RUNNER_EXISTS: &str = "RunnerExists";
    /// A runner ended without having had a job.
    pub const ENDED_WITHOUT_JOB: &str = "EndedWithoutJob";
    /// Something stopped a runner from outside before it had a job.
    pub const KILLED: &str = "Killed";
    /// A runner ran out of memory.
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// A runner's instance vanished before it had a job.
    pub const VANISHED: &str = "Vanished";
    /// A runner's instance ended while its job ran.
    pub const JOB_LOST: &str = "JobLost";
    /// GitHub refuses the runner's version; a newer image is needed.
    pub const RUNNER_VERSION_REJECTED: &str = "RunnerVersionRejected";
}
