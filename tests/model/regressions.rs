//! Histories that broke a rule once, as short as they were found to be.

use std::time::Duration;

use crate::history::Move::*;
use crate::history::{
    BackendSetup, Death, Fate, History, HostSetup, Kind, Move, SetSetup, Setup, Starts, Step, Weather,
};
use crate::play::play;
use crate::search::clear;

/// Hosts with so many slots each; none: no limit.
fn hosts(slots: &[Option<u32>]) -> Vec<HostSetup> {
    slots.iter().map(|slots| HostSetup { slots: *slots, foreign: 0 }).collect()
}

pub fn backend(hosts: &[usize], max: Option<u32>) -> BackendSetup {
    BackendSetup { hosts: hosts.to_vec(), max }
}

pub fn set(min: u32, max: u32, backends: Vec<BackendSetup>) -> SetSetup {
    SetSetup {
        min,
        max,
        backends,
        start: 120,
        job: 1200,
        idle: 0,
        lifetime: 0,
        delay: 60,
        drain: 60,
        warm: 0,
    }
}

pub fn world(slots: &[Option<u32>], sets: Vec<SetSetup>) -> Setup {
    Setup { kind: Kind::Docker, hosts: hosts(slots), sets, broker: true }
}

/// A move so many seconds after the one before.
pub fn after(seconds: u64, what: Move) -> Step {
    Step { after: Duration::from_secs(seconds), what }
}

/// The rules hold, whatever chance makes of it.
pub fn holds(setup: Setup, steps: Vec<Step>) {
    for seed in 0..20 {
        let history = History { seed, setup: setup.clone(), steps: steps.clone() };
        if play(&history, &clear(), false).violation.is_some() {
            let outcome = play(&history, &clear(), true);
            panic!("chance {seed}: {:?}\n{}", outcome.violation, outcome.trace.join("\n"));
        }
    }
}

#[test]
fn hosts_without_limits_are_room_without_limit() {
    let backends = vec![backend(&[0], None), backend(&[1], None)];
    holds(
        world(&[None, None], vec![set(0, 3, backends)]),
        vec![after(5, Queue { set: 0, jobs: 2, seconds: 5, hangs: false })],
    );
}

#[test]
fn a_start_whose_answer_is_lost_is_no_failure_of_the_runner() {
    let steps = vec![
        after(0, HostStarts { host: 0, starts: Starts::Unanswered, seconds: 120 }),
        after(1, Queue { set: 0, jobs: 2, seconds: 200, hangs: false }),
        after(200, Nothing),
    ];
    holds(world(&[Some(4)], vec![set(0, 2, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_deletion_ends_though_no_secret_can_be_read() {
    let steps = vec![
        after(5, Queue { set: 0, jobs: 2, seconds: 30, hangs: false }),
        after(10, HideSecrets { seconds: 3600 }),
        after(1, Delete { set: 0 }),
        after(600, Nothing),
    ];
    holds(world(&[None], vec![set(1, 3, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_deletion_ends_though_a_host_is_gone_for_good() {
    let steps = vec![
        after(5, Queue { set: 0, jobs: 2, seconds: 900, hangs: false }),
        after(10, HostAway { host: 0, seconds: 3600, fate: Fate::Gone }),
        after(1, Delete { set: 0 }),
        after(900, Nothing),
    ];
    holds(world(&[None], vec![set(1, 3, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_start_that_never_ends_is_replaced_within_the_ceiling() {
    let steps = vec![
        after(40, Max { set: 0, to: 3 }),
        after(0, HostStarts { host: 0, starts: Starts::Stuck, seconds: 120 }),
        after(0, Template { set: 0 }),
        after(60, Nothing),
    ];
    holds(world(&[None], vec![set(3, 5, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_start_that_is_slower_than_its_timeout_keeps_its_slot() {
    let steps = vec![
        after(0, HostStarts { host: 0, starts: Starts::Slow, seconds: 120 }),
        after(60, Queue { set: 0, jobs: 4, seconds: 200, hangs: false }),
    ];
    let mut slow = set(2, 3, vec![backend(&[0], None)]);
    slow.start = 60;
    holds(world(&[None], vec![slow]), steps);
}

#[test]
fn a_drain_that_is_over_does_not_spin_on_a_host_that_is_away() {
    let steps = vec![
        after(9, HostAway { host: 0, seconds: 400, fate: Fate::Killed }),
        after(0, Delete { set: 0 }),
        after(70, Nothing),
        after(60, Nothing),
    ];
    holds(world(&[Some(3)], vec![set(3, 6, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_drain_that_is_over_ends_what_a_failed_start_left_without_github() {
    let steps = vec![
        after(0, HostStarts { host: 0, starts: Starts::Stuck, seconds: 120 }),
        after(4, GitHub { weather: Weather::Down, seconds: 600 }),
        after(0, Delete { set: 0 }),
        after(300, Nothing),
        after(100, Nothing),
    ];
    holds(world(&[None], vec![set(2, 2, vec![backend(&[0], None)])]), steps);
}

#[test]
fn a_job_whose_offer_was_lost_is_acquired() {
    let mut setup = world(&[Some(2)], vec![set(0, 2, vec![backend(&[0], None)])]);
    setup.broker = false;
    holds(
        setup,
        vec![after(0, LoseMessage { set: 0 }), after(1, Queue { set: 0, jobs: 2, seconds: 1, hangs: false })],
    );
}

#[test]
fn an_outdated_runner_goes_though_its_backend_is_full() {
    let steps = vec![after(60, Template { set: 0 })];
    holds(world(&[None], vec![set(2, 6, vec![backend(&[0], Some(2))])]), steps.clone());
    holds(world(&[Some(2)], vec![set(2, 6, vec![backend(&[0], None)])]), steps.clone());
    holds(world(&[None], vec![set(3, 6, vec![backend(&[0], Some(2))])]), steps);
}

#[test]
fn a_runner_of_an_earlier_controller_keeps_its_slot_until_its_host_was_seen() {
    let mut pending = set(2, 2, vec![backend(&[0], None)]);
    pending.start = 60;
    let steps =
        vec![after(5, Crash { seconds: 60 }), after(37, EmptyListing { host: 0 }), after(24, Nothing)];
    holds(world(&[Some(6)], vec![pending]), steps);
}

/// Its registration is gone, and its instance cannot be removed. It is wanted again between two tries, which take a minute.
#[test]
fn a_runner_that_cannot_be_removed_is_no_capacity_once_it_is_deregistered() {
    let steps = vec![
        after(60, HostHangs { host: 0, seconds: 3600 }),
        after(5, Min { set: 0, to: 0 }),
        after(65, Min { set: 0, to: 2 }),
        after(900, Nothing),
    ];
    let mut spares = set(2, 6, vec![backend(&[0], None)]);
    spares.delay = 0;
    holds(world(&[Some(6)], vec![spares]), steps);
}

#[test]
fn a_host_that_is_left_out_is_drained_and_no_job_on_it_is_lost() {
    let both = || vec![backend(&[0], None), backend(&[1], None)];
    let steps = vec![
        after(60, Queue { set: 0, jobs: 2, seconds: 200, hangs: false }),
        after(20, LeaveOut { set: 0, host: 0 }),
        after(100, Nothing),
    ];
    holds(world(&[Some(3), Some(2)], vec![set(2, 6, both())]), steps.clone());
    // Also across a restart, and while the host is away.
    let mut steps_with_crash = steps.clone();
    steps_with_crash.insert(1, after(19, Crash { seconds: 2 }));
    steps_with_crash.insert(2, after(1, HostAway { host: 0, seconds: 20, fate: Fate::Kept }));
    holds(world(&[Some(3), Some(2)], vec![set(2, 6, both())]), steps_with_crash);
    let hosts_of_one = vec![backend(&[0, 1], None)];
    let mut steps_with_return = steps;
    steps_with_return.push(after(5, PutBack { set: 0 }));
    steps_with_return.push(after(100, Nothing));
    holds(world(&[Some(3), Some(2)], vec![set(2, 6, hosts_of_one)]), steps_with_return);
}

/// Its machine is gone for good: that is why it was left out.
#[test]
fn a_host_that_is_left_out_and_never_answers_again_takes_no_place_for_ever() {
    let backends = vec![backend(&[0], None), backend(&[1], None)];
    let steps = vec![
        after(60, HostAway { host: 0, seconds: 7200, fate: Fate::Killed }),
        after(20, LeaveOut { set: 0, host: 0 }),
        after(2400, Nothing),
    ];
    holds(world(&[Some(2), Some(2)], vec![set(2, 2, backends)]), steps);
}

/// Status names a hundred of its runners, and says how many there are.
#[test]
fn a_host_that_is_silent_after_a_restart_has_as_many_runners_as_status_said() {
    let backends = vec![backend(&[0], None), backend(&[1], None)];
    let steps = vec![
        after(120, HostAway { host: 0, seconds: 300, fate: Fate::Kept }),
        after(1, Crash { seconds: 1 }),
        after(1, Queue { set: 0, jobs: 118, seconds: 60, hangs: false }),
        after(60, Crash { seconds: 1 }),
        after(60, Nothing),
    ];
    let history = |seed| History {
        seed,
        setup: world(&[None, Some(4)], vec![set(110, 112, backends.clone())]),
        steps: steps.clone(),
    };
    for seed in 0..3 {
        assert_eq!(play(&history(seed), &clear(), false).violation.map(|v| v.what), None, "chance {seed}");
    }
}

/// GitHub refuses the removal while the job runs, and is asked again only after half a minute.
#[test]
fn what_is_left_of_a_runner_goes_as_soon_as_it_has_ended() {
    let steps = vec![
        after(120, Queue { set: 0, jobs: 1, seconds: 5, hangs: false }),
        after(3, Delete { set: 0 }),
        after(30, Nothing),
    ];
    holds(world(&[None], vec![set(1, 2, vec![backend(&[0], None)])]), steps);
}

/// GitHub said that the job was over to the controller before, and the runner died before the next one began. Another job
/// waits.
#[test]
fn a_job_that_an_earlier_controller_heard_the_end_of_is_not_taken_for_running() {
    let steps = vec![
        after(120, Queue { set: 0, jobs: 4, seconds: 200, hangs: false }),
        after(10, CompleteEarly { pick: 70 }),
        Step { after: Duration::from_millis(566), what: Restart { seconds: 10 } },
        after(0, Die { pick: 55, death: Death::Failed }),
    ];
    holds(world(&[Some(3)], vec![set(0, 5, vec![backend(&[0], None)])]), steps);
}
