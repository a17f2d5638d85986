//! What a host showed of a scale set.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::{Instance, Runner};
use crate::time::Plus;

/// The instances of the scale set on one host of one backend.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The backend.
    pub backend: String,
    /// The host.
    pub host: String,
    /// When the host last answered a whole listing; none when what is shown is not current, so that absence means nothing.
    pub listed_at: Option<Timestamp>,
    /// What was made within this before the listing may be missing in it.
    pub hides: Duration,
    /// The instances.
    pub instances: Vec<Instance>,
}

/// When the hosts of one look were listed.
pub(super) struct Listings<'a> {
    /// When each host was listed, and what it may hide, by backend and host.
    listed_at: HashMap<(&'a str, &'a str), (Option<Timestamp>, Duration)>,
    /// When the last of the hosts was listed; none if one was not.
    all_listed_at: Option<Timestamp>,
    /// The longest that any of them hides what was made.
    hides: Duration,
}

impl<'a> Listings<'a> {
    /// Takes the times of what was observed.
    pub fn of(observations: &'a [Observation]) -> Listings<'a> {
        let listed: Option<Vec<Timestamp>> = observations.iter().map(|o| o.listed_at).collect();
        let of_host = |o: &'a Observation| ((o.backend.as_str(), o.host.as_str()), (o.listed_at, o.hides));
        Listings {
            listed_at: observations.iter().map(of_host).collect(),
            all_listed_at: listed.and_then(|listed| listed.into_iter().min()),
            hides: observations.iter().map(|o| o.hides).max().unwrap_or_default(),
        }
    }

    /// Returns when the host of a runner that no host showed was last listed, if the host would show it. A host that is not
    /// among those of the spec any more cannot be asked: then it is when the last of all others was.
    pub fn without(&self, runner: &Runner) -> Option<Timestamp> {
        let own = self.listed_at.get(&(runner.backend.as_str(), runner.host.as_str()));
        let (listed_at, hides) = own.copied().unwrap_or((self.all_listed_at, self.hides));
        listed_at.filter(|listed_at| hides.is_zero() || runner.since.plus(hides) <= *listed_at)
    }
}
