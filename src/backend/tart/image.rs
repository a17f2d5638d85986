//! Images on a Mac: pulled by policy, once for all who wait for the same, and one at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use tokio::time::Instant;
use tracing::info;

use super::failure::meaning;
use super::listing::listed_as;
use super::mac::Mac;
use super::scripts;
use crate::api::{PullPolicy, Reason};
use crate::backend::Error;
use crate::backend::image::{ImageState, Readiness};
use crate::backend::remote::{Output, Part};

/// For a pull of 80 GB over a slow line.
const PULL: Duration = Duration::from_secs(6 * 3600);
/// The progress of a pull is told this often at most: each time writes the status of every scale set on the host.
const REPORT: Duration = Duration::from_secs(60);

/// What is wanted of an image. Who want the same share its pulls and its back-off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) reference: String,
    pub(super) policy: PullPolicy,
}

/// An image on one Mac.
#[derive(Debug)]
pub(super) struct Image {
    wanted: Wanted,
    /// As `tart list` shows it.
    listed_as: String,
    readiness: Readiness,
    /// What the name led to when it was looked at last, and when that was.
    seen: Mutex<(Option<String>, Option<Instant>)>,
}

impl Image {
    pub(super) fn new(wanted: Wanted) -> Image {
        Image {
            listed_as: listed_as(&wanted.reference),
            readiness: Readiness::new(&wanted.reference),
            wanted,
            seen: Mutex::default(),
        }
    }

    /// Whether a VM can be made from it. A listing that lacks it tells that it was removed under us.
    pub(super) fn state(&self, mac: &Mac) -> ImageState {
        match self.readiness.state() {
            ImageState::Ready if !self.is_listed(mac) => ImageState::Unknown,
            state => state,
        }
    }

    /// What is known of it, whatever listings show.
    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn is_listed(&self, mac: &Mac) -> bool {
        mac.look(|view| view.images.contains(&self.listed_as)).unwrap_or_default()
    }

    /// What the name leads to, where that is looked at before every start.
    pub(super) fn digest(&self) -> Option<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0.clone().filter(|_| self.wanted.policy == PullPolicy::Always)
    }

    /// Begins to make it ready, unless that goes on, is done, or failed too recently.
    pub(super) fn prepare(self: &Arc<Self>, mac: &Arc<Mac>) {
        let listed = self.is_listed(mac);
        self.begin(mac, |state| state.may_begin() || (*state == ImageState::Ready && !listed));
    }

    /// Makes sure before a start that a moved tag is seen, where the policy asks for that. Who comes while a pull is
    /// under way waits for that one.
    pub(super) async fn refresh(self: &Arc<Self>, mac: &Arc<Mac>) -> Result<(), Error> {
        if self.wanted.policy != PullPolicy::Always {
            return Ok(());
        }
        self.begin(mac, |state| *state == ImageState::Ready || state.may_begin());
        self.readiness.settled().await
    }

    fn begin(self: &Arc<Self>, mac: &Arc<Mac>, may: impl Fn(&ImageState) -> bool) {
        if self.readiness.begin(may) {
            let (image, mac) = (Arc::clone(self), Arc::clone(mac));
            tokio::spawn(async move {
                let result = image.ensure(&mac).await;
                image.readiness.settle(result);
                mac.host.requeue_all();
            });
        }
    }

    async fn ensure(&self, mac: &Mac) -> Result<(), Error> {
        mac.answers()?;
        let Wanted { reference, policy } = &self.wanted;
        match policy {
            PullPolicy::IfNotPresent | PullPolicy::Never if self.is_listed(mac) => Ok(()),
            PullPolicy::Never => Err(Error::no_capacity(
                Reason::ImageMissing,
                format!("image {reference} is not on the host, and pullPolicy is Never"),
            )),
            PullPolicy::Always | PullPolicy::IfNotPresent => self.pull(mac).await,
        }
    }

    async fn pull(&self, mac: &Mac) -> Result<(), Error> {
        let reference = &self.wanted.reference;
        self.readiness.tell(&format!("waiting for other images before {reference} is pulled"));
        let _turn = mac.host.images.lock().await;
        let begun = Moment::now();
        let pulling = format!("pulling image {reference}");
        info!(image = reference, endpoint = %mac.endpoint, "{pulling}");
        self.readiness.tell(&pulling);
        let script = mac.script("the pull", scripts::PULL, PULL).arg(reference);
        let (mut output, mut progress) = (Output::default(), Progress::new(begun));
        let mut take = |part: Part| {
            if let Part::Output(bytes) = &part
                && let Some(percent) = progress.read(bytes, Moment::now())
            {
                self.readiness.tell(&format!("{pulling}: {percent} %"));
                mac.host.requeue_all();
            }
            output.add(part);
        };
        let ended = mac.remote.run_with(&script, mac.limits.pull_silence, &mut take).await;
        ended.map_err(|failure| self.cut_off(mac, &failure))?;
        if output.code != Some(0) {
            return Err(match meaning(&format!("image {reference} cannot be pulled"), &output) {
                Error::NoCapacity(why) if why.reason == Reason::DiskFull => Error::NoCapacity(why),
                Error::NoCapacity(why) => Error::no_capacity(Reason::ImagePullFailed, why.message),
                error => error,
            });
        }
        let text = output.text();
        let digest = text.lines().rev().find_map(|line| line.strip_prefix("digest ")).map(str::to_owned);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (digest, Some(Instant::now()));
        // The next listing shows it too.
        mac.change(|view| {
            view.images.insert(self.listed_as.clone());
            Default::default()
        });
        mac.suspect();
        let seconds = begun.elapsed().as_secs_f64();
        info!(image = reference, endpoint = %mac.endpoint, seconds, "image pulled");
        Ok(())
    }

    fn cut_off(&self, mac: &Mac, failure: &crate::backend::remote::Failure) -> Error {
        use crate::backend::remote::Failure::{Silent, TimedOut};
        match failure {
            Silent { .. } | TimedOut { .. } => Error::no_capacity(
                Reason::ImagePullFailed,
                format!("image {} cannot be pulled: {failure}", self.wanted.reference),
            ),
            failure => mac.no_answer(failure),
        }
    }

    /// When it was pulled last: a listing that was asked for before that may lack it.
    pub(super) fn pulled_at(&self) -> Option<(String, Instant)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Some((self.listed_as.clone(), seen.1?))
    }
}

/// How far a pull is: Tart prints whole percents, a line each.
#[derive(Debug)]
struct Progress {
    rest: String,
    told_at: Moment,
    told: u32,
}

impl Progress {
    fn new(now: Moment) -> Progress {
        Progress { rest: String::new(), told_at: now, told: 0 }
    }

    /// Reads what was printed; answers whole tenths in percent where that is news, and not too soon after the last.
    fn read(&mut self, bytes: &[u8], now: Moment) -> Option<u32> {
        self.rest.push_str(&String::from_utf8_lossy(bytes));
        let end = self.rest.rfind('\n')? + 1;
        let lines: String = self.rest.drain(..end).collect();
        let percent =
            lines.lines().rev().find_map(|line| line.trim().strip_suffix('%')?.trim().parse::<u32>().ok());
        let tenths = percent? / 10 * 10;
        let due = tenths != self.told && now.saturating_duration_since(self.told_at) >= REPORT;
        if due {
            (self.told, self.told_at) = (tenths, now);
        }
        due.then_some(tenths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_told_in_whole_tenths_and_once_a_minute_at_most() {
        let begun = Moment::now();
        let mut progress = Progress::new(begun);
        let mut read =
            |second, text: &str| progress.read(text.as_bytes(), begun + Duration::from_secs(second));
        assert_eq!(read(1, "pulling manifest...\n5%\n"), None);
        assert_eq!(read(61, "41%\n4"), Some(40));
        assert_eq!(read(62, "9%\n50%\n"), None, "too soon");
        assert_eq!(read(130, "55%\n"), Some(50));
        assert_eq!(read(200, "56%\n"), None, "no news");
    }
}
