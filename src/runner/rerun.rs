//! Workflow runs that lost a job with its runner and are to be run again: which are waited for, when GitHub is asked for one, and
//! what came of it. No IO, no clock.

use std::time::Duration;

use jiff::Timestamp;

use super::Job;
pub use crate::api::status::RerunState;
use crate::time::{Backoff, Plus};

/// A run that goes on is asked for again after this.
const PAUSE: Backoff = Backoff { first: Duration::from_secs(10), last: Duration::from_secs(600) };
/// A run is waited for this long: GitHub runs none again before its last job is over.
const WAITED_FOR: Duration = Duration::from_secs(6 * 3600);
/// So many runs are kept, those that are waited for before others.
const KEPT: usize = 50;
/// Of those of which something came, so many.
const SETTLED_KEPT: usize = 5;

/// A workflow run that is to be run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerun {
    /// `owner/repository`.
    pub repository: String,
    /// GitHub's id of the run.
    pub run_id: i64,
    /// When the first of its jobs was lost.
    pub since: Timestamp,
    /// What came of it.
    pub state: RerunState,
    /// What GitHub said last, where it refused.
    pub message: String,
    /// How often GitHub was asked.
    asked: u32,
    /// Not before this is it asked again.
    next_at: Timestamp,
    /// GitHub is being asked.
    under_way: bool,
}

/// What GitHub answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RerunAnswer {
    /// It runs them again.
    Requested,
    /// Not now: not before the pause is over is it to be asked again.
    Later(String, Duration),
    /// Not with this credential.
    Refused(String),
}

impl Rerun {
    /// A run that is waited for since then.
    pub fn waiting(repository: impl Into<String>, run_id: i64, since: Timestamp) -> Rerun {
        Rerun {
            repository: repository.into(),
            run_id,
            since,
            state: RerunState::Waiting,
            message: String::new(),
            asked: 0,
            next_at: since,
            under_way: false,
        }
    }

    fn is(&self, repository: &str, run_id: i64) -> bool {
        self.run_id == run_id && self.repository == repository
    }

    fn waits(&self) -> bool {
        self.state == RerunState::Waiting
    }
}

/// The runs of one scale set, newest first.
#[derive(Debug, Default)]
pub struct Reruns(Vec<Rerun>);

impl Reruns {
    /// All that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Rerun> {
        self.0.iter()
    }

    /// Takes over what a status tells, newest first.
    pub(super) fn restore(&mut self, remembered: impl IntoIterator<Item = Rerun>) {
        self.0.extend(remembered.into_iter().take(KEPT));
    }

    /// Notes that a job was lost which is to be run again. All jobs that an attempt of a run loses are run again at once.
    pub(super) fn note(&mut self, job: &Job, now: Timestamp) {
        let Job { repository, run_id, .. } = job;
        if self.0.iter().any(|known| known.is(repository, *run_id) && known.waits()) {
            return;
        }
        self.0.retain(|known| !known.is(repository, *run_id));
        self.0.insert(0, Rerun::waiting(repository, *run_id, now));
        let mut settled = 0;
        self.0.retain(|known| {
            settled += usize::from(!known.waits());
            known.waits() || settled <= SETTLED_KEPT
        });
        self.0.truncate(KEPT);
    }

    /// The runs that GitHub is to be asked for now. Each counts as being asked for until [`Reruns::answered`].
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<(String, i64)> {
        let due = self.0.iter_mut().filter(|run| run.waits() && !run.under_way && run.next_at <= now);
        due.map(|run| {
            run.under_way = true;
            (run.repository.clone(), run.run_id)
        })
        .collect()
    }

    /// When the next one is due.
    pub fn due_at(&self) -> Option<Timestamp> {
        self.0.iter().filter(|run| run.waits() && !run.under_way).map(|run| run.next_at).min()
    }

    /// Notes what GitHub answered. Answers the run if it is waited for no more.
    pub(super) fn answered(
        &mut self,
        (repository, run_id): (&str, i64),
        answer: RerunAnswer,
        now: Timestamp,
    ) -> Option<Rerun> {
        let run = self.0.iter_mut().find(|run| run.is(repository, run_id) && run.under_way)?;
        run.under_way = false;
        run.asked += 1;
        (run.state, run.message) = match answer {
            RerunAnswer::Requested => (RerunState::Requested, String::new()),
            RerunAnswer::Refused(why) => (RerunState::Refused, why),
            RerunAnswer::Later(why, _) if run.since.plus(WAITED_FOR) <= now => (RerunState::GivenUp, why),
            RerunAnswer::Later(why, pause) => {
                run.next_at = now.plus(pause.max(PAUSE.after(run.asked)));
                (RerunState::Waiting, why)
            }
        };
        Some(run.clone()).filter(|run| !run.waits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn job(run_id: i64) -> Job {
        Job { repository: "acme/app".to_owned(), run_id, ..Job::default() }
    }

    fn later() -> RerunAnswer {
        RerunAnswer::Later("it goes on".to_owned(), Duration::ZERO)
    }

    fn states(runs: &Reruns) -> Vec<(i64, RerunState)> {
        runs.iter().map(|run| (run.run_id, run.state)).collect()
    }

    #[test]
    fn a_run_is_asked_for_once_however_many_of_its_jobs_were_lost() {
        let mut runs = Reruns::default();
        runs.note(&job(1), at(0));
        runs.note(&job(1), at(1));
        runs.note(&job(2), at(1));
        assert_eq!(runs.due(at(1)).len(), 2);
        runs.note(&job(1), at(2));
        assert!(runs.due(at(2)).is_empty(), "it is being asked for");
        let told = runs.answered(("acme/app", 1), RerunAnswer::Requested, at(3)).unwrap();
        assert_eq!((told.state, told.since), (RerunState::Requested, at(0)));
        assert!(runs.answered(("acme/app", 1), RerunAnswer::Requested, at(3)).is_none());
        runs.note(&job(1), at(9));
        assert_eq!(states(&runs), [(1, RerunState::Waiting), (2, RerunState::Waiting)], "its next attempt");
    }

    #[test]
    fn a_run_that_goes_on_is_asked_for_ever_more_slowly_and_given_up_after_six_hours() {
        let mut runs = Reruns::default();
        runs.note(&job(1), at(0));
        let (mut asked, mut pauses) = (0, Vec::new());
        while let Some(due) = runs.due_at() {
            assert_eq!(runs.due(due).len(), 1);
            asked += 1;
            if let Some(given_up) = runs.answered(("acme/app", 1), later(), due) {
                assert_eq!((given_up.state, given_up.message.as_str()), (RerunState::GivenUp, "it goes on"));
                assert!(due >= at(6 * 3600) && due <= at(6 * 3600 + 600), "{due}");
                break;
            }
            pauses.push(runs.due_at().unwrap().duration_since(due).as_secs());
        }
        assert!((40..60).contains(&asked), "{asked}");
        assert!((8..=10).contains(&pauses[0]) && pauses.iter().all(|pause| *pause <= 600), "{pauses:?}");
        assert_eq!(runs.due_at(), None);
    }

    #[test]
    fn a_limited_rate_is_waited_out_and_a_refusal_is_final() {
        let mut runs = Reruns::default();
        runs.note(&job(1), at(0));
        runs.due(at(0));
        let limited = RerunAnswer::Later(String::new(), Duration::from_secs(900));
        assert!(runs.answered(("acme/app", 1), limited, at(0)).is_none());
        assert_eq!(runs.due_at(), Some(at(900)));
        runs.due(at(900));
        let refused = RerunAnswer::Refused("no right".to_owned());
        assert_eq!(runs.answered(("acme/app", 1), refused, at(900)).unwrap().message, "no right");
        assert!(runs.due(at(9_000)).is_empty());
    }

    #[test]
    fn a_restart_asks_for_what_was_waited_for_and_for_nothing_else() {
        let settled =
            |run_id| Rerun { state: RerunState::Requested, ..Rerun::waiting("acme/app", run_id, at(0)) };
        let mut runs = Reruns::default();
        runs.restore([Rerun::waiting("acme/app", 3, at(5)), settled(2), settled(1)]);
        assert_eq!(runs.due(at(10)), [("acme/app".to_owned(), 3)]);
    }

    #[test]
    fn what_is_settled_goes_before_what_is_waited_for() {
        let mut runs = Reruns::default();
        runs.restore(
            (0..20).map(|n| Rerun { state: RerunState::Refused, ..Rerun::waiting("a/b", n, at(0)) }),
        );
        (100..200).for_each(|n| runs.note(&job(n), at(n)));
        assert_eq!(runs.iter().count(), KEPT);
        assert!(runs.iter().all(|run| run.waits() && run.run_id >= 150));
    }
}
