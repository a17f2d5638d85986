//! Images on a Mac: pulled by policy, once for all who wait for the same, and one at a time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant as Moment};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::failure::meaning;
use super::listing::listed_as;
use super::mac::Mac;
use super::scripts;
use crate::api::{Explanation, PullPolicy, Reason};
use crate::backend::Error;
use crate::backend::backoff::Backoff;
use crate::backend::remote::{Output, Part};
use crate::time::Plus;

/// How long to wait before an image that could not be had is tried again.
pub(super) const RETRY: Backoff = Backoff { first: Duration::from_secs(5), last: Duration::from_secs(300) };
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
    state: watch::Sender<State>,
    /// What the name led to when it was looked at last, and when that was.
    seen: Mutex<(Option<String>, Option<Instant>)>,
    /// Failures since a VM was last made from it.
    failures: AtomicU32,
}

/// Whether a VM can be made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody looked yet.
    Unknown,
    /// It is looked for or pulled; how far that is, in words.
    Preparing { since: Timestamp, message: String },
    /// It is there.
    Ready,
    /// It could not be had.
    Failed { until: Timestamp, why: Explanation },
}

impl State {
    fn may_begin(&self) -> bool {
        match self {
            State::Unknown => true,
            State::Failed { until, .. } => *until <= Timestamp::now(),
            State::Preparing { .. } | State::Ready => false,
        }
    }
}

impl Image {
    pub(super) fn new(wanted: Wanted) -> Image {
        Image {
            listed_as: listed_as(&wanted.reference),
            wanted,
            state: watch::Sender::new(State::Unknown),
            seen: Mutex::default(),
            failures: AtomicU32::new(0),
        }
    }

    /// Whether a VM can be made from it. A listing that lacks it tells that it was removed under us.
    pub(super) fn state(&self, mac: &Mac) -> State {
        let state = self.state.borrow().clone();
        match state {
            State::Ready if !self.is_listed(mac) => State::Unknown,
            state => state,
        }
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
        self.begin(mac, |state| state.may_begin() || (*state == State::Ready && !listed));
    }

    /// Makes sure before a start that a moved tag is seen, where the policy asks for that. Who comes while a pull is
    /// under way waits for that one.
    pub(super) async fn refresh(self: &Arc<Self>, mac: &Arc<Mac>) -> Result<(), Error> {
        if self.wanted.policy != PullPolicy::Always {
            return Ok(());
        }
        let mut state = self.state.subscribe();
        self.begin(mac, |state| *state == State::Ready || state.may_begin());
        let settled = state.wait_for(|state| !matches!(state, State::Preparing { .. })).await;
        match settled.map(|state| state.clone()) {
            Ok(State::Failed { why, .. }) => Err(Error::NoCapacity(why)),
            Ok(State::Unknown) | Err(_) => {
                Err(Error::Unreachable("the host left during the pull".to_owned()))
            }
            Ok(State::Ready | State::Preparing { .. }) => Ok(()),
        }
    }

    /// A VM was made from it.
    pub(super) fn used(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A clone found that it is not there any more. If that happens again at once, looking for it does not help.
    pub(super) fn missing(&self, message: &str) {
        self.state.send_if_modified(|state| {
            let found = *state == State::Ready;
            if found {
                *state = match self.failures.load(Ordering::Relaxed) {
                    0 => State::Unknown,
                    _ => self.failed(Explanation::new(Reason::ImageMissing, message)),
                };
                self.failures.fetch_max(1, Ordering::Relaxed);
            }
            found
        });
    }

    fn begin(self: &Arc<Self>, mac: &Arc<Mac>, may: impl Fn(&State) -> bool) {
        let reference = &self.wanted.reference;
        let begun = self.state.send_if_modified(|state| {
            let begin = may(state);
            if begin {
                let message = format!("looking for image {reference}");
                *state = State::Preparing { since: Timestamp::now(), message };
            }
            begin
        });
        if begun {
            let (image, mac) = (Arc::clone(self), Arc::clone(mac));
            tokio::spawn(async move {
                let result = image.ensure(&mac).await;
                image.settle(result);
                mac.host.requeue_all();
            });
        }
    }

    fn settle(&self, result: Result<(), Error>) {
        self.state.send_replace(match result {
            Ok(()) => State::Ready,
            Err(Error::NoCapacity(why)) => {
                let (reason, message) = (why.reason.as_str(), &why.message);
                warn!(image = self.wanted.reference, reason, message, "image cannot be used");
                self.failed(why)
            }
            // The host went away: it is asked again when it is back.
            Err(error) => {
                debug!(image = self.wanted.reference, %error, "image is not known to be there");
                State::Unknown
            }
        });
    }

    fn failed(&self, why: Explanation) -> State {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        State::Failed { until: Timestamp::now().plus(RETRY.after(failures)), why }
    }

    /// Tells how far the pull is.
    fn tell(&self, progress: &str) {
        self.state.send_modify(|state| {
            if let State::Preparing { message, .. } = state {
                progress.clone_into(message);
            }
        });
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
        self.tell(&format!("waiting for other images before {reference} is pulled"));
        let _turn = mac.host.images.lock().await;
        let begun = Moment::now();
        let pulling = format!("pulling image {reference}");
        info!(image = reference, endpoint = %mac.endpoint, "{pulling}");
        self.tell(&pulling);
        let script = mac.script("the pull", scripts::PULL, PULL).arg(reference);
        let (mut output, mut progress) = (Output::default(), Progress::new(begun));
        let mut take = |part: Part| {
            if let Part::Output(bytes) = &part
                && let Some(percent) = progress.read(bytes, Moment::now())
            {
                self.tell(&format!("{pulling}: {percent} %"));
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
