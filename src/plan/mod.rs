//! Decisions, and nothing else: what is to be done about one scale set now, and why not more. No IO, and no clock of
//! its own.

mod capacity;
mod demand_status;
mod placement;
mod policy;
mod scale_down;
mod schedule;
mod waiting;

use jiff::Timestamp;

use crate::runner::{HostState, Ledger, Runner};

pub use demand_status::DemandStatus;
pub use placement::set_aside;
pub use policy::{Bounds, Invalid, Policy};
pub use schedule::Schedule;
pub use waiting::Waiting;

/// All that a decision is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// What the object asks for.
    pub policy: &'a Policy,
    /// What is known of runners and demand.
    pub ledger: &'a Ledger,
    /// The backends, in the order in which they are filled.
    pub backends: &'a [BackendView],
    /// Whether runners may be started: there is a registration to start them for, and all hosts have had the time to
    /// show what runs on them already.
    pub start_gate: StartGate,
    /// The time.
    pub now: Timestamp,
}

/// Whether runners may be started at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartGate {
    /// Yes.
    Open,
    /// No, for this reason (CamelCase) and in these words.
    Closed(&'static str, String),
}

/// A backend, as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendView {
    /// Its name.
    pub name: String,
    /// Its own ceiling.
    pub max_runners: Option<u32>,
    /// Hash of its template.
    pub template_hash: String,
    /// Its hosts.
    pub hosts: Vec<HostState>,
}

/// What is to be done, and why not more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// min(maxRunners, minRunners + assigned jobs), schedule applied.
    pub desired: u32,
    /// The bounds that hold now.
    pub bounds: Bounds,
    /// What to do.
    pub actions: Vec<Action>,
    /// Idle runners for which there is no demand.
    pub surplus: Vec<String>,
    /// For how many runners a slot is wanted on each host.
    pub waiting: Vec<Waiting>,
    /// How many jobs the set can have in hand: what each poll tells GitHub.
    pub capacity: u32,
    /// Whether each assigned job has a runner, or why not.
    pub demand_status: DemandStatus,
    /// Why there are fewer runners than `minRunners`, where the hosts, or what runs there, are the cause: a condition
    /// reason, and words.
    pub short: Option<(&'static str, String)>,
    /// What all hosts of all backends say, where each refuses to work until something is changed.
    pub refused: Option<String>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make a host ready for starts.
    Prepare {
        /// The backend.
        backend: String,
        /// The host.
        host: String,
    },
    /// Start a runner.
    Start {
        /// The backend.
        backend: String,
        /// The host.
        host: String,
    },
    /// Deregister a runner, then stop it.
    Remove {
        /// The runner.
        runner: String,
        /// Why.
        why: Removal,
    },
    /// Clear away what is left of a runner that ended.
    Collect {
        /// The runner.
        runner: String,
    },
}

/// Why a runner is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Removal {
    /// There has been no demand for it for `scaleDown.delay`.
    Surplus,
    /// Its template is not the current one.
    Outdated,
    /// `timeouts.idle`
    IdleTimeout,
    /// `timeouts.lifetime`
    Lifetime,
    /// `timeouts.start`
    StartTimeout,
    /// A controller that is no more made it and did not come to start it.
    NeverStarted,
    /// `timeouts.job`: even though a job runs.
    JobTimeout,
    /// GitHub said long ago that its job was over, and it is still there.
    LingeringAfterJob,
    /// GitHub does not know it any more, so that no job can come to it: its instance could not be removed yet.
    Unregistered,
    /// The spec does not name its host any more.
    HostRemoved,
    /// Jobs waited for minutes while it was idle: it seems never to have reached GitHub.
    NeverConnected,
    /// The set is suspended.
    Suspended,
    /// The object is being deleted.
    Deleted,
    /// The object is being deleted and the drain is over: even though a job runs.
    DrainExpired,
}

impl Removal {
    /// Whether it takes a busy runner too, whatever GitHub says.
    pub fn forced(self) -> bool {
        matches!(self, Removal::JobTimeout | Removal::DrainExpired)
    }

    /// As events and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Removal::Surplus => "Surplus",
            Removal::Outdated => "Outdated",
            Removal::IdleTimeout => "IdleTimeout",
            Removal::Lifetime => "Lifetime",
            Removal::StartTimeout => "StartTimeout",
            Removal::NeverStarted => "NeverStarted",
            Removal::JobTimeout => "JobTimeout",
            Removal::LingeringAfterJob => "LingeringAfterJob",
            Removal::Unregistered => "Unregistered",
            Removal::HostRemoved => "HostRemoved",
            Removal::NeverConnected => "NeverConnected",
            Removal::Suspended => "Suspended",
            Removal::Deleted => "Deleted",
            Removal::DrainExpired => "DrainExpired",
        }
    }
}

/// Decides.
pub fn plan(input: &Input<'_>) -> Plan {
    let bounds = input.policy.bounds(input.now);
    let assigned = input.ledger.demand().assigned();
    let counts = Counts::of(input.ledger).without_linger_after_their_job(assigned);
    let desired = bounds.max.min(bounds.min.saturating_add(assigned.unwrap_or(0)));
    let idle_wanted = desired.saturating_sub(counts.busy);

    let scale_down = scale_down::scale_down(input, &bounds, idle_wanted, assigned.is_some());
    let wanted = desired.saturating_add(scale_down.replacements);
    let deficit = wanted.saturating_sub(counts.serving).min(bounds.max.saturating_sub(counts.occupying));
    let placement = placement::place(input, if input.policy.stands_down() { 0 } else { deficit });
    let headroom = bounds.max.saturating_sub(counts.occupying.saturating_add(placement.placed));
    let waiting = waiting::waiting(input, &placement, headroom);
    let demand_status = demand_status::judge(input, &bounds, assigned, &counts, &placement);
    let short = demand_status::short(input, &bounds, &counts, &placement);

    let capacity = capacity::capacity(input, &bounds, &counts);
    let mut wake_at = scale_down.wake_at;
    wake_at.extend(placement.wake_at);
    wake_at.extend(bounds.until);
    wake_at.extend(capacity.wake_at);
    wake_at.extend(input.ledger.demand().settles_at());
    let mut actions: Vec<Action> =
        input.ledger.runners().filter(|r| to_collect(r, input.now)).map(collect).collect();
    actions.extend(scale_down.actions);
    actions.extend(placement.actions);
    Plan {
        desired: if input.policy.stands_down() { 0 } else { desired },
        bounds,
        actions,
        surplus: scale_down.surplus,
        waiting,
        capacity: capacity.jobs,
        demand_status,
        short,
        refused: demand_status::refused(input),
        wake_at: wake_at.into_iter().filter(|at| *at > input.now).min(),
    }
}

/// Runners, counted the ways a decision needs.
#[derive(Debug, Default)]
struct Counts {
    /// Those that take a slot.
    occupying: u32,
    /// Those that can be counted on for demand.
    serving: u32,
    /// Of these, the ones with a job.
    busy: u32,
    /// Of these, the ones that are up.
    up: u32,
}

impl Counts {
    fn of(ledger: &Ledger) -> Counts {
        use crate::runner::Phase;
        let mut counts = Counts::default();
        for runner in ledger.runners() {
            counts.occupying += u32::from(runner.occupies());
            counts.serving += u32::from(runner.serves());
            counts.busy += u32::from(runner.serves() && runner.phase == Phase::Busy);
            counts.up += u32::from(runner.serves() && runner.phase != Phase::Pending);
        }
        // What they do is not known; until it is, they count as any runner that only a status tells of.
        let unseen = ledger.unseen(|_, _| true);
        for count in [&mut counts.occupying, &mut counts.serving, &mut counts.up] {
            *count = count.saturating_add(unseen);
        }
        counts
    }

    /// Where more runners are busy than GitHub counts jobs, some of the jobs are over for GitHub, as an earlier controller
    /// may have heard: those runners serve nobody any more.
    fn without_linger_after_their_job(self, assigned: Option<u32>) -> Counts {
        let over = assigned.map_or(0, |assigned| self.busy.saturating_sub(assigned));
        Counts { serving: self.serving - over, busy: self.busy - over, up: self.up - over, ..self }
    }
}

fn to_collect(runner: &Runner, now: Timestamp) -> bool {
    !runner.occupies() && runner.operation.is_none() && runner.retry_at.is_none_or(|at| at <= now)
}

fn collect(runner: &Runner) -> Action {
    Action::Collect { runner: runner.name.clone() }
}

/// Whether a runner's template is not its backend's current one, or its backend is not in the spec any more.
pub fn is_outdated(runner: &Runner, backends: &[BackendView]) -> bool {
    !runner.template_hash.is_empty()
        && backends.iter().all(|b| b.name != runner.backend || b.template_hash != runner.template_hash)
}

#[cfg(test)]
mod capacity_tests;
#[cfg(test)]
mod recycling_tests;
#[cfg(test)]
mod tests;
