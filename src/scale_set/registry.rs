//! The scale sets that this process knows, and how to have each reconciled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::mpsc::UnboundedSender;

use super::claim::Claim;
use super::handle::{ObjectName, ScaleSetHandle};
use crate::api::Reason;

/// The scale sets that are known, by UID, and how to wake each.
#[derive(Default)]
pub struct Registry {
    known: Mutex<BTreeMap<String, Arc<ScaleSetHandle>>>,
    senders: Mutex<Vec<Scope>>,
}

/// Where objects of a namespace, or of all, are reconciled.
type Scope = (Option<String>, UnboundedSender<ObjectName>);

impl Registry {
    /// Registers where scale sets of a namespace (or of all) are woken.
    pub fn requeue_through(&self, namespace: Option<String>, sender: UnboundedSender<ObjectName>) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).push((namespace, sender));
    }

    /// Whether objects of a namespace are this controller's to judge.
    pub fn serve(&self, namespace: &str) -> bool {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter().any(|(scope, _)| scope.as_ref().is_none_or(|scope| scope == namespace))
    }

    /// The state kept for an object, made by `make` when there is none.
    pub fn get_or_insert(
        &self,
        uid: &str,
        make: impl FnOnce() -> Arc<ScaleSetHandle>,
    ) -> Arc<ScaleSetHandle> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(uid.to_owned()).or_insert_with(make).clone()
    }

    /// The eldest other set of those that name the same scale set at GitHub and come before this one. One to which GitHub
    /// itself refuses that name, or that has another and is yet to change it, stands in nobody's way, nor does one that the
    /// operator's policy does not permit.
    pub fn elder(&self, set: &ScaleSetHandle) -> Option<Arc<ScaleSetHandle>> {
        let claim = set.state().spec.claim.clone()?;
        let comes_before = |other: &Arc<ScaleSetHandle>| {
            if other.uid == set.uid || other.seniority >= set.seniority {
                return false;
            }
            let state = other.state();
            let refused =
                state.github.registration.error.as_ref().is_some_and(|e| e.reason == Reason::NameTaken);
            let held = state.github.registration.held.as_ref();
            let has_another = held.is_some_and(|(held, asked)| {
                state.github.registration.owns(held.id) && !held.name.eq_ignore_ascii_case(&asked.name)
            });
            let not_permitted = state.spec.refusal().is_some();
            state.spec.claim.as_ref() == Some(&claim) && !refused && !has_another && !not_permitted
        };
        self.all().into_iter().filter(comes_before).min_by(|a, b| a.seniority.cmp(&b.seniority))
    }

    /// Whether a scale set at GitHub is the own one of another set, which comes before this one.
    pub fn is_an_elders_own(&self, set: &ScaleSetHandle, scale_set_id: i64) -> bool {
        let Some(url) = set.state().spec.claim.as_ref().map(|claim| claim.url.clone()) else { return false };
        self.all().iter().filter(|other| other.uid != set.uid && other.seniority < set.seniority).any(
            |other| {
                let state = other.state();
                state.github.registration.owns(scale_set_id)
                    && state.spec.claim.as_ref().is_some_and(|c| c.url == url)
            },
        )
    }

    /// Has all but one of the sets that name the same scale set at GitHub look anew at which of them may have it.
    pub fn reconsider(&self, claim: Option<&Claim>, but: &str) {
        let Some(claim) = claim else { return };
        for set in self.all().into_iter().filter(|set| set.uid != but) {
            if set.state().spec.claim.as_ref() == Some(claim) {
                set.read_inputs_again();
                self.requeue(&set.uid);
            }
        }
    }

    /// Has all reconciled that GitHub's rate limit holds for: they can start nothing now, and are to ask for no job.
    pub fn requeue_limited(&self) {
        let limited = |set: &Arc<ScaleSetHandle>| {
            set.state().github.service.as_ref().is_some_and(|s| s.limited_for().is_some())
        };
        self.all().iter().filter(|set| limited(set)).for_each(|set| self.requeue(&set.uid));
    }

    /// Has all of them judged anew, and reconciled.
    pub fn reconsider_all(&self) {
        for set in self.all() {
            set.judge_again();
            self.requeue(&set.uid);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<ScaleSetHandle>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// What is known under an object's name, of this object or of one before it.
    pub fn named(&self, object: &ObjectName) -> Vec<Arc<ScaleSetHandle>> {
        self.all().into_iter().filter(|set| set.object == *object).collect()
    }

    /// Knows a set no more.
    pub fn remove(&self, uid: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Has an object reconciled.
    pub fn requeue(&self, uid: &str) {
        let Some(set) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned() else {
            return;
        };
        for (namespace, sender) in self.senders.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if namespace.as_ref().is_none_or(|n| *n == set.object.namespace) {
                // A closed channel means that the controller is stopping.
                let _ = sender.unbounded_send(set.object.clone());
            }
        }
    }

    /// The scale sets that refer to a Secret or ConfigMap, marked to read it again.
    pub fn referring_to(&self, namespace: &str, name: &str) -> Vec<ObjectName> {
        let refers =
            |set: &Arc<ScaleSetHandle>| set.object.namespace == namespace && set.inputs_refer_to(name);
        let sets = self.all().into_iter().filter(refers);
        sets.map(|set| {
            set.read_inputs_again();
            set.object.clone()
        })
        .collect()
    }
}
