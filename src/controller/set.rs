//! The handle of one scale set: who it is, what runs for it, and its state behind a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::context::{Context, with_timeout};
use super::ownership::{self, Seniority};
use super::registrar::Target;
use super::state::ScaleSetState;
use super::writer::Writer;
use crate::api::RunnerScaleSet;
use crate::runner::Identity;
use crate::telemetry::SetLabels;

/// How many runners of a set are being registered at a time.
const MINTED_AT_ONCE: usize = 16;
/// How many runners of a set are registered and not started yet on a host: enough to keep it busy, few enough that no
/// configuration waits for long.
const MINTED_AHEAD: usize = 16;

/// How many removals of a set GitHub is asked for at a time.
const DEREGISTERED_AT_ONCE: usize = 16;

/// One scale set.
pub(super) struct ScaleSetHandle {
    /// The object's UID.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What its instances carry.
    pub identity: Identity,
    /// What events are about.
    pub reference: ObjectReference,
    /// What metrics carry.
    pub labels: SetLabels,
    /// Its place among objects that name the same scale set at GitHub.
    pub seniority: Seniority,
    /// Since when this process knows it.
    pub since: Timestamp,
    /// Its message session was opened: what waits for that goes on.
    pub session_opened: Notify,
    /// One record of ownership is written at a time.
    recording: tokio::sync::Mutex<()>,
    /// What every poll tells GitHub.
    pub capacity: watch::Sender<u32>,
    /// What is to be registered and listened to.
    pub target: watch::Sender<Option<Target>>,
    /// Writes its status.
    pub writer: Writer,
    /// Bounds the registrations that GitHub is asked for.
    pub minting: Semaphore,
    /// Bounds those that wait for their start, by backend and host: one that hangs does not hold up the others.
    minted_ahead: Mutex<HashMap<(String, String), Arc<Semaphore>>>,
    /// Bounds the removals that GitHub is asked for.
    pub deregistering: Semaphore,
    /// Everything that runs for it.
    pub tasks: TaskTracker,
    /// It is forgotten, or the process stops.
    pub ended: CancellationToken,
    state: Mutex<ScaleSetState>,
}

impl ScaleSetHandle {
    /// Takes up an object, with what its status tells of the time before this process.
    pub fn load(object: &RunnerScaleSet, uid: &str, ctx: &Context) -> ScaleSetHandle {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let now = ctx.environment.now();
        let status = object.status.clone().unwrap_or_default().not_after(now);
        let writer = Writer::new(ctx.scale_sets(&namespace), &name, &status, ctx);
        ScaleSetHandle {
            identity: Identity {
                cluster: ctx.cluster.clone(),
                scale_set_uid: uid.to_owned(),
                scale_set: format!("{namespace}/{name}"),
            },
            labels: labels(object),
            reference: object.object_ref(&()),
            seniority: Seniority::of(object),
            uid: uid.to_owned(),
            since: now,
            session_opened: Notify::new(),
            recording: tokio::sync::Mutex::default(),
            capacity: watch::Sender::new(0),
            target: watch::Sender::new(None),
            writer,
            minting: Semaphore::new(MINTED_AT_ONCE),
            minted_ahead: Mutex::default(),
            deregistering: Semaphore::new(DEREGISTERED_AT_ONCE),
            tasks: TaskTracker::new(),
            ended: ctx.stopping.child_token(),
            state: Mutex::new(ScaleSetState::restored(
                status,
                ctx.environment.providers(),
                ownership::recorded(object),
                now,
                ctx.environment.uptime(),
            )),
            namespace,
            name,
        }
    }

    /// Its state. Never held over an await.
    pub fn state(&self) -> MutexGuard<'_, ScaleSetState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the record of what is the object's own is not what it should be, and nobody is writing it.
    pub fn record_is_due(&self) -> bool {
        self.state().registration.is_unrecorded() && self.recording.try_lock().is_ok()
    }

    /// Records with the object which scale set is its own, unless it is recorded so already.
    ///
    /// # Errors
    /// Those of the API server; what was not recorded is due again.
    pub async fn record_ownership(&self, ctx: &Context) -> Result<(), kube::Error> {
        let _turn = self.recording.lock().await;
        let own = {
            let state = self.state();
            if !state.registration.is_unrecorded() || !ctx.leadership.is_held() {
                return Ok(());
            }
            state.registration.own()
        };
        let patch = Patch::Merge(ownership::record(&self.uid, own));
        let api = ctx.scale_sets(&self.namespace);
        with_timeout(api.patch_metadata(&self.name, &PatchParams::default(), &patch)).await?;
        self.state().registration.note_record(own);
        Ok(())
    }

    /// What bounds the registrations that wait for their start on a host.
    pub fn minted_ahead(&self, backend: &str, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.minted_ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let of_host = hosts.entry((backend.to_owned(), host.to_owned()));
        of_host.or_insert_with(|| Arc::new(Semaphore::new(MINTED_AHEAD))).clone()
    }

    /// Whether its inputs come from a Secret or ConfigMap of that name.
    pub fn inputs_refer_to(&self, name: &str) -> bool {
        self.state().referred.contains(name)
    }

    /// Has its inputs read again at the next reconcile.
    pub fn read_inputs_again(&self) {
        self.state().inputs_changed = true;
    }
}

/// Of a URL's path, one part is an organisation, two are a repository, and `enterprises/X` is an enterprise.
fn labels(object: &RunnerScaleSet) -> SetLabels {
    let mut labels = SetLabels {
        name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        ..SetLabels::default()
    };
    let (_, path) = object.spec.github.url.split_once("://").unwrap_or_default();
    let parts: Vec<&str> = path.split('/').skip(1).filter(|part| !part.is_empty()).collect();
    match parts[..] {
        ["enterprises", enterprise] => labels.enterprise = enterprise.to_owned(),
        [organization, repository] => {
            labels.organization = organization.to_owned();
            labels.repository = repository.to_owned();
        }
        [organization] => labels.organization = organization.to_owned(),
        _ => {}
    }
    labels
}
