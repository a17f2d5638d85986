//! Waits for a host to show what it is like, for people who ask.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Availability, Backend, HostState};
use crate::time::Plus;

/// A host that has not answered after so long is taken for one that does not: time for a slow login and a second try.
const FIRST_ANSWER: Duration = Duration::from_secs(15);
/// An image that is not there after so long is not waited for.
const PREPARATION: Duration = Duration::from_secs(1800);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Waits until a host of a backend has shown what it is like, and prepares it as before a start. `tell` is told what it is
/// about meanwhile.
pub async fn settle(backend: &dyn Backend, host: &str, tell: &(dyn Fn(&str) + Sync)) -> HostState {
    let (answers_until, prepared_until) =
        (Instant::now().plus(FIRST_ANSWER), Instant::now().plus(PREPARATION));
    loop {
        let Some(state) = backend.hosts().into_iter().find(|state| state.name == host) else {
            return missing(host);
        };
        let now = Instant::now();
        match state.availability {
            Availability::Ready | Availability::BackOff { .. } | Availability::Refused => return state,
            Availability::Unreachable if now >= answers_until => return state,
            Availability::Unreachable => {}
            _ if now >= prepared_until => return state,
            Availability::Unprepared => backend.prepare(host),
            Availability::Preparing { .. } => tell(&state.message),
        }
        sleep(LOOK).await;
    }
}

fn missing(host: &str) -> HostState {
    HostState {
        name: host.to_owned(),
        availability: Availability::Refused,
        slots: 0,
        free_slots: 0,
        warm: 0,
        failures: 0,
        message: "there is no such host".to_owned(),
    }
}
