//! A runner's record, its phases and the transitions allowed.

use std::time::Duration;

use jiff::Timestamp;

use super::{Exit, Instance, InstanceState, Job, JobOutcome, Watched};
pub use crate::api::RunnerPhase as Phase;
use crate::time::Plus;

/// A runner that ends sooner after it came up says something against its host or its template.
const SHORT_LIFE: Duration = Duration::from_secs(60);

impl Phase {
    /// Whether a runner of this phase takes a slot.
    pub fn occupies(self) -> bool {
        matches!(self, Phase::Pending | Phase::Idle | Phase::Busy)
    }

    /// Whether a runner of this phase may become one of `next`. Nothing returns from an end, and nothing forgets a job.
    pub fn may_become(self, next: Phase) -> bool {
        match self {
            Phase::Pending => true,
            Phase::Idle => next != Phase::Pending,
            Phase::Busy => next == Phase::Done,
            Phase::Done | Phase::Failed => false,
        }
    }
}

/// What is known of a runner's registration at GitHub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    /// There may be one: made by an earlier controller, or about to be made.
    Unknown,
    /// There is one, with this id.
    Present(i64),
    /// There is none (any more).
    Absent,
}

/// What the controller is doing to a runner just now. One thing at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Waiting for its host to be made ready, such as for an image to be pulled. It is not registered yet.
    Preparing,
    /// Being registered and started.
    Starting,
    /// Being deregistered and removed.
    Removing,
}

/// One runner, as the ledger holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Its name, at GitHub and on its backend.
    pub name: String,
    /// The backend it runs on.
    pub backend: String,
    /// The host, in that backend.
    pub host: String,
    /// Hash of the template that it was made from.
    pub template_hash: String,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Its phase.
    pub phase: Phase,
    /// Since when it is in its phase.
    pub since: Timestamp,
    /// Its registration at GitHub.
    pub registration: Registration,
    /// Since when GitHub's list lacks its name.
    pub(super) unlisted_since: Option<Timestamp>,
    /// The number of the ledger's last look in which a host showed it.
    pub(super) shown_in: u64,
    /// What is being done to it.
    pub operation: Option<Operation>,
    /// What its host has shown of it.
    pub seen: Seen,
    /// Its job.
    pub work: Work,
    /// Its way out.
    pub leaving: Leaving,
}

/// What a host has shown of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// The backend's id of its instance, once there is one.
    pub instance_id: Option<String>,
    /// Since when its instance is up: since it was first seen so. Of one that an earlier controller started, since the
    /// backend made it.
    pub up_since: Option<Timestamp>,
    /// The step of its way up that its backend showed last.
    pub launch_step: Option<&'static str>,
    /// How its instance ended, once it did.
    pub exit: Option<Exit>,
    /// An earlier controller made it and did not come to start it.
    pub never_started: bool,
    /// It had ended before this controller first saw it.
    pub found_ended: bool,
    /// Since when its host, listed as a whole, has not shown its instance: the time of that listing.
    pub missing_since: Option<Timestamp>,
}

/// The job of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Work {
    /// The job, once the runner has one.
    pub job: Option<Job>,
    /// How long the runner has been busy, as this process has seen.
    pub busy: Watched,
    /// When GitHub said that the job was over. The runner still takes its slot until its instance is seen gone.
    pub over_at: Option<Timestamp>,
    /// How GitHub said that it ended.
    pub outcome: Option<JobOutcome>,
}

/// The way out of a runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Since when there is no demand for it.
    pub surplus_since: Option<Timestamp>,
    /// Since when it takes its slot and serves nobody: it is being removed, or its job is over.
    pub since: Option<Timestamp>,
    /// Its removal was refused or failed: not before this is it tried again.
    pub retry_at: Option<Timestamp>,
    /// The spec left its host out: no other runner takes its place there.
    pub draining: bool,
    /// Its host has been silent for so long that nothing is counted on there.
    pub host_lost: bool,
}

impl Runner {
    /// A runner that is asked for.
    pub fn pending(name: &str, backend: &str, host: &str, template_hash: &str, now: Timestamp) -> Runner {
        Runner {
            name: name.to_owned(),
            backend: backend.to_owned(),
            host: host.to_owned(),
            template_hash: template_hash.to_owned(),
            created_at: now,
            phase: Phase::Pending,
            since: now,
            registration: Registration::Unknown,
            unlisted_since: None,
            shown_in: 0,
            operation: None,
            seen: Seen::default(),
            work: Work::default(),
            leaving: Leaving::default(),
        }
    }

    /// A runner that is found on its backend.
    pub fn adopted(instance: &Instance) -> Runner {
        let mut runner = Runner::pending(
            &instance.runner,
            &instance.backend,
            &instance.host,
            &instance.template_hash,
            instance.created_at,
        );
        runner.seen.instance_id = Some(instance.id.clone());
        runner
    }

    /// Whether GitHub has a registration of it, as far as is known: what an earlier controller started has one.
    pub fn is_registered(&self) -> bool {
        match self.registration {
            Registration::Present(_) => true,
            Registration::Unknown => self.seen.instance_id.is_some(),
            Registration::Absent => false,
        }
    }

    /// Whether it takes a slot.
    pub fn occupies(&self) -> bool {
        self.phase.occupies()
    }

    /// Whether it can be counted on for demand: it takes a slot, is not on its way out, can be given a job, and its job is
    /// not over.
    pub fn serves(&self) -> bool {
        self.occupies()
            && self.operation != Some(Operation::Removing)
            && self.registration != Registration::Absent
            && self.work.over_at.is_none()
    }

    /// Whether its host does not show it: it was listed without it, or nothing but a status knows of the runner.
    pub fn is_hidden(&self) -> bool {
        self.seen.missing_since.is_some() || self.template_hash.is_empty()
    }

    /// Whether it ended within a minute after it came up, or never came up at all.
    pub(super) fn was_short_lived(&self) -> bool {
        self.seen.up_since.is_none_or(|up_since| self.since <= up_since.plus(SHORT_LIFE))
    }

    /// Moves to a phase if that is allowed; says whether it moved.
    pub fn enter(&mut self, phase: Phase, now: Timestamp) -> bool {
        let moved = self.phase != phase && self.phase.may_become(phase);
        if moved {
            self.phase = phase;
            self.since = now;
            self.work.busy = Watched::default();
            self.leaving.surplus_since = None;
        }
        moved
    }

    /// Its instance lives, although its start was said to have failed, or it was not to be seen for a while: it takes its
    /// slot again, and goes as every other runner does.
    pub(super) fn revive(&mut self, instance: &Instance, now: Timestamp) {
        self.phase = if self.work.job.is_some() { Phase::Busy } else { Phase::Pending };
        self.since = if self.work.job.is_some() { now } else { instance.created_at };
        self.work.busy = Watched::default();
        self.seen.exit = None;
        self.leaving.retry_at = None;
    }

    /// Takes over what its backend shows of its instance. An instance that ended is not judged here: that takes the
    /// ledger's knowledge of jobs.
    pub(super) fn observe(&mut self, instance: &Instance, now: Timestamp) {
        if self.seen.instance_id.as_ref() != Some(&instance.id) {
            self.seen.instance_id = Some(instance.id.clone());
        }
        // The spec may call its backend and its host otherwise than when it was asked for.
        self.backend.clone_from(&instance.backend);
        self.host.clone_from(&instance.host);
        self.seen.missing_since = None;
        match &instance.state {
            InstanceState::Starting => self.seen.never_started = false,
            InstanceState::Launching(step) => {
                self.seen.never_started = false;
                // The way up may be long, and none of its steps may be.
                let before = self.seen.launch_step.replace(step);
                if self.phase == Phase::Pending && before.is_some_and(|before| before != *step) {
                    self.since = now;
                }
            }
            InstanceState::NeverStarted => self.seen.never_started = true,
            InstanceState::Running => {
                self.seen.never_started = false;
                self.seen.up_since.get_or_insert(now);
                self.enter(Phase::Idle, now);
            }
            InstanceState::Exited(exit) => self.seen.exit = Some(exit.clone()),
        }
    }
}
