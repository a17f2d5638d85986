//! What the ledger makes of what it is shown and told.

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::runner::{HostCount, InstanceState};

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
