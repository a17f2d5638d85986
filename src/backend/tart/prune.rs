//! Removes pulled images by age and budget, on a timer. Local VMs are never among them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::failure::told;
use super::mac::Mac;
use super::scripts;
use super::template::Prune;
use crate::rng;
use crate::time::Plus;

/// For a removal of many large files.
const PRUNE: Duration = Duration::from_secs(600);
/// A controller that has just begun leaves the host alone for so long, or for as long as the interval if that is shorter.
const AT_FIRST: Duration = Duration::from_secs(600);
/// After a try that failed.
const RETRY: Duration = Duration::from_secs(600);

/// What the users of a Mac want to be removed there, and how often.
#[derive(Debug, Default)]
pub(super) struct Pruning {
    wishes: Mutex<(u64, HashMap<u64, Wish>)>,
    changed: Notify,
}

type Wish = (Option<Prune>, Duration);

impl Pruning {
    /// Adds a user's wish. Answers its number.
    pub(super) fn join(&self, wish: Wish) -> u64 {
        let mut wishes = self.wishes();
        wishes.0 += 1;
        let number = wishes.0;
        wishes.1.insert(number, wish);
        self.changed.notify_one();
        number
    }

    /// A user left.
    pub(super) fn leave(&self, number: u64) {
        self.wishes().1.remove(&number);
        self.changed.notify_one();
    }

    fn wishes(&self) -> MutexGuard<'_, (u64, HashMap<u64, Wish>)> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mildest(&self) -> Option<(Prune, Duration)> {
        mildest(self.wishes().1.values())
    }

    /// Prunes again and again, for as long as this is awaited. `freed` is told how many bytes went each time.
    pub(super) async fn keep(&self, mac: &Mac, freed: impl Fn(u64)) -> Infallible {
        let begun = Instant::now();
        let mut next: Option<Instant> = None;
        loop {
            let Some((prune, interval)) = self.mildest() else {
                self.changed.notified().await;
                continue;
            };
            let at = next.unwrap_or_else(|| begun.plus(AT_FIRST.min(interval)));
            tokio::select! {
                () = self.changed.notified() => continue,
                () = sleep_until(at) => {}
            }
            let done = run(mac, prune).await;
            done.into_iter().for_each(&freed);
            let pause = if done.is_some() { interval } else { RETRY.min(interval) };
            next = Some(Instant::now().plus(pause.mul_f64(0.9 + 0.2 * rng::unit())));
        }
    }
}

/// What all users of a Mac agree to: nothing, if one wants nothing removed.
fn mildest<'a>(wishes: impl Iterator<Item = &'a Wish>) -> Option<(Prune, Duration)> {
    let mut all = None;
    for (prune, interval) in wishes {
        let prune = (*prune)?;
        let (before, pause): (Prune, Duration) = all.unwrap_or((prune, *interval));
        let prune = Prune {
            older_than_days: prune.older_than_days.max(before.older_than_days),
            budget_gb: prune.budget_gb.max(before.budget_gb),
        };
        all = Some((prune, pause.max(*interval)));
    }
    all
}

/// Answers how many bytes that freed, once it is done.
async fn run(mac: &Mac, prune: Prune) -> Option<u64> {
    // No image goes while another is pulled, which counts against the budget before it can be used.
    let _turn = mac.host.images.lock().await;
    let script = mac
        .script("pruning images", scripts::PRUNE, PRUNE)
        .arg(prune.older_than_days.to_string())
        .arg(prune.budget_gb.to_string());
    match mac.run(&script).await {
        Ok(output) if output.code == Some(0) => {
            let freed = freed(&output.text());
            info!(endpoint = %mac.endpoint, freed, "images that were not used lately are pruned");
            mac.suspect();
            Some(freed)
        }
        Ok(output) => {
            warn!(endpoint = %mac.endpoint, why = told(&output.errors()), "images cannot be pruned");
            None
        }
        Err(error) => {
            debug!(endpoint = %mac.endpoint, %error, "images cannot be pruned now");
            None
        }
    }
}

/// Reads the sizes of the cache before and after, in KiB. They are those of its files: blocks that a clone shares go with it.
fn freed(printed: &str) -> u64 {
    let size = |word: &str| -> Option<u64> {
        printed.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
    };
    let (before, after) = (size("before "), size("after "));
    before.zip(after).map_or(0, |(before, after)| before.saturating_sub(after).saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_is_what_the_cache_lost_and_never_less_than_nothing() {
        for (printed, bytes) in [
            ("before 100\nimage removed\nafter 40\n", 60 * 1024),
            ("before 40\nafter 100\n", 0),
            ("before \nafter 100\n", 0),
            ("", 0),
        ] {
            assert_eq!(freed(printed), bytes, "{printed:?}");
        }
    }

    #[test]
    fn where_scale_sets_disagree_the_mildest_counts() {
        let hour = Duration::from_secs(3600);
        let wish = |days, gb, hours| {
            (Some(Prune { older_than_days: days, budget_gb: gb }), hour.saturating_mul(hours))
        };
        let (a, b) = (wish(7, 80, 24), wish(14, 50, 6));
        let both = Prune { older_than_days: 14, budget_gb: 80 };
        assert_eq!(mildest([&a, &b].into_iter()), Some((both, hour * 24)));
        assert_eq!(mildest([&a, &b, &(None, hour)].into_iter()), None, "one wants nothing removed");
        assert_eq!(mildest([].into_iter()), None);
    }
}
