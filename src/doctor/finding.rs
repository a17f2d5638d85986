//! What the doctor finds.

use serde::Serialize;

use crate::backend::OwnedInstance;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Where it is: the cluster, a host or a GitHub.
    #[serde(rename = "where")]
    pub place: String,
    /// What it is about: a scale set, a runner, a host.
    pub subject: String,
    /// What is wrong.
    pub message: String,
    /// What helps.
    pub remedy: String,
    /// Whether `--fix` can do that.
    pub fixable: bool,
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Kind {
    /// No controller acts.
    NoController,
    /// A scale set that this version does not understand.
    Unreadable,
    /// A scale set that cannot go on without a change.
    Stalled,
    /// A scale set that has not been ready for long.
    NotReady,
    /// A scale set that is being deleted, and does not come to its end.
    DeletionStuck,
    /// A runner that has been starting for longer than it may.
    StartStuck,
    /// A message session whose owner leads no more.
    DeadSession,
    /// What a spec refers to cannot be used.
    Unusable,
    /// The operator's policy does not permit a spec: nothing that it names was looked at.
    NotPermitted,
    /// A host does not answer.
    HostUnreachable,
    /// A host answers, and refuses what is asked of it.
    HostRefuses,
    /// A host is older than what is supported.
    HostTooOld,
    /// The disk of a host is nearly full.
    DiskNearlyFull,
    /// An image is not on a host, and is not to be pulled.
    ImageMissing,
    /// An instance whose scale set is gone.
    OrphanInstance,
    /// An instance on a host that the spec of its scale set does not name.
    UnnamedHost,
    /// GitHub refuses a scale set, or does not answer.
    GitHubRefuses,
    /// A scale set is gone from GitHub.
    ScaleSetGone,
    /// A registration at GitHub that no instance stands for.
    OrphanRegistration,
    /// A scale set at GitHub whose object is gone.
    OrphanScaleSet,
}

/// A finding, and what of it can be removed.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) finding: Finding,
    pub(super) orphan: Option<Orphan>,
}

/// What can be removed.
#[derive(Debug, Clone)]
pub(super) enum Orphan {
    Instance(Box<OwnedInstance>),
    Registration {
        /// `namespace/name` of the object.
        scale_set: String,
        /// Which of the GitHubs has it.
        github: usize,
        id: i64,
        name: String,
        scale_set_id: i64,
    },
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Found {
        Found { finding, orphan: None }
    }
}

impl Finding {
    /// Something that a person has to see to.
    pub(super) fn new(
        kind: Kind,
        (place, subject): (&str, &str),
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding {
            kind,
            place: place.to_owned(),
            subject: subject.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
            fixable: false,
        }
    }
}
