//! What is known of a scale set at GitHub, and what is to be registered there.

use std::sync::Arc;

use crate::api::{Explanation, Reason};
use crate::github::{self, ClientConfig, ScaleSet, ScaleSetService, WantedScaleSet};

/// What is to be registered and listened to.
#[derive(Clone)]
pub struct Target {
    /// How GitHub is reached: when this changes, the session is opened anew.
    pub client: ClientConfig,
    /// What is to be there: when this changes, it is changed in place.
    pub scale_set: WantedScaleSet,
    /// The service.
    pub service: Arc<dyn ScaleSetService>,
}

impl PartialEq for Target {
    fn eq(&self, other: &Target) -> bool {
        self.client == other.client && self.scale_set == other.scale_set
    }
}

/// What is known of the scale set at GitHub.
#[derive(Default)]
pub struct Registration {
    own: Option<i64>,
    recorded: Option<i64>,
    /// Whether this process has its message session open: only then is it changed or deleted.
    pub session_open: bool,
    /// As GitHub holds it, and what is asked for; none before this process has found or created it.
    pub held: Option<(ScaleSet, WantedScaleSet)>,
    /// What is asked for was not applied to it yet: that waits for its message session.
    pub unapplied: bool,
    /// Why it is not as it should be.
    pub error: Option<Explanation>,
}

impl Registration {
    /// What an earlier process recorded.
    pub fn recorded(own: Option<i64>) -> Registration {
        Registration { own, recorded: own, ..Registration::default() }
    }

    /// The id of the scale set that is the object's own, if it has one.
    pub fn own(&self) -> Option<i64> {
        self.own
    }

    /// Whether the scale set of that id is the object's own.
    pub fn owns(&self, id: i64) -> bool {
        self.own == Some(id)
    }

    /// Takes a scale set for the object's own: it was created for it, or its session is open.
    pub fn take(&mut self, id: i64) {
        self.own = Some(id);
    }

    /// The object has no scale set of its own any more.
    pub fn lose(&mut self) {
        *self = Registration { recorded: self.recorded, ..Registration::default() };
    }

    /// The id that status may show: one that a later process will know to be the object's own.
    pub fn shown(&self) -> Option<i64> {
        self.own.filter(|own| self.recorded == Some(*own))
    }

    /// Whether the record is not what it should be.
    pub fn is_unrecorded(&self) -> bool {
        self.own != self.recorded
    }

    /// The record was written.
    pub fn note_record(&mut self, own: Option<i64>) {
        self.recorded = own;
    }
}

/// The condition reason for an error of GitHub's.
pub fn reason_of(error: &github::Error) -> Reason {
    use github::Error;
    match error {
        Error::AuthRejected(_) => Reason::AuthRejected,
        Error::Forbidden(_) => Reason::Forbidden,
        Error::GroupNotFound(_) => Reason::GroupNotFound,
        Error::NameTaken(_) => Reason::NameTaken,
        Error::ScaleSetGone => Reason::ScaleSetGone,
        Error::SessionLost(_) | Error::TokenExpired => Reason::SessionLost,
        Error::SessionConflict { .. } => Reason::SessionConflict,
        Error::RateLimited { .. } => Reason::RateLimited,
        Error::BadReply(_) => Reason::BadReply,
        Error::Config(_) => Reason::InvalidSpec,
        Error::Transient(_)
        | Error::RunnerExists
        | Error::RunnerGone
        | Error::RunnerBusy
        | Error::NoRerun(_) => Reason::Unreachable,
    }
}
