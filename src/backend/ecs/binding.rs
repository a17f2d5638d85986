//! What one backend of a scale set has in its cluster: its task definition, how its last starts went, and where the next goes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::cluster::{Cluster, Link, Membership};
use super::clusters::Watched;
use super::revisions::Revisions;
use super::strategy::{self, FARGATE_SPOT};
use super::task::{Stage, Task};
use super::template::{Definition, EcsTemplate};
use crate::api::{Explanation, Reason};
use crate::backend::{Availability, Error};
use crate::rng;
use crate::runner::{Exit, Identity};
use crate::time::Plus;

/// How long a place without room is left alone, by how often in a row it had none. Up to a fifth of it is taken off at random.
const WITHOUT_ROOM: [u64; 5] = [15, 30, 60, 120, 300];
/// What was refused is tried again after this: that a permission was granted or a subnet made, nobody tells.
const REFUSED: Duration = Duration::from_secs(900);
/// An end that is this old says nothing of the next start any more.
const FRESH: Duration = Duration::from_secs(600);

/// What a backend has in its cluster.
pub(super) struct Binding {
    pub(super) watched: Arc<Watched>,
    pub(super) template: Arc<EcsTemplate>,
    pub(super) template_hash: String,
    pub(super) identity: Identity,
    pub(super) backend: String,
    /// Those of a managed task definition.
    pub(super) revisions: Option<Revisions>,
    starts: Mutex<Starts>,
    _membership: Membership,
}

/// How starts went.
#[derive(Debug, Default)]
struct Starts {
    /// Where there was no room, by capacity provider; where none is named, under the empty name.
    lacking: HashMap<String, Lacking>,
    refused: Option<(Timestamp, String)>,
    /// How many starts are under way on each provider.
    under_way: HashMap<String, u32>,
    /// So many starts replace runners that were interrupted, and go where that does not happen.
    replacements: u32,
    /// The tasks whose ends were noted and are still shown.
    ends: HashSet<String>,
}

#[derive(Debug)]
struct Lacking {
    until: Timestamp,
    times: usize,
    why: Explanation,
}

/// Where a start goes: a capacity provider, or where the launch type or the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(Option<String>);

impl Place {
    /// The capacity provider.
    pub(super) fn provider(&self) -> Option<&str> {
        self.0.as_deref()
    }

    fn key(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Binding {
    pub(super) fn new(
        watched: Arc<Watched>,
        template: EcsTemplate,
        identity: &Identity,
        backend: &str,
    ) -> Binding {
        let template_hash = template.hash();
        let account = || Arc::clone(&watched.cluster.account);
        let revisions = match &template.definition {
            Definition::Existing(_) => None,
            Definition::Managed(wanted) => {
                let (wanted, container) = (wanted.clone(), &template.container);
                Some(Revisions::new(account(), wanted, container, identity, backend, &template_hash))
            }
        };
        Binding {
            _membership: watched.cluster.join(&identity.scale_set_uid),
            watched,
            template: Arc::new(template),
            template_hash,
            identity: identity.clone(),
            backend: backend.to_owned(),
            revisions,
            starts: Mutex::default(),
        }
    }

    /// The cluster.
    pub(super) fn cluster(&self) -> &Arc<Cluster> {
        &self.watched.cluster
    }

    fn starts(&self) -> MutexGuard<'_, Starts> {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails where the cluster did not answer the last look. A start whose answer is lost is asked for again for minutes, so
    /// none begins there.
    pub(super) fn answers(&self) -> Result<(), Error> {
        match &self.cluster().state().link {
            Link::Up => Ok(()),
            Link::Down(why) => Err(Error::Unreachable(why.clone())),
            Link::Refused(why) => Err(Error::Refused(why.clone())),
        }
    }

    /// Whether the cluster takes starts, and why it takes none, in words.
    pub(super) fn state(&self) -> (Availability, String) {
        match &self.cluster().state().link {
            Link::Up => {}
            Link::Down(why) => return (Availability::Unreachable, why.clone()),
            Link::Refused(why) => return (Availability::Refused, why.clone()),
        }
        let now = Timestamp::now();
        let starts = self.starts();
        if let Some((until, why)) = starts.refused.as_ref().filter(|(until, _)| *until > now) {
            return (Availability::Refused, format!("{why}; it is tried again at {until:.0}"));
        }
        match self.lacking(&starts, now) {
            Some(Lacking { until, why: Explanation { reason, message }, .. }) => {
                let availability = Availability::BackOff { until: *until, reason: *reason };
                (availability, format!("{message}; the next try is at {until:.0}"))
            }
            None => (Availability::Ready, String::new()),
        }
    }

    /// What the place lacks that is tried again first, if no place has room.
    fn lacking<'a>(&self, starts: &'a Starts, now: Timestamp) -> Option<&'a Lacking> {
        let lacking = |name: &str| starts.lacking.get(name).filter(|lacking| lacking.until > now);
        if self.template.providers.is_empty() {
            return lacking("");
        }
        let places: Option<Vec<&Lacking>> =
            self.template.providers().iter().map(|provider| lacking(&provider.name)).collect();
        places?.into_iter().min_by_key(|lacking| lacking.until)
    }

    /// Chooses where the next start goes, and counts it there until it is [`Binding::left`]. `tried` had no room for it.
    pub(super) fn choose(&self, tried: &[Place]) -> Result<Place, Error> {
        let now = Timestamp::now();
        let providers = self.template.providers();
        let running = self.running();
        let mut starts = self.starts();
        let free = |name: &str| {
            let lacks = starts.lacking.get(name).is_some_and(|lacking| lacking.until > now);
            !lacks && !tried.iter().any(|place| place.key() == name)
        };
        let tasks = |name: &str| {
            let of = |counts: &HashMap<String, u32>| counts.get(name).copied().unwrap_or_default();
            of(&running) + of(&starts.under_way)
        };
        let place = if providers.is_empty() {
            free("").then_some(Place(None))
        } else {
            let steady = |name: &str| free(name) && name != FARGATE_SPOT;
            let replaces = starts.replacements > 0;
            let chosen = replaces.then(|| strategy::choose(&providers, tasks, steady)).flatten();
            let chosen = chosen.or_else(|| strategy::choose(&providers, tasks, free));
            chosen.map(|provider| Place(Some(provider.name.clone())))
        };
        let Some(place) = place else {
            let lacking = self.lacking(&starts, now);
            let full = || Explanation::new(Reason::NoCapacity, "there is no room");
            return Err(Error::NoCapacity(lacking.map_or_else(full, |lacking| lacking.why.clone())));
        };
        if place.provider().is_some_and(|name| name != FARGATE_SPOT) {
            starts.replacements = starts.replacements.saturating_sub(1);
        }
        *starts.under_way.entry(place.key().to_owned()).or_default() += 1;
        Ok(place)
    }

    /// A start that went to a place is over.
    pub(super) fn left(&self, place: &Place) {
        if let Some(count) = self.starts().under_way.get_mut(place.key()) {
            *count = count.saturating_sub(1);
        }
    }

    /// Retires, in the background, what is registered and in no use any more.
    pub(super) fn tidy(self: &Arc<Self>) {
        if self.revisions.is_none() {
            return;
        }
        let binding = Arc::clone(self);
        tokio::spawn(async move {
            let used: HashSet<String> = {
                let state = binding.cluster().state();
                let live = state.index.tasks().filter(|task| !task.stage.has_ended());
                live.map(|task| task.definition.clone()).collect()
            };
            if let Some(revisions) = &binding.revisions {
                revisions.retire(&used).await;
            }
        });
    }

    /// How many tasks of this backend each provider has.
    fn running(&self) -> HashMap<String, u32> {
        let mut running = HashMap::new();
        let state = self.cluster().state();
        for task in state.index.of_set(&self.identity.scale_set_uid) {
            let ours = task.tags.as_ref().is_none_or(|tags| tags.backend == self.backend);
            if let Some(provider) = task.provider.as_ref().filter(|_| ours && !task.stage.has_ended()) {
                *running.entry(provider.clone()).or_default() += 1;
            }
        }
        running
    }

    /// Notes that a start succeeded: all is well there.
    pub(super) fn note_success(&self, place: &Place) {
        let mut starts = self.starts();
        starts.lacking.remove(place.key());
        starts.refused = None;
    }

    /// Notes what the failure of a start says of the place. Starts that fail together are one failure.
    pub(super) fn note_failure(&self, place: &Place, error: &Error) {
        let now = Timestamp::now();
        let mut starts = self.starts();
        let why = match error {
            Error::Refused(why) => {
                starts.refused = Some((now.plus(REFUSED), why.clone()));
                return;
            }
            Error::NoCapacity(why) => why.clone(),
            Error::Unreachable(why) => Explanation::new(Reason::HostUnreachable, why.as_str()),
            Error::Gone => Explanation::new(Reason::HostUnreachable, "what it was to run on is gone"),
        };
        let before = starts.lacking.get(place.key());
        if before.is_some_and(|lacking| lacking.until > now) {
            return;
        }
        let times = before.map_or(0, |lacking| lacking.times) + 1;
        let until = now.plus(without_room(times));
        starts.lacking.insert(place.key().to_owned(), Lacking { until, times, why });
    }

    /// Notes how tasks ended: one that was interrupted is to be replaced where that does not happen, and one that found no room
    /// after all says something of its place.
    pub(super) fn note_ends<'a>(&self, tasks: impl Iterator<Item = &'a Task>) {
        let now = Timestamp::now();
        let mut seen = HashSet::new();
        for task in tasks {
            let Stage::Ended(Exit { cause: Some(cause), at, .. }) = &task.stage else { continue };
            seen.insert(task.id.clone());
            if at.plus(FRESH) <= now || self.starts().ends.contains(&task.id) {
                continue;
            }
            match cause.why.reason {
                Reason::SpotInterruption => self.starts().replacements += 1,
                Reason::NoCapacity => {
                    let error = Error::NoCapacity(cause.why.clone());
                    self.note_failure(&self.place_of(task), &error);
                }
                _ => {}
            }
        }
        self.starts().ends = seen;
    }

    /// The place that a task was started on. Without providers in the spec there is but one.
    fn place_of(&self, task: &Task) -> Place {
        Place(task.provider.clone().filter(|_| !self.template.providers.is_empty()))
    }
}

/// How long a place is left alone that had no room so often in a row.
fn without_room(times: usize) -> Duration {
    let last = WITHOUT_ROOM.len() - 1;
    let seconds = WITHOUT_ROOM[times.saturating_sub(1).min(last)];
    Duration::from_secs(seconds).mul_f64(1.0 - 0.2 * rng::unit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_without_room_is_left_alone_for_longer_each_time() {
        for (times, longest) in [(0, 15), (1, 15), (2, 30), (3, 60), (4, 120), (5, 300), (100, 300)] {
            let (longest, wait) = (Duration::from_secs(longest), without_room(times));
            assert!(wait <= longest && wait >= longest.mul_f64(0.79), "{times}: {wait:?}");
        }
    }
}
