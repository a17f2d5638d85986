//! The types of the conditions in a set's status, and the reasons of conditions, events and failures: part of the API, so
//! each is spelt once, here.

use std::fmt;

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

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a condition is as it is, or why something happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The word, CamelCase, as the API has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Reason::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// All is as the condition's type says.
    AsExpected,
    /// A new generation of the spec is being applied.
    Progressing,
    /// The object is being deleted; busy runners finish first.
    Draining,

    /// The spec names a backend that this version does not have.
    BackendNotAvailable,
    /// A backend refuses the spec as it is; a change is needed.
    BackendRefused,
    /// A cron line, a time zone or a window's bounds make no sense.
    InvalidSchedule,
    /// The object cannot be read: it is of another version of the CRD. An event's, for no status can be written.
    Unreadable,
    /// The spec is wrong in a way that the schema cannot judge.
    InvalidSpec,
    /// A Secret or one of its keys is not there.
    SecretMissing,
    /// A Secret holds something that cannot be used, such as a key that does not parse.
    SecretInvalid,
    /// The operator's policy does not let the namespace have what the spec asks for.
    NotPermitted,
    /// The ConfigMap or Secret of the CA bundle, or its key, is not there.
    CaBundleMissing,

    /// GitHub refuses the credentials.
    AuthRejected,
    /// GitHub takes the credentials but they may not do this.
    Forbidden,
    /// The runner group does not exist.
    GroupNotFound,
    /// Another scale set has the name.
    NameTaken,
    /// GitHub keeps fewer labels than the spec asks for.
    LabelsDropped,
    /// GitHub no longer knows the scale set; it is made anew.
    ScaleSetGone,
    /// Not registered yet.
    NotRegistered,

    /// Another session holds the scale set; it is waited out.
    SessionConflict,
    /// The session was lost and is opened again.
    SessionLost,
    /// GitHub asks to slow down.
    RateLimited,
    /// GitHub does not answer.
    Unreachable,
    /// GitHub answers something that cannot be understood.
    BadReply,
    /// No message session is open yet.
    NotListening,

    /// No host or backend has a free slot.
    NoCapacity,
    /// The set is at `maxRunners`.
    AtMaxRunners,
    /// Jobs are assigned that idle runners do not take.
    PhantomDemand,
    /// A runner was recycled: it was idle for minutes, and no job that waited came to it.
    NeverConnected,
    /// Runners fail to start again and again.
    StartFailures,
    /// The image is being pulled.
    ImagePulling,
    /// The image is not there, and is not to be pulled.
    ImageMissing,
    /// The image cannot be pulled.
    ImagePullFailed,
    /// The Docker network does not exist on the host.
    NetworkMissing,
    /// The engine failed: its disk is full, for one.
    EngineError,
    /// A private Docker engine does not come up, or ended before its runner.
    SidecarFailed,
    /// A host runs as many virtual machines as it may: someone else's are among them.
    HostFull,
    /// A host's disk is full.
    DiskFull,
    /// Tart failed.
    TartError,
    /// The guest agent of a virtual machine does not answer.
    GuestAgentSilent,
    /// The account's limit on calls is reached, for longer than a start can wait.
    Throttled,
    /// A host does not answer.
    HostUnreachable,
    /// `spec.suspend` is set.
    Suspended,
    /// The controller has just started: the hosts have not shown yet what runs on them.
    Starting,
    /// GitHub has not told the demand yet.
    NoReading,

    /// A runner was not up within `timeouts.start`.
    StartTimeout,
    /// A runner was stopped at `timeouts.job`.
    JobTimeout,
    /// A runner's name is taken at GitHub.
    RunnerExists,
    /// A runner ended without having had a job.
    EndedWithoutJob,
    /// Something stopped a runner from outside before it had a job.
    Killed,
    /// A runner ran out of memory.
    OutOfMemory,
    /// A runner's instance vanished before it had a job.
    Vanished,
    /// A task came to its end before its containers ran.
    TaskNotStarted,
    /// AWS took a runner's Spot capacity back.
    SpotInterruption,
    /// The machine under a runner was lost or is ill.
    HostLost,
    /// A runner's instance ended while its job ran.
    JobLost,
    /// GitHub refuses the runner's version; a newer image is needed.
    RunnerVersionRejected,

    /// An event's: the scale set exists at GitHub.
    Registered,
    /// An event's: runners are being started.
    ScaledUp,
    /// An event's: a runner that was up failed.
    RunnerFailed,
    /// An event's: a runner could not be started.
    StartFailed,
    /// An event's: jobs that were lost with their runners are run again.
    RerunRequested,
    /// An event's: such jobs are not run again.
    RerunRefused,
    /// An event's: housekeeping freed space on a host.
    SpaceFreed,
    /// An event's: nothing is left of a deleted object.
    Deleted,
    /// An event's: something could not be removed, and stays.
    LeftBehind,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason, and what there is to say about it in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Explanation {
    /// The reason.
    pub reason: Reason,
    /// In words that a person can act on.
    pub message: String,
}

impl Explanation {
    /// That reason, in these words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Explanation {
        Explanation { reason, message: message.into() }
    }
}
