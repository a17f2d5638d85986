//! What one backend of a scale set has on a host: its engine, its image there, and how its last starts went.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use super::endpoint::Endpoint;
use super::engine::{Link, Membership};
use super::engines::{Engines, Followed};
use super::image::{self, Image, RETRY, Wanted};
use super::slots::User;
use super::template::{DockerTemplate, HostSpec};
use crate::api::Reason;
use crate::backend::{Availability, Error};
use crate::runner::Identity;
use crate::time::Plus;

/// What a backend has on a host.
pub(super) struct HostBinding {
    pub(super) followed: Arc<Followed>,
    pub(super) image: Arc<Image>,
    failure: Mutex<HostFailure>,
    pub(super) membership: Membership,
}

/// What keeps a host from taking starts, beside its image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum HostFailure {
    #[default]
    None,
    /// The last start failed for want of something.
    Lacking { until: Timestamp, failures: u32, reason: Reason, message: String },
    /// The engine, at that connection, refused what it was asked for.
    Refused { connection: u64, message: String },
}

impl HostBinding {
    /// Binds a backend to a host, and follows its engine from now on at the latest. The error says why it cannot be one.
    pub(super) fn new(
        spec: &HostSpec,
        (backend, identity): (&str, &Identity),
        template: &DockerTemplate,
        engines: &Engines,
    ) -> Result<Self, String> {
        let endpoint = Endpoint::parse(&spec.endpoint)?;
        if let Some(why) = template.refusal() {
            return Err(why);
        }
        let logins = template.pull_credentials.as_ref();
        let wanted = Wanted {
            reference: template.image.clone(),
            platform: template.platform.clone(),
            policy: template.pull_policy,
            login: logins.and_then(|logins| logins.for_image(&template.image)).cloned(),
        };
        let followed = engines.engine(endpoint);
        let user = User {
            scale_set_uid: identity.scale_set_uid.clone(),
            backend: backend.to_owned(),
            siblings: Vec::new(),
            max_runners: spec.max_runners,
        };
        Ok(HostBinding {
            image: followed.image(wanted),
            failure: Mutex::default(),
            membership: followed.engine.join(user),
            followed,
        })
    }

    fn failure(&self) -> MutexGuard<'_, HostFailure> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the host takes starts, how many slots are free on it, and why it takes none, in words.
    pub(super) fn state(&self) -> (Availability, u32, String) {
        let state = self.followed.engine.state();
        if let Link::Down(why) = &state.link {
            return (Availability::Unreachable, 0, why.clone());
        }
        let free = self.membership.free(&state);
        let (availability, message) = match &*self.failure() {
            HostFailure::Refused { connection, message } if *connection == state.connections => {
                (Availability::Refused, message.clone())
            }
            HostFailure::Lacking { until, reason, message, .. } if *until > Timestamp::now() => {
                (Availability::BackOff { until: *until, reason: *reason }, message.clone())
            }
            _ => image_state(&self.image),
        };
        let message = if message.is_empty() && free == 0 { self.membership.full(&state) } else { message };
        (availability, free, message)
    }

    /// Notes that a start succeeded: the host is well.
    pub(super) fn note_success(&self) {
        self.image.started();
        *self.failure() = HostFailure::None;
    }

    /// Notes what the failure of a start says of the host.
    pub(super) fn note_failure(&self, error: &Error) {
        match error {
            Error::NoCapacity(why) => match why.reason {
                Reason::ImageMissing => self.image.missing(&why.message),
                Reason::ImagePullFailed => {}
                reason => self.failure().lacks(reason, &why.message),
            },
            Error::Refused(message) => {
                let connection = self.followed.engine.state().connections;
                *self.failure() = HostFailure::Refused { connection, message: message.clone() };
            }
            Error::Unreachable(_) | Error::Gone => self.followed.engine.suspect(),
        }
    }
}

impl HostFailure {
    /// Starts that fail together are one failure.
    fn lacks(&mut self, reason: Reason, message: &str) {
        let now = Timestamp::now();
        let before = match self {
            HostFailure::Lacking { until, .. } if *until > now => return,
            HostFailure::Lacking { failures, .. } => *failures,
            HostFailure::None | HostFailure::Refused { .. } => 0,
        };
        let failures = before + 1;
        *self = HostFailure::Lacking {
            until: now.plus(RETRY.after(failures)),
            failures,
            reason,
            message: message.to_owned(),
        };
    }
}

fn image_state(image: &Image) -> (Availability, String) {
    match image.state() {
        image::State::Ready => (Availability::Ready, String::new()),
        image::State::Unknown => (Availability::Unprepared, String::new()),
        image::State::Preparing { since, message } => (Availability::Preparing { since }, message),
        image::State::Failed { until, why } if until > Timestamp::now() => {
            (Availability::BackOff { until, reason: why.reason }, why.message)
        }
        image::State::Failed { why, .. } => (Availability::Unprepared, why.message),
    }
}
