//! Whether runners can be made from an image on a host: looked for or pulled once for all who wait for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, info};

use super::{Availability, Error};
use crate::api::{Explanation, Reason};
use crate::time::{Backoff, Plus};

/// How long to wait before what could not be had, or failed on a host, is tried again.
pub(super) const RETRY: Backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_secs(300) };

/// What is known of an image on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ImageState {
    /// Nobody looked yet.
    Unknown,
    /// It is looked for or pulled; how far that is, in words.
    Preparing { since: Timestamp, message: String },
    /// It is there.
    Ready,
    /// It could not be had.
    Failed { until: Timestamp, why: Explanation },
}

impl ImageState {
    /// Whether looking for it may begin.
    pub(super) fn may_begin(&self) -> bool {
        match self {
            ImageState::Unknown => true,
            ImageState::Failed { until, .. } => *until <= Timestamp::now(),
            ImageState::Preparing { .. } | ImageState::Ready => false,
        }
    }

    /// What a host is for it, and why, in words.
    pub(super) fn availability(self) -> (Availability, String) {
        match self {
            ImageState::Ready => (Availability::Ready, String::new()),
            ImageState::Unknown => (Availability::Unprepared, String::new()),
            ImageState::Preparing { since, message } => (Availability::Preparing { since }, message),
            ImageState::Failed { until, why } if until > Timestamp::now() => {
                (Availability::BackOff { until, reason: why.reason }, why.message)
            }
            ImageState::Failed { why, .. } => (Availability::Unprepared, why.message),
        }
    }
}

/// The state of an image on a host, and its back-off.
#[derive(Debug)]
pub(super) struct Readiness {
    reference: String,
    state: watch::Sender<ImageState>,
    /// Failures since a runner was last made from it.
    failures: AtomicU32,
}

impl Readiness {
    /// Nothing is known of the image of that name yet.
    pub(super) fn new(reference: &str) -> Readiness {
        Readiness {
            reference: reference.to_owned(),
            state: watch::Sender::new(ImageState::Unknown),
            failures: AtomicU32::new(0),
        }
    }

    /// What is known now.
    pub(super) fn state(&self) -> ImageState {
        self.state.borrow().clone()
    }

    /// Counts as being looked for from now on, if it may be; answers whether whoever called is to look, and to
    /// [`Readiness::settle`] it.
    pub(super) fn begin(&self, may: impl Fn(&ImageState) -> bool) -> bool {
        self.state.send_if_modified(|state| {
            let begin = may(state);
            if begin {
                let message = format!("looking for image {}", self.reference);
                *state = ImageState::Preparing { since: Timestamp::now(), message };
            }
            begin
        })
    }

    /// Tells how far looking for it is.
    pub(super) fn tell(&self, progress: &str) {
        self.state.send_modify(|state| {
            if let ImageState::Preparing { message, .. } = state {
                progress.clone_into(message);
            }
        });
    }

    /// Notes what came of looking for it.
    pub(super) fn settle(&self, result: Result<(), Error>) {
        self.state.send_replace(match result {
            Ok(()) => ImageState::Ready,
            Err(Error::NoCapacity(why)) => {
                let (reason, message) = (why.reason.as_str(), &why.message);
                info!(image = self.reference, reason, error = message, "image cannot be used");
                self.failed(why)
            }
            // The host went away: it is asked again when it is back.
            Err(error) => {
                debug!(image = self.reference, %error, "image is not known to be there");
                ImageState::Unknown
            }
        });
    }

    /// Waits while it is looked for.
    pub(super) async fn settled(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        let settled = state.wait_for(|state| !matches!(state, ImageState::Preparing { .. })).await;
        match settled.map(|state| state.clone()) {
            Ok(ImageState::Failed { why, .. }) => Err(Error::NoCapacity(why)),
            Ok(ImageState::Unknown) | Err(_) => {
                Err(Error::Unreachable("the host left during the pull".to_owned()))
            }
            Ok(ImageState::Ready | ImageState::Preparing { .. }) => Ok(()),
        }
    }

    /// A runner was made from it.
    pub(super) fn used(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A start found that it is not there any more. If that happens again at once, looking for it does not help.
    pub(super) fn missing(&self, message: &str) {
        self.state.send_if_modified(|state| {
            let found = *state == ImageState::Ready;
            if found {
                *state = match self.failures.load(Ordering::Relaxed) {
                    0 => ImageState::Unknown,
                    _ => self.failed(Explanation::new(Reason::ImageMissing, message)),
                };
                self.failures.fetch_max(1, Ordering::Relaxed);
            }
            found
        });
    }

    fn failed(&self, why: Explanation) -> ImageState {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        ImageState::Failed { until: Timestamp::now().plus(RETRY.after(failures)), why }
    }
}
