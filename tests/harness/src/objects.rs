//! The API server's side: scale sets and their status, Secrets, events, and what kubectl prints.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use paddock::api::status::RunnerPhase;
use paddock::api::{RunnerScaleSet, RunnerScaleSetStatus};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Lab, Manifest, PATIENCE, ROOT, eventually};

/// One condition.
pub fn condition<'a>(set: &'a RunnerScaleSet, type_: &str) -> Option<&'a Condition> {
    let conditions = &set.status.as_ref()?.conditions;
    conditions.iter().find(|c| c.type_ == type_)
}

/// Whether a condition has this status and, where one is given, this reason.
pub fn is(set: &RunnerScaleSet, type_: &str, status: &str, reason: Option<&str>) -> bool {
    condition(set, type_).is_some_and(|c| c.status == status && reason.is_none_or(|r| c.reason == r))
}

/// How many runners are pending, idle and busy.
pub fn phases(set: &RunnerScaleSet) -> (i32, i32, i32) {
    let status = set.status.as_ref();
    status.map_or((0, 0, 0), |s| (s.pending_runners, s.idle_runners, s.busy_runners))
}

impl Lab {
    /// The scale sets.
    pub fn sets(&self) -> Api<RunnerScaleSet> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The scale sets as the API server has them, whatever is in them.
    pub fn dynamic_sets(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &ApiResource::erase::<RunnerScaleSet>(&()))
    }

    /// Applies a manifest as `kubectl apply --server-side` does.
    pub async fn apply(&self, manifest: &Manifest) {
        let params = PatchParams::apply("kubectl").force();
        let patch = Patch::Apply(&manifest.0);
        self.sets().patch(manifest.name(), &params, &patch).await.unwrap();
    }

    /// Makes or replaces a Secret.
    pub async fn secret<'a>(&self, name: &str, data: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let data: BTreeMap<&str, &str> = data.into_iter().collect();
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data,
        });
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams::apply("kubectl").force();
        secrets.patch(name, &params, &Patch::Apply(manifest)).await.unwrap();
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, name: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Sets `spec.replicas` of the scale subresource, as `kubectl scale` does.
    pub async fn scale(&self, name: &str, replicas: i32) {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let sets = self.sets();
        sets.patch_scale(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Deletes a scale set; does not wait for its end.
    pub async fn delete(&self, name: &str) {
        self.sets().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Deletes a scale set although the controller keeps it, as a person does who strips its finalizer.
    pub async fn delete_by_force(&self, name: &str) {
        self.delete(name).await;
        let stripped = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        self.sets().patch(name, &PatchParams::default(), &stripped).await.unwrap();
        self.until_gone(name, PATIENCE).await;
    }

    /// A scale set as it is now.
    pub async fn get(&self, name: &str) -> RunnerScaleSet {
        self.sets().get(name).await.unwrap()
    }

    /// Waits until a scale set is so.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        so: impl Fn(&RunnerScaleSet) -> bool,
    ) -> RunnerScaleSet {
        self.until_within(PATIENCE, name, what, so).await
    }

    /// Waits until a scale set is so, for so long.
    pub async fn until_within(
        &self,
        within: Duration,
        name: &str,
        what: &str,
        so: impl Fn(&RunnerScaleSet) -> bool,
    ) -> RunnerScaleSet {
        let is_so = |object: Option<&RunnerScaleSet>| object.is_some_and(&so);
        match timeout(within, await_condition(self.sets(), name, is_so)).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => panic!("not within {within:?}: {what}\n{}", self.describe(name).await),
        }
    }

    /// Waits until a condition has this status and, where one is given, this reason.
    pub async fn until_is(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: Option<&str>,
    ) -> RunnerScaleSet {
        let what = format!("{type_}={status} {}", reason.unwrap_or_default());
        self.until(name, &what, |set| is(set, type_, status, reason)).await
    }

    /// Waits until so many runners are pending, idle and busy.
    pub async fn until_phases(&self, name: &str, wanted: (i32, i32, i32)) -> RunnerScaleSet {
        let what = format!("pending, idle, busy are {wanted:?}");
        self.until(name, &what, |set| phases(set) == wanted).await
    }

    /// Waits until a scale set is gone.
    pub async fn until_gone(&self, name: &str, within: Duration) {
        let gone = |object: Option<&RunnerScaleSet>| object.is_none();
        if timeout(within, await_condition(self.sets(), name, gone)).await.is_err() {
            panic!("not gone within {within:?}\n{}", self.describe(name).await);
        }
    }

    async fn describe(&self, name: &str) -> String {
        let object = self.sets().get_opt(name).await.unwrap();
        serde_json::to_string_pretty(&object.map(|o| o.status)).unwrap()
    }

    /// The events about a scale set.
    pub async fn events(&self, name: &str) -> Vec<v1::Event> {
        let events: Api<v1::Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut found = events.list(&ListParams::default()).await.unwrap().items;
        found.retain(|e| e.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(name));
        found
    }

    /// The note of an event with this reason, waited for.
    pub async fn event(&self, name: &str, reason: &str) -> String {
        eventually(&format!("an event {reason}"), PATIENCE, async || {
            let events = self.events(name).await;
            let found = events.into_iter().find(|e| e.reason.as_deref() == Some(reason));
            found.map(|e| e.note.unwrap_or_default())
        })
        .await
    }

    /// What kubectl prints, as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> String {
        let output = Command::new(format!("{ROOT}/.cache/bin/kubectl"))
            .arg("--kubeconfig")
            .arg(&self.admin)
            .args(["--namespace", &self.namespace])
            .args(args)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "kubectl {args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Notes every status that a scale set shows from now on.
    pub fn record(&self, name: &str) -> Record {
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let stream = watcher(self.sets(), config).default_backoff().applied_objects();
        let statuses = Arc::new(Mutex::new(Vec::new()));
        let noted = statuses.clone();
        let task = tokio::spawn(async move {
            let each = stream.try_for_each(|set| {
                noted.lock().unwrap().extend(set.status);
                std::future::ready(Ok(()))
            });
            each.await.unwrap();
        });
        Record { statuses, task }
    }
}

/// Every status that a scale set showed.
pub struct Record {
    statuses: Arc<Mutex<Vec<RunnerScaleSetStatus>>>,
    task: JoinHandle<()>,
}

impl Record {
    /// All of them, in order.
    pub fn statuses(&self) -> Vec<RunnerScaleSetStatus> {
        self.statuses.lock().unwrap().clone()
    }

    /// Each status adds up, and none shows more runners than there may be. How many there were.
    pub fn assert_consistent(&self, min: i32, max: i32) -> usize {
        let statuses = self.statuses();
        for status in &statuses {
            let shown = as_json(status);
            let (pending, idle, busy) = (status.pending_runners, status.idle_runners, status.busy_runners);
            assert_eq!(status.current_runners, pending + idle + busy, "{shown}");
            assert!(status.current_runners <= max && status.desired_runners <= max, "{shown}");
            for (phase, count) in
                [(RunnerPhase::Pending, pending), (RunnerPhase::Idle, idle), (RunnerPhase::Busy, busy)]
            {
                let listed = status.runners.iter().filter(|r| r.phase == phase).count();
                assert_eq!(i32::try_from(listed).unwrap(), count, "{phase}: {shown}");
            }
            let on_backends: i32 = status.backends.iter().map(|b| b.current_runners).sum();
            assert_eq!(on_backends, status.current_runners, "{shown}");
            if let Some(demand) = &status.demand {
                assert!(status.desired_runners <= max.min(min + demand.assigned_jobs), "{shown}");
            }
        }
        statuses.len()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn as_json(status: &RunnerScaleSetStatus) -> Value {
    serde_json::to_value(status).unwrap()
}
