//! The events that a scale set at work tells of, each made in one place.

use crate::api::{Explanation, FINALIZER, Reason};
use crate::backend::HostNews;
use crate::runner::{Failure, Rerun, RerunState};

/// What befalls only runners that had begun, beside an end with an exit code.
const BEGUN: [Reason; 6] = [
    Reason::Vanished,
    Reason::JobLost,
    Reason::JobTimeout,
    Reason::NeverConnected,
    Reason::SpotInterruption,
    Reason::HostLost,
];

/// Something that is told of an object once, beside what its status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether someone should look at it.
    pub warning: bool,
    /// Why it is told, CamelCase.
    pub reason: Reason,
    /// What was being done, CamelCase.
    pub action: &'static str,
    /// What happened, in words.
    pub note: String,
}

impl Event {
    fn normal(reason: Reason, action: &'static str, note: String) -> Event {
        Event { warning: false, reason, action, note }
    }

    fn warning(reason: Reason, action: &'static str, note: impl Into<String>) -> Event {
        Event { warning: true, reason, action, note: note.into() }
    }

    /// The scale set exists at GitHub.
    pub fn registered(name: &str, id: i64) -> Event {
        Event::normal(
            Reason::Registered,
            "Register",
            format!("scale set `{name}` is registered at GitHub with id {id}"),
        )
    }

    /// The scale set is not at GitHub as it should be.
    pub fn not_registered(why: Explanation) -> Event {
        Event::warning(why.reason, "Register", why.message)
    }

    /// The object cannot be reconciled without a change.
    pub fn stalled(why: Explanation) -> Event {
        Event::warning(why.reason, "Reconcile", why.message)
    }

    /// Runners are being started.
    pub fn scaled_up(starts: usize, desired: u32) -> Event {
        let note = format!("starting {starts} more of {desired} wanted runners");
        Event::normal(Reason::ScaledUp, "Scale", note)
    }

    /// Jobs wait for runners that cannot be started.
    pub fn demand_unmet(why: Explanation) -> Event {
        Event::warning(why.reason, "Scale", why.message)
    }

    /// Fewer runners than `minRunners` are there, or none could be: no host takes any.
    pub fn short_of_runners(why: Explanation) -> Event {
        Event::warning(why.reason, "Scale", why.message)
    }

    /// A runner failed, or its start did.
    pub fn failed(failure: &Failure) -> Event {
        let had_begun = failure.exit_code.is_some() || BEGUN.contains(&failure.reason);
        let Failure { runner, backend, host, reason, message, .. } = failure;
        let note = format!("runner {runner} on {backend}/{host}: {reason}: {message}");
        Event::warning(if had_begun { Reason::RunnerFailed } else { Reason::StartFailed }, "Start", note)
    }

    /// What came of a workflow run that lost jobs.
    pub fn rerun(run: &Rerun) -> Event {
        let Rerun { repository, run_id, message, .. } = run;
        if run.state == RerunState::Requested {
            let note =
                format!("run {run_id} of {repository} lost jobs with their runners: they are run again");
            return Event::normal(Reason::RerunRequested, "Rerun", note);
        }
        let note = format!(
            "run {run_id} of {repository} lost jobs with their runners, and is not run again: {message}"
        );
        Event::warning(Reason::RerunRefused, "Rerun", note)
    }

    /// Hosts that the spec left out went with what was on them.
    pub fn left_on_hosts(what: &[String]) -> Event {
        let what = what.join(", ");
        let note = format!("hosts that the spec left out do not answer; this was left behind: {what}");
        Event::warning(Reason::LeftBehind, "Drain", note)
    }

    /// What housekeeping did on a host, or could not do.
    pub fn housekeeping(backend: &str, news: &HostNews) -> Event {
        let reason = if news.warning { Reason::DiskFull } else { Reason::SpaceFreed };
        let note = format!("{backend}/{}: {}", news.host, news.message);
        Event { warning: news.warning, reason, action: "Housekeep", note }
    }

    /// The object is being deleted, and stays until all of it is gone.
    pub fn draining() -> Event {
        let note = format!(
            "it is being deleted: it goes when its runners and the scale set at GitHub are gone and the controller has removed the \
             finalizer {FINALIZER}"
        );
        Event::normal(Reason::Draining, "Delete", note)
    }

    /// Nothing is left of a deleted object; `scale_set_stays` where the scale set at GitHub is another's.
    pub fn deleted(scale_set_stays: bool) -> Event {
        let note = match scale_set_stays {
            true => "all runners and their registrations are gone; the scale set is another's, and stays",
            false => "all runners, their registrations and the scale set are gone",
        };
        Event::normal(Reason::Deleted, "Delete", note.to_owned())
    }

    /// A deleted object goes, and what could not be removed stays.
    pub fn left_behind(what: &[String]) -> Event {
        let note = format!("the drain is over; this was left behind: {}", what.join("; "));
        Event::warning(Reason::LeftBehind, "Delete", note)
    }

    /// The object cannot be read.
    pub fn unreadable(error: &str) -> Event {
        let note = format!("it cannot be read, and is left alone until it changes: {error}");
        Event::warning(Reason::Unreadable, "Reconcile", note)
    }
}
