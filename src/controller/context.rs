//! What all scale sets share.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::events::Events;
use super::lease::Leadership;
use super::ownership::Claim;
use super::set::ScaleSetHandle;
use crate::api::RunnerScaleSet;
use crate::api::condition::reason;
use crate::backend::Requeuer;
use crate::telemetry::{Health, LeadershipCheck, Metrics};

/// What the API server said, in short: kube's own text has the whole answer in it.
pub(super) fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// How long the API server may take for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Waits for an answer of the API server, not for ever: kube itself sets no limit.
pub(super) async fn with_timeout<T>(
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    within(ANSWER, call).await
}

/// Waits for an answer of the API server, for so long.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let silent = || kube::Error::Service(format!("no answer within {} s", limit.as_secs()).into());
    timeout(limit, call).await.unwrap_or_else(|_| Err(silent()))
}

/// What the watch of scale sets yields: an object that cannot be read stops nothing but itself.
pub(super) type Guarded = DeserializeGuard<RunnerScaleSet>;

/// What all scale sets share.
pub(super) struct Context {
    /// The API server.
    pub client: Client,
    /// The cluster's id: what is ours on every backend.
    pub cluster: String,
    /// Who owns the message sessions.
    pub owner: String,
    /// GitHub, the hosts and the time.
    pub environment: Arc<dyn Environment>,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// Kubernetes events.
    pub events: Events,
    /// Metrics.
    pub metrics: Metrics,
    /// Health.
    pub health: Health,
    /// The scale sets.
    pub sets: Arc<Registry>,
    /// The process is stopping.
    pub stopping: CancellationToken,
}

impl Context {
    /// What all scale sets share, none known yet. `world` is made with what wakes a scale set by its UID.
    pub fn new(
        client: Client,
        cluster: String,
        owner: String,
        leadership: Leadership,
        stopping: CancellationToken,
        environment: impl FnOnce(Requeuer) -> Arc<dyn Environment>,
    ) -> Context {
        let sets = Arc::new(Registry::default());
        let requeue = sets.clone();
        Context {
            environment: environment(Requeuer::new(move |uid| requeue.requeue(uid))),
            events: Events::new(client.clone(), owner.clone()),
            metrics: Metrics::new(),
            health: Health::new(),
            client,
            cluster,
            owner,
            leadership,
            sets,
            stopping,
        }
    }

    /// What tells those that act whether they still may.
    pub fn leadership_check(&self) -> LeadershipCheck {
        let leadership = self.leadership.clone();
        Arc::new(move || leadership.is_held())
    }

    /// Forgets a set whose object is gone, or is kept by us no more, and ends its tasks.
    pub fn forget(&self, set: &ScaleSetHandle) {
        self.sets.remove(&set.uid);
        let claim = set.state().claim.clone();
        self.sets.reconsider(claim.as_ref(), &set.uid);
        set.writer.end();
        set.ended.cancel();
        self.health.forget(&set.uid);
        self.metrics.forget_set(&set.labels);
    }

    /// The API of one namespace.
    pub fn scale_sets(&self, namespace: &str) -> Api<RunnerScaleSet> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// The scale sets that are known, by UID, and how to wake each.
#[derive(Default)]
pub(super) struct Registry {
    known: Mutex<BTreeMap<String, Arc<ScaleSetHandle>>>,
    senders: Mutex<Vec<RequeueSender>>,
}

/// Where objects of a namespace, or of all, are woken.
type RequeueSender = (Option<String>, UnboundedSender<ObjectRef<Guarded>>);

impl Registry {
    /// Registers where scale sets of a namespace (or of all) are woken.
    pub fn requeue_through(&self, namespace: Option<String>, sender: UnboundedSender<ObjectRef<Guarded>>) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).push((namespace, sender));
    }

    /// Whether objects of a namespace are this controller's to judge.
    pub fn serve(&self, namespace: &str) -> bool {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter().any(|(scope, _)| scope.as_ref().is_none_or(|scope| scope == namespace))
    }

    /// The state kept for an object, made by `make` when there is none.
    pub fn of(
        &self,
        object: &RunnerScaleSet,
        make: impl FnOnce(&str) -> Arc<ScaleSetHandle>,
    ) -> Arc<ScaleSetHandle> {
        let uid = object.uid().unwrap_or_default();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(uid.clone()).or_insert_with(|| make(&uid)).clone()
    }

    /// The eldest other set of those that name the same scale set at GitHub and come before this one. One to which GitHub
    /// itself refuses that name, or that has another and is yet to change it, stands in nobody's way.
    pub fn elder(&self, set: &ScaleSetHandle) -> Option<Arc<ScaleSetHandle>> {
        let claim = set.state().claim.clone()?;
        let comes_before = |other: &Arc<ScaleSetHandle>| {
            if other.uid == set.uid || other.seniority >= set.seniority {
                return false;
            }
            let state = other.state();
            let refused = state.registration.error.as_ref().is_some_and(|(r, _)| *r == reason::NAME_TAKEN);
            let held = state.registration.held.as_ref();
            let has_another = held.is_some_and(|(held, asked)| {
                state.registration.owns(held.id) && !held.name.eq_ignore_ascii_case(&asked.name)
            });
            state.claim.as_ref() == Some(&claim) && !refused && !has_another
        };
        self.all().into_iter().filter(comes_before).min_by(|a, b| a.seniority.cmp(&b.seniority))
    }

    /// Whether a scale set at GitHub is the own one of another set, which comes before this one.
    pub fn is_an_elders_own(&self, set: &ScaleSetHandle, scale_set_id: i64) -> bool {
        let Some(url) = set.state().claim.as_ref().map(|claim| claim.url.clone()) else { return false };
        self.all().iter().filter(|other| other.uid != set.uid && other.seniority < set.seniority).any(
            |other| {
                let state = other.state();
                state.registration.owns(scale_set_id) && state.claim.as_ref().is_some_and(|c| c.url == url)
            },
        )
    }

    /// Has all but one of the sets that name the same scale set at GitHub look anew at which of them may have it.
    pub fn reconsider(&self, claim: Option<&Claim>, but: &str) {
        let Some(claim) = claim else { return };
        for set in self.all().into_iter().filter(|set| set.uid != but) {
            if set.state().claim.as_ref() == Some(claim) {
                set.read_inputs_again();
                self.requeue(&set.uid);
            }
        }
    }

    /// Has all reconciled that GitHub's rate limit holds for: they can start nothing now, and are to ask for no job.
    pub fn requeue_limited(&self) {
        let limited = |set: &Arc<ScaleSetHandle>| {
            set.state().service.as_ref().is_some_and(|s| s.limited_for().is_some())
        };
        self.all().iter().filter(|set| limited(set)).for_each(|set| self.requeue(&set.uid));
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<ScaleSetHandle>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What is known under an object's name, of this object or of one before it.
    pub fn named(&self, object: &RunnerScaleSet) -> Vec<Arc<ScaleSetHandle>> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        self.all().into_iter().filter(|set| set.namespace == namespace && set.name == name).collect()
    }

    fn remove(&self, uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Has an object reconciled.
    pub fn requeue(&self, uid: &str) {
        let Some(set) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned() else {
            return;
        };
        let reference = ObjectRef::new(&set.name).within(&set.namespace);
        for (namespace, sender) in self.senders.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if namespace.as_ref().is_none_or(|n| *n == set.namespace) {
                // A closed channel means that the controller is stopping.
                let _ = sender.unbounded_send(reference.clone());
            }
        }
    }

    /// The scale sets that refer to a Secret or ConfigMap, marked to read it again.
    pub fn referring_to<K: Resource>(&self, object: &K) -> Vec<ObjectRef<Guarded>> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let refers = |set: &Arc<ScaleSetHandle>| set.namespace == namespace && set.inputs_refer_to(&name);
        let sets = self.all().into_iter().filter(refers);
        sets.map(|set| {
            set.read_inputs_again();
            ObjectRef::new(&set.name).within(&set.namespace)
        })
        .collect()
    }
}
