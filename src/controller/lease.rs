//! Leadership by a Lease: one controller acts, the others stand by. Whoever cannot renew in time stops by itself, before
//! another may begin: a [`Leadership`] says so to everything that acts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::answer::{api_message, within};
use crate::time::Plus;

/// The Lease's name.
pub(super) const NAME: &str = "paddock";
/// client-go's proportions: a lease is good for this long after its last renewal ...
const GOOD_FOR: Duration = Duration::from_secs(15);
/// ... but its holder does not act on it for longer than this ...
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// ... and renews it this often.
const RENEW_EVERY: Duration = Duration::from_secs(3);
/// One call may take this long. What is left of [`RENEW_WITHIN`] after [`RENEW_EVERY`] holds two calls that hang and a
/// renewal that works: a connection that hangs is dropped with its call, and the next call has another.
const ANSWER: Duration = Duration::from_secs(2);
/// A holder whose renewal failed tries again after this.
const RENEW_AGAIN: Duration = Duration::from_millis(500);
/// A candidate looks at the Lease this often.
const RETRY: Duration = Duration::from_secs(2);

/// Until when this process may act. Asked by all that acts, each time: a process that was frozen finds it expired.
#[derive(Clone, Default)]
pub(super) struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// A process that acts without asking: there is no leader election.
    pub fn open() -> Leadership {
        let leadership = Leadership::default();
        leadership.extend(Instant::now().plus(Duration::MAX));
        leadership
    }

    /// Whether this process may act now.
    pub fn is_held(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn until(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extend(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// This process may not act any more.
    pub fn drop_now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One candidate for leadership.
pub(super) struct Candidate {
    api: Api<Lease>,
    identity: String,
    leadership: Leadership,
    seen: Option<Seen>,
}

/// The Lease as it was when it last changed, and when that was seen: other machines' clocks are not trusted.
struct Seen {
    version: Option<String>,
    at: Instant,
}

/// What to do about the Lease as it is.
#[derive(Debug, PartialEq, Eq)]
enum Move {
    Create,
    Take,
    Renew,
    Wait,
}

/// How a look at the Lease ended.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// This candidate leads.
    Leads,
    /// Another leads.
    StandsBy,
    /// The Lease changed between the look and the write: another's doing, or an earlier write of this candidate that had
    /// no answer. The next look tells.
    Contested,
}

impl Candidate {
    pub fn new(client: Client, namespace: &str, identity: &str) -> Candidate {
        Candidate {
            api: Api::namespaced(client, namespace),
            identity: identity.to_owned(),
            leadership: Leadership::default(),
            seen: None,
        }
    }

    /// What asks whether this candidate leads.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until this candidate leads; false when it is to stop instead.
    pub async fn lead(&mut self, stopping: &CancellationToken) -> bool {
        let mut told = false;
        loop {
            match self.turn().await {
                Ok(Standing::Leads) => {
                    info!(identity = self.identity, "leading");
                    return true;
                }
                Ok(Standing::StandsBy) if !told => {
                    info!(identity = self.identity, "another controller leads; standing by");
                    told = true;
                }
                Ok(Standing::StandsBy | Standing::Contested) => {}
                Err(error) => warn!(error = api_message(&error), "the Lease cannot be acquired"),
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = stopping.cancelled() => return false,
            }
        }
    }

    /// Renews until told to stop, which gives true, or until that was not possible in time, which gives false: this
    /// process must not act any more.
    pub async fn keep(&mut self, stopping: &CancellationToken) -> bool {
        let mut pause = RENEW_EVERY;
        while let Some(until) = self.leadership.until().filter(|_| self.leadership.is_held()) {
            tokio::select! {
                () = sleep(pause) => {}
                () = stopping.cancelled() => return true,
            }
            let turn = tokio::select! {
                turn = timeout_at(until, self.turn()) => turn,
                () = stopping.cancelled() => return true,
            };
            pause = match turn {
                Ok(Ok(Standing::Leads)) => RENEW_EVERY,
                Ok(Ok(Standing::Contested)) => RENEW_AGAIN,
                Ok(Err(error)) => {
                    debug!(error = api_message(&error), "the Lease cannot be renewed");
                    RENEW_AGAIN
                }
                Ok(Ok(Standing::StandsBy)) | Err(_) => break,
            };
        }
        self.leadership.drop_now();
        warn!(identity = self.identity, "leadership is lost");
        false
    }

    /// Gives leadership back, so that the next controller need not wait.
    pub async fn resign(&mut self) {
        self.leadership.drop_now();
        let released = async {
            let Some(mut lease) = self.api.get_opt(NAME).await? else { return Ok(()) };
            if holder(&lease) == Some(self.identity.as_str()) {
                let spec = lease.spec.get_or_insert_default();
                spec.holder_identity = None;
                self.api.replace(NAME, &PostParams::default(), &lease).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if !matches!(timeout(RETRY, released).await, Ok(Ok(()))) {
            debug!("the Lease could not be given back; it lapses");
        }
    }

    /// Looks at the Lease once and makes one move. Each of its calls has [`ANSWER`].
    async fn turn(&mut self) -> Result<Standing, kube::Error> {
        // What a renewal is worth counts from before it was asked for.
        let asked = Instant::now();
        let lease = within(ANSWER, self.api.get_opt(NAME)).await?;
        let next = next_move(lease.as_ref(), &self.identity, &mut self.seen, asked);
        let answer = match (next, lease) {
            (Move::Wait, _) => return Ok(Standing::StandsBy),
            (Move::Create, _) | (_, None) => {
                let lease = Lease { metadata: named(), spec: Some(self.claim(None)) };
                within(ANSWER, self.api.create(&PostParams::default(), &lease)).await
            }
            (Move::Take | Move::Renew, Some(mut lease)) => {
                // The resource version goes along: of two that take a lapsed Lease, one fails.
                lease.spec = Some(self.claim(lease.spec));
                within(ANSWER, self.api.replace(NAME, &PostParams::default(), &lease)).await
            }
        };
        match answer {
            Ok(_) => {
                self.leadership.extend(asked.plus(RENEW_WITHIN));
                Ok(Standing::Leads)
            }
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                Ok(Standing::Contested)
            }
            Err(error) => Err(error),
        }
    }

    fn claim(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(GOOD_FOR.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| ours).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours))),
            ..LeaseSpec::default()
        }
    }
}

/// Decides by what was seen of the Lease, and when it last changed.
fn next_move(lease: Option<&Lease>, identity: &str, seen: &mut Option<Seen>, now: Instant) -> Move {
    let Some(lease) = lease else { return Move::Create };
    let version = lease.metadata.resource_version.clone();
    let changed_at = seen.as_ref().filter(|seen| seen.version == version).map_or(now, |seen| seen.at);
    *seen = Some(Seen { version, at: changed_at });
    let good_for = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let good_for = good_for.map_or(GOOD_FOR, |s| Duration::from_secs(s.max(0).unsigned_abs().into()));
    match holder(lease) {
        Some(holder) if holder == identity => Move::Renew,
        Some(_) if now < changed_at.plus(good_for) => Move::Wait,
        _ => Move::Take,
    }
}

fn named() -> ObjectMeta {
    ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let mut lease = Lease { metadata: named(), spec: Some(LeaseSpec::default()) };
        lease.metadata.resource_version = Some(version.to_owned());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(holder.to_owned()).filter(|h| !h.is_empty());
        spec.lease_duration_seconds = Some(15);
        lease
    }

    #[test]
    fn a_lease_is_waited_for_until_it_has_not_changed_for_its_own_duration() {
        let (mut seen, start) = (None, Instant::now());
        let mut look = |lease: Option<Lease>, second| {
            next_move(lease.as_ref(), "me", &mut seen, start + Duration::from_secs(second))
        };
        assert_eq!(look(None, 0), Move::Create);
        assert_eq!(look(Some(lease("other", "1")), 0), Move::Wait);
        assert_eq!(look(Some(lease("other", "1")), 14), Move::Wait);
        assert_eq!(look(Some(lease("other", "2")), 15), Move::Wait, "it was renewed");
        assert_eq!(look(Some(lease("other", "2")), 29), Move::Wait);
        assert_eq!(look(Some(lease("other", "2")), 30), Move::Take);
    }

    #[test]
    fn what_is_given_back_is_taken_at_once_and_what_is_ours_renewed() {
        let mut seen = None;
        assert_eq!(next_move(Some(&lease("", "1")), "me", &mut seen, Instant::now()), Move::Take);
        assert_eq!(next_move(Some(&lease("me", "1")), "me", &mut seen, Instant::now()), Move::Renew);
    }

    #[test]
    fn a_fence_that_was_not_extended_in_time_does_not_hold() {
        let leadership = Leadership::default();
        assert!(!leadership.is_held());
        leadership.extend(Instant::now() + Duration::from_secs(60));
        assert!(leadership.is_held());
        leadership.extend(Instant::now());
        assert!(!leadership.is_held());
        assert!(Leadership::open().is_held());
    }
}
