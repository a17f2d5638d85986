//! The runner in an instance: it connects, takes one job, works, and ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::github::{End, JobState};
use crate::history::{Starts, Weather};
use crate::sim::{Sim, State};

/// What the runner finds when it looks.
enum Turn {
    /// Its instance is not running any more.
    Gone,
    /// GitHub does not know it.
    Unregistered,
    Wait,
    Work {
        set: usize,
        job: usize,
    },
}

/// Runs until the instance ends.
pub async fn run(sim: Arc<Sim>, host: usize, id: String, starts: Starts) {
    let (mut github, mut hosts) = (sim.github.follow(), sim.hosts[host].follow());
    match starts {
        Starts::Fatal => {
            sim.pause(10, 2_000).await;
            return end(&sim, host, &id, 1);
        }
        // Whatever becomes of its registration, it does not hear of it.
        Starts::Deaf => return,
        _ => {}
    }
    sim.pause(300, 3_000).await;
    loop {
        let turn = turn(&mut sim.state(), host, &id);
        match turn {
            Turn::Gone => return,
            Turn::Unregistered => {
                sim.pause(10, 2_000).await;
                return end(&sim, host, &id, 0);
            }
            Turn::Work { set, job } => {
                sim.github.tell();
                return work(&sim, host, &id, set, job).await;
            }
            Turn::Wait => tokio::select! {
                biased;
                () = github.changed() => {}
                () = hosts.changed() => {}
            },
        }
    }
}

fn turn(state: &mut State, host: usize, id: &str) -> Turn {
    let Some(instance) = state.hosts[host].instances.get(id).filter(|i| i.live()) else { return Turn::Gone };
    if state.github.weather == Weather::Down {
        return Turn::Wait;
    }
    let (registration, deregistered) = (instance.registration, instance.deregistered);
    let Some(runner) = state.github.registrations.get(&registration) else {
        // What hangs with its host is known to be no runner any more only to who let it go.
        return if deregistered.is_some() && state.hangs(host) { Turn::Wait } else { Turn::Unregistered };
    };
    let set = runner.set;
    match state.take_job(registration) {
        Some(job) => Turn::Work { set, job },
        None => Turn::Wait,
    }
}

async fn work(sim: &Arc<Sim>, host: usize, id: &str, set: usize, number: usize) {
    let (mut github, mut hosts) = (sim.github.follow(), sim.hosts[host].follow());
    let began = Instant::now();
    let end_of_job = loop {
        let done_at = {
            let state = sim.state();
            let job = &state.github.sets[set].jobs[number];
            let length =
                if job.hangs { Duration::from_secs(86_400) } else { Duration::from_secs(job.seconds.into()) };
            let done_at = began + length;
            if state.hosts[host].instances.get(id).is_none_or(|i| !i.live()) {
                return;
            }
            if !matches!(job.state, JobState::Running { .. }) {
                break None;
            }
            if state.github.weather != Weather::Down {
                if job.cancelled {
                    break Some(End::Cancelled);
                }
                if Instant::now() >= done_at {
                    break Some(End::Succeeded);
                }
            }
            done_at
        };
        tokio::select! {
            biased;
            () = sleep_until(done_at), if Instant::now() < done_at => {}
            () = github.changed() => {}
            () = hosts.changed() => {}
        }
    };
    if let Some(how) = end_of_job {
        sim.state().end_job(set, number, how);
        sim.github.tell();
    }
    sim.pause(50, 3_000).await;
    end(sim, host, id, 0);
}

fn end(sim: &Arc<Sim>, host: usize, id: &str, code: i64) {
    sim.state().end_instance(host, id, code, false);
    sim.hosts[host].tell();
    sim.github.tell();
}
