//! Housekeeping on Docker hosts: what jobs leave behind, removed on a timer and when the disk fills up. Per host, however many
//! scale sets use it, and one thing at a time.

mod builders;
mod helper;
mod report;
mod round;
mod rules;
mod stores;
mod volume;
mod wishes;

use std::convert::Infallible;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

pub(super) use helper::HelperImage;
pub use report::Store;
pub use rules::{DiskGuard, Rules};
pub use volume::SharedVolume;
pub(super) use volume::{Opened, Volume, not_ready};
pub(super) use wishes::{Wish, Wishes, Wishing};

use super::host::Host;
use crate::rng;
use crate::time::Plus;
use report::Report;
use round::Round;

/// A round ends after this, wherever it is.
const ROUND: Duration = Duration::from_secs(600);
/// A controller that has just begun leaves the host alone for so long, or for as long as the interval if that is shorter.
const AT_FIRST: Duration = Duration::from_secs(600);
/// How often the disk is looked at, or as often as the interval if that is shorter.
const LOOK: Duration = Duration::from_secs(600);
/// The disk is looked at so soon after a scale set began to use the host: its image comes with it.
const SOON: Duration = Duration::from_secs(30);
/// After a try that failed.
const RETRY: Duration = Duration::from_secs(600);

/// When something is due again.
struct Timer {
    from: Instant,
    after: Duration,
}

impl Timer {
    fn after(pause: Duration) -> Timer {
        Timer { from: Instant::now(), after: pause.mul_f64(0.9 + 0.2 * rng::unit()) }
    }

    /// That at the latest.
    fn sooner(self, pause: Duration) -> Timer {
        let other = Timer::after(pause);
        if other.from.plus(other.after) < self.from.plus(self.after) { other } else { self }
    }

    /// A pause that has become shorter counts at once.
    fn due(&self, longest: Duration) -> Instant {
        self.from.plus(self.after.min(longest.mul_f64(1.1)))
    }
}

/// Keeps a host clean, for as long as this is awaited. `freed` is told how many bytes went from where.
pub(super) async fn keep(
    wishes: &Wishes,
    host: &Host,
    (endpoint, cluster): (&str, &str),
    freed: impl Fn(Store, u64),
) -> Infallible {
    let (mut next_round, mut next_look) = (Timer::after(AT_FIRST), Timer::after(SOON));
    loop {
        let Some(agreed) = wishes.agreed() else {
            wishes.changed().await;
            next_look = Timer::after(SOON);
            continue;
        };
        let interval = agreed.rules.interval;
        let (round_at, look_at) = (next_round.due(interval), next_look.due(interval));
        tokio::select! {
            () = wishes.changed() => {
                next_look = next_look.sooner(SOON);
                continue;
            }
            () = sleep_until(round_at.min(look_at)) => {}
        }
        let whole = round_at <= Instant::now();
        let Some(client) = host.client() else {
            (next_round, next_look) = (Timer::after(RETRY), Timer::after(RETRY));
            continue;
        };
        let mut report = Report::default();
        let round = Round { host, docker: &client.docker, cluster, agreed: &agreed };
        let made = timeout(ROUND, async {
            if whole {
                round.clean(&mut report).await;
            }
            round.guard(&mut report).await;
        });
        let done = made.await.is_ok();
        if !done {
            warn!(endpoint, seconds = ROUND.as_secs(), "housekeeping is cut off: it goes on later");
        }
        if whole {
            next_round = Timer::after(if done { interval } else { RETRY });
        }
        next_look = Timer::after(LOOK);
        publish(wishes, host, endpoint, &report, &freed);
    }
}

/// Tells the log, the metrics and the scale sets on the host.
fn publish(wishes: &Wishes, host: &Host, endpoint: &str, report: &Report, freed: &impl Fn(Store, u64)) {
    for part in &report.freed {
        info!(endpoint, store = part.store.as_str(), bytes = part.bytes, "housekeeping freed space");
        freed(part.store, part.bytes);
    }
    if let Some(low) = &report.low {
        warn!(endpoint, low, "the disk stays too full");
    }
    if wishes.tell(report, Timestamp::now()) {
        host.requeue_all();
    }
}
