//! What GitHub has of the scale sets: their own, and registrations that no instance stands for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::finding::{Finding, Found, Kind, Orphan};
use super::instances::subject;
use crate::backend::OwnedInstance;
use crate::github::{ClientConfig, Clients, Error, ListedRunner, ScaleSetService};
use crate::reaper::OrphanRegistrations;

/// Between two lists: a runner that was registered a moment ago is connected, or known, by then.
const SECOND_LOOK: Duration = Duration::from_secs(5);

/// The GitHubs that the scale sets reach, each by one credential.
#[derive(Default)]
pub(super) struct GitHubs {
    clients: Clients,
    known: Vec<GitHub>,
}

/// One of them.
struct GitHub {
    config: ClientConfig,
    service: Arc<dyn ScaleSetService>,
}

/// A scale set, and what is known of its runners.
pub(super) struct Own {
    /// `namespace/name` of the object.
    pub(super) scale_set: String,
    /// Its GitHub, as [`GitHubs::add`] answered it.
    pub(super) github: usize,
    /// GitHub's id of the scale set that is proven to be the object's own.
    pub(super) id: Option<i64>,
    /// Its name at GitHub.
    pub(super) name: String,
    /// The names of its runners; none where a host did not answer, or not all are told.
    pub(super) runners: Option<HashSet<String>>,
}

impl GitHubs {
    /// Adds the GitHub that a scale set reaches, if it is not there yet.
    pub(super) fn add(&mut self, config: ClientConfig) -> Result<usize, Error> {
        if let Some(known) = self.known.iter().position(|github| github.config == config) {
            return Ok(known);
        }
        let service = self.clients.get(&config)?;
        self.known.push(GitHub { config, service });
        Ok(self.known.len().saturating_sub(1))
    }

    pub(super) fn service(&self, github: usize) -> Option<&dyn ScaleSetService> {
        self.known.get(github).map(|github| &*github.service)
    }

    /// All of them.
    pub(super) fn services(&self) -> impl Iterator<Item = &dyn ScaleSetService> {
        self.known.iter().map(|github| &*github.service)
    }

    /// Where something is.
    pub(super) fn place(&self, github: usize) -> String {
        format!("github {}", self.known.get(github).map_or("", |github| github.config.url.as_str()))
    }

    /// Lists what is wrong at each GitHub.
    pub(super) async fn examine(&self, own: &[Own], progress: &(dyn Fn(&str) + Sync)) -> Vec<Found> {
        let mut found = Vec::new();
        for github in 0..self.known.len() {
            progress(&format!("{}: asking", self.place(github)));
            let mut sets = Vec::new();
            for set in own.iter().filter(|set| set.github == github) {
                match self.scale_set(set).await {
                    Ok(()) => sets.push(set),
                    Err(finding) => found.push(finding.into()),
                }
            }
            found.extend(self.registrations(github, &sets).await);
        }
        found
    }

    /// Whether GitHub still has the scale set that is the object's own.
    async fn scale_set(&self, set: &Own) -> Result<(), Finding> {
        let (Some(service), Some(id)) = (self.service(set.github), set.id) else { return Ok(()) };
        let place = self.place(set.github);
        let at = (place.as_str(), set.scale_set.as_str());
        match service.find_scale_set(id).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let message = format!("its scale set {} (id {id}) is gone from GitHub", set.name);
                let remedy = "a controller that runs makes it anew: see whether one does, and who deleted it";
                Err(Finding::new(Kind::ScaleSetGone, at, message, remedy))
            }
            Err(error) => Err(refusal(at, &error)),
        }
    }

    async fn registrations(&self, github: usize, sets: &[&Own]) -> Vec<Found> {
        let Some(service) = self.service(github) else { return Vec::new() };
        let mut looks: Vec<(&Own, OrphanRegistrations)> =
            sets.iter().map(|set| (*set, OrphanRegistrations::default())).collect();
        let refused = |error| vec![refusal((&self.place(github), "its list of runners"), &error).into()];
        match look(service, &mut looks).await {
            Ok(first) if !first.suspicious => return Vec::new(),
            Ok(_) => sleep(SECOND_LOOK).await,
            Err(error) => return refused(error),
        }
        match look(service, &mut looks).await {
            Ok(Look { ripe, .. }) => {
                ripe.into_iter().map(|(set, runner)| self.orphan(github, set, &runner)).collect()
            }
            Err(error) => refused(error),
        }
    }

    fn orphan(&self, github: usize, set: &Own, runner: &ListedRunner) -> Found {
        let message = format!("no instance of {} stands for this registration", set.scale_set);
        let remedy = "paddock doctor --fix removes it; a controller that runs does so too, within minutes";
        let finding =
            Finding::new(Kind::OrphanRegistration, (&self.place(github), &runner.name), message, remedy);
        Found {
            finding: Finding { fixable: true, ..finding },
            orphan: Some(Orphan::Registration {
                scale_set: set.scale_set.clone(),
                github,
                id: runner.id,
                name: runner.name.clone(),
                scale_set_id: set.id.unwrap_or_default(),
            }),
        }
    }

    /// The scale sets at GitHub to which instances of objects belong that are gone. Their runners' registrations name them; of
    /// others nobody can know.
    pub(super) async fn orphan_scale_sets(&self, orphans: &[OwnedInstance], own: &[Own]) -> Vec<Finding> {
        let mut seen: HashSet<(usize, i64)> =
            own.iter().filter_map(|set| Some((set.github, set.id?))).collect();
        let mut found = Vec::new();
        for orphan in orphans.iter().filter(|orphan| !orphan.instance.runner.is_empty()) {
            for (github, GitHub { service, .. }) in self.known.iter().enumerate() {
                let Ok(Some(runner)) = service.find_runner(subject(orphan)).await else { continue };
                if !seen.insert((github, runner.scale_set_id)) {
                    continue;
                }
                let Ok(Some(set)) = service.find_scale_set(runner.scale_set_id).await else { continue };
                let message = format!(
                    "it is {}'s, whose object does not exist any more (id {}): the runner {} is registered with it",
                    orphan.scale_set, set.id, runner.name
                );
                let remedy =
                    "once its jobs are done, delete it at GitHub, or apply its object again and delete that";
                let place = self.place(github);
                found.push(Finding::new(Kind::OrphanScaleSet, (&place, &set.name), message, remedy));
            }
        }
        found
    }
}

/// One look at GitHub's list.
struct Look<'a> {
    /// Whether there is anything that may be an orphan.
    suspicious: bool,
    /// What has been an orphan in each look so far.
    ripe: Vec<(&'a Own, ListedRunner)>,
}

async fn look<'a>(
    service: &dyn ScaleSetService,
    looks: &mut [(&'a Own, OrphanRegistrations)],
) -> Result<Look<'a>, Error> {
    let list = service.list_runners().await?;
    let mut look = Look { suspicious: false, ripe: Vec::new() };
    for (set, looks) in looks {
        if let (Some(runners), Some(_)) = (&set.runners, set.id) {
            look.suspicious |= list.iter().any(|listed| !listed.online && !runners.contains(&listed.name));
            let found = looks.look(&list, &set.name, runners, Timestamp::now());
            look.ripe.extend(found.into_iter().map(|runner| (*set, runner)));
        }
    }
    Ok(look)
}

/// What GitHub refuses, or does not answer.
pub(super) fn refusal(at: (&str, &str), error: &Error) -> Finding {
    let remedy =
        "see docs/operations.md#troubleshooting for what GitHub refuses, and the network for silence";
    Finding::new(Kind::GitHubRefuses, at, error.to_string(), remedy)
}
