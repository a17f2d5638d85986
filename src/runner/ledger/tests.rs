//! What the ledger makes of what it is shown and told.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::api::{Explanation, Reason};
use crate::runner::{Cause, HostCount, InstanceState};

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + second)
}

fn instance(runner: &str, state: InstanceState) -> Instance {
    Instance {
        id: format!("id-{runner}"),
        runner: runner.to_owned(),
        scale_set_uid: "uid".to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        template_hash: "t1".to_owned(),
        created_at: at(0),
        state,
    }
}

fn listing(listed_at: Option<i64>, instances: Vec<Instance>) -> Observation {
    Observation {
        hides: Duration::ZERO,
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        listed_at: listed_at.map(at),
        instances,
    }
}

/// A ledger with one runner that is up.
fn with_one_idle() -> Ledger {
    let mut ledger = Ledger::new();
    ledger.observe(&[listing(Some(0), vec![instance("a", InstanceState::Running)])], at(0));
    ledger
}

/// GitHub answered that a job runs on it: asked again in half a minute. By then the job is over and the runner has ended.
#[test]
fn what_is_left_of_a_runner_is_due_when_it_ends_whenever_its_removal_was_to_be_tried_again() {
    let mut ledger = with_one_idle();
    ledger.begin_removal("a");
    ledger.found_busy("a", at(1));
    let exit = Exit { code: Some(0), out_of_memory: false, at: at(5), ..Exit::default() };
    ledger.observe(&[listing(Some(5), vec![instance("a", InstanceState::Exited(exit))])], at(5));
    assert_eq!(ledger.runner("a").unwrap().leaving.retry_at, None);
}

/// The answer was under way when the runner ended.
#[test]
fn an_answer_that_a_runner_is_busy_holds_up_nothing_once_the_runner_has_ended() {
    let mut ledger = with_one_idle();
    ledger.begin_removal("a");
    let exit = Exit { code: Some(0), out_of_memory: false, at: at(5), ..Exit::default() };
    ledger.observe(&[listing(Some(5), vec![instance("a", InstanceState::Exited(exit))])], at(5));
    ledger.found_busy("a", at(6));
    let runner = ledger.runner("a").unwrap();
    assert_eq!((runner.phase, runner.operation, runner.leaving.retry_at), (Phase::Done, None, None));
}

#[test]
fn a_deregistered_runner_is_no_capacity_and_keeps_its_slot() {
    let mut ledger = with_one_idle();
    ledger.begin_removal("a");
    ledger.deregistered("a");
    ledger.removal_failed("a", at(10));
    let runner = ledger.runner("a").unwrap();
    assert!(runner.occupies(), "its instance may run");
    assert!(!runner.serves(), "no job can come to it");
}

/// A host that the spec left out and that does not answer: no job can be on what has ended or what GitHub let go of.
#[test]
fn of_a_host_that_does_not_come_back_nothing_is_given_up_that_may_have_a_job() {
    let mut ledger = Ledger::new();
    let running = ["a", "b", "c"].map(|name| instance(name, InstanceState::Running));
    ledger.observe(&[listing(Some(0), running.to_vec())], at(0));
    ledger.restore_counts([HostCount { backend: "rack".to_owned(), host: "rack-1".to_owned(), runners: 5 }]);
    ledger.deregistered("a");
    ledger.registered("b", 1);
    assert_eq!(ledger.unseen(|_, _| true), 2);
    assert_eq!(ledger.give_up("rack", "rack-1", at(1)), ["a"]);
    assert_eq!(ledger.runners().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(ledger.unseen(|_, _| true), 0);
}

/// It was counted by its name: that it is gone makes nobody else of its count.
#[test]
fn a_runner_that_status_named_is_not_counted_anew_when_it_is_given_up() {
    let mut ledger = Ledger::new();
    ledger.observe(&[listing(Some(0), vec![instance("a", InstanceState::Running)])], at(0));
    ledger.restore_counts([HostCount { backend: "rack".to_owned(), host: "rack-1".to_owned(), runners: 2 }]);
    assert_eq!(ledger.unseen(|_, _| true), 1);
    ledger.retire("a", at(1));
    assert_eq!(ledger.unseen(|_, _| true), 1);
}

fn ended(code: i64, cause: Option<Cause>) -> InstanceState {
    InstanceState::Exited(Exit {
        code: Some(code),
        at: at(5),
        cause,
        leaves_nothing: true,
        ..Exit::default()
    })
}

fn interruption() -> Option<Cause> {
    let message = "Your Spot Task was interrupted.".to_owned();
    Some(Cause { why: Explanation::new(Reason::SpotInterruption, message), blameless: true, rerun: true })
}

fn started_job() -> JobEvent {
    let job = Job { id: "1".to_owned(), display_name: "build".to_owned(), run_id: 7, ..Job::default() };
    JobEvent::Started { job, runner_name: "a".to_owned(), runner_id: 1 }
}

/// The runner is told to end, and may still tell GitHub that it gives its job up.
#[test]
fn an_interruption_is_told_with_its_job_whatever_github_says_of_that_first() {
    for outcome in [None, Some(JobOutcome::Canceled), Some(JobOutcome::Succeeded)] {
        let mut ledger = with_one_idle();
        ledger.apply(&started_job(), at(1));
        if let Some(outcome) = outcome {
            let job = started_job().job().clone();
            ledger.apply(&JobEvent::Completed { job, runner_name: "a".to_owned(), outcome }, at(4));
        }
        ledger.observe(&[listing(Some(5), vec![instance("a", ended(143, interruption()))])], at(5));
        let told: Vec<_> = ledger.failures().recent().map(|f| (f.reason, f.message.clone())).collect();
        let message = "Your Spot Task was interrupted. (exit code 143) while `build` was running".to_owned();
        let lost = vec![(Reason::SpotInterruption, message)];
        let expected = if outcome == Some(JobOutcome::Succeeded) { Vec::new() } else { lost };
        assert_eq!(told, expected, "{outcome:?}");
        let reruns: Vec<i64> = ledger.reruns().iter().map(|run| run.run_id).collect();
        assert_eq!(reruns, vec![7; expected.len()], "what is lost is to be run again: {outcome:?}");
        assert!(ledger.failures().on_host("rack", "rack-1", at(5)).is_none(), "nobody is to blame");
    }
}

#[test]
fn each_step_of_the_way_up_has_the_whole_time() {
    let mut ledger = Ledger::new();
    let mut show = |step, second| {
        let made = instance("a", InstanceState::Launching(step));
        ledger.observe(&[listing(Some(second), vec![made])], at(second));
        let runner = ledger.runner("a").unwrap();
        assert_eq!(runner.phase, Phase::Pending);
        runner.since.duration_since(at(0)).as_secs()
    };
    let since: Vec<i64> =
        [("PROVISIONING", 10), ("PROVISIONING", 20), ("PENDING", 30), ("PENDING", 40), ("ACTIVATING", 50)]
            .map(|(step, second)| show(step, second))
            .into();
    assert_eq!(since, [0, 0, 30, 30, 50]);
}

#[test]
fn of_what_ended_unknown_and_left_nothing_nothing_is_made() {
    let mut ledger = Ledger::new();
    ledger.observe(&[listing(Some(5), vec![instance("a", ended(1, None))])], at(5));
    assert!(ledger.runners().next().is_none() && ledger.failures().recent().next().is_none());
}

/// A controller that begins knows of a runner by status alone, and its host may not show it yet.
#[test]
fn a_runner_is_not_missed_while_its_host_may_hide_it() {
    let mut ledger = Ledger::new();
    let remembered = PersistedRunner {
        name: "a".to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        instance_id: None,
        phase: Phase::Pending,
        since: at(0),
        job: None,
    };
    ledger.restore([remembered], at(1));
    let mut look = |second| {
        let hides = Duration::from_secs(300);
        ledger.observe(&[Observation { hides, ..listing(Some(second), Vec::new()) }], at(second));
        ledger.runner("a").is_some_and(Runner::occupies)
    };
    assert!([10, 100, 299, 300].into_iter().all(&mut look), "the first look that counts is one alone");
    assert!(!look(310));
}

#[test]
fn where_a_runner_printed_is_told_with_its_end() {
    let log = Some("https://logs.example.com/1".to_owned());
    let exit = Exit { code: Some(1), at: at(5), log, leaves_nothing: true, ..Exit::default() };
    let mut ledger = with_one_idle();
    ledger.observe(&[listing(Some(5), vec![instance("a", InstanceState::Exited(exit))])], at(5));
    let told: Vec<_> = ledger.failures().recent().map(|f| f.message.as_str()).collect();
    assert_eq!(told, ["it ended with exit code 1 before it had a job; its log: https://logs.example.com/1"]);
}

/// An earlier controller may have heard that the job is over, and nobody says it again. Else GitHub counts it as running until it
/// gives the runner up.
#[test]
fn the_job_of_a_runner_that_is_found_dead_is_off_the_demand_only_while_github_counts_it() {
    let job = Job { id: "1".to_owned(), display_name: "build".to_owned(), ..Job::default() };
    let remembered = PersistedRunner {
        name: "a".to_owned(),
        backend: "rack".to_owned(),
        host: "rack-1".to_owned(),
        instance_id: None,
        phase: Phase::Busy,
        since: at(0),
        job: Some(job),
    };
    for (running, demand) in [(0, 1), (1, 0)] {
        let mut ledger = Ledger::new();
        ledger.restore([remembered.clone()], at(1));
        ledger.count(Statistics { assigned: 1, running, ..Statistics::default() }, at(1));
        ledger.observe(&[listing(Some(6), vec![instance("a", ended(1, None))])], at(6));
        assert_eq!(ledger.demand().assigned(), Some(demand), "{running} running");
    }
}
