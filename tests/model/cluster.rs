//! The API server, as far as the controller needs one: the objects, the Secret, events; and how it fails.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Client;
use kube::api::ObjectMeta;
use kube::client::Body;
use paddock::api::{RunnerScaleSet, RunnerScaleSetSpec, RunnerScaleSetStatus};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::service_fn;

use crate::history::{SetSetup, Setup, Weather};
use crate::life::Life;
use crate::sim::State;

/// A client gives a call up after this, whatever the server does.
const GIVEN_UP: Duration = Duration::from_secs(60);

/// What the API server holds.
pub struct Cluster {
    /// By set; none when it was deleted.
    pub objects: Vec<Option<Arc<RunnerScaleSet>>>,
    pub weather: Weather,
    /// The controller may not read Secrets.
    pub hides_secrets: bool,
    version: u64,
}

impl Cluster {
    pub fn new(setup: &Setup, now: Timestamp) -> Cluster {
        let object = |(number, set)| Some(Arc::new(object(number, set, setup, now)));
        let objects = setup.sets.iter().enumerate().map(object).collect();
        Cluster { objects, weather: Weather::Fine, hides_secrets: false, version: 1 }
    }

    /// The set of a UID.
    pub fn set_of(&self, uid: &str) -> Option<usize> {
        (0..self.objects.len()).find(|set| uid == self::uid(*set))
    }

    /// Changes an object's spec, as a person would.
    pub fn edit(&mut self, set: usize, edit: impl FnOnce(&mut RunnerScaleSetSpec)) {
        let Some(object) = self.objects[set].as_mut().map(Arc::make_mut) else { return };
        let before = object.spec.clone();
        edit(&mut object.spec);
        object.spec.min_runners = object.spec.min_runners.min(object.spec.max_runners);
        if object.spec != before {
            object.metadata.generation = object.metadata.generation.map(|g| g + 1);
            self.touch(set);
        }
    }

    /// Deletes an object, as a person would.
    pub fn delete(&mut self, set: usize, now: Timestamp) {
        let Some(object) = self.objects[set].as_mut().map(Arc::make_mut) else { return };
        if object.metadata.deletion_timestamp.is_some() {
            return;
        }
        let now = Timestamp::from_second(now.as_second()).expect("a time");
        object.metadata.deletion_timestamp = Some(Time(now));
        object.metadata.generation = object.metadata.generation.map(|g| g + 1);
        self.touch(set);
        self.let_go(set);
    }

    fn let_go(&mut self, set: usize) {
        let Some(object) = &self.objects[set] else { return };
        let held = object.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty());
        if object.metadata.deletion_timestamp.is_some() && !held {
            self.objects[set] = None;
        }
    }

    fn touch(&mut self, set: usize) {
        self.version += 1;
        if let Some(object) = self.objects[set].as_mut().map(Arc::make_mut) {
            object.metadata.resource_version = Some(self.version.to_string());
        }
    }

    /// Does what a request asks for.
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Vec<u8>) {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        match (method.as_str(), parts.as_slice()) {
            ("GET", ["api", "v1", "namespaces", _, "secrets", _]) if self.hides_secrets => {
                refused(StatusCode::FORBIDDEN, "Forbidden")
            }
            ("GET", ["api", "v1", "namespaces", _, "secrets", _]) => ok(&secret()),
            ("GET", ["apis", "paddock.dev", "v1alpha1", "namespaces", _, "runnerscalesets", name]) => {
                let set = (0..self.objects.len()).find(|set| self::name(*set) == **name);
                match set.and_then(|set| self.objects[set].as_ref()) {
                    Some(object) => ok(&serde_json::to_value(&**object).expect("an object has a JSON form")),
                    None => refused(StatusCode::NOT_FOUND, "NotFound"),
                }
            }
            (
                "PATCH",
                ["apis", "paddock.dev", "v1alpha1", "namespaces", _, "runnerscalesets", name, rest @ ..],
            ) => {
                let set = (0..self.objects.len()).find(|set| self::name(*set) == **name);
                match set.filter(|set| self.objects[*set].is_some()) {
                    Some(set) if rest.first() == Some(&"status") => self.replace_status(set, body),
                    Some(set) => self.patch_metadata(set, body),
                    None => refused(StatusCode::NOT_FOUND, "NotFound"),
                }
            }
            ("POST" | "PATCH", ["apis", "events.k8s.io", ..]) => (StatusCode::OK, body.to_vec()),
            other => panic!("the controller asks the API server for what it does not have here: {other:?}"),
        }
    }

    /// The whole status is replaced, by a JSON patch of one operation. Nobody reads the answer.
    fn replace_status(&mut self, set: usize, body: &[u8]) -> (StatusCode, Vec<u8>) {
        #[derive(Deserialize)]
        struct Operation {
            op: String,
            path: String,
            value: RunnerScaleSetStatus,
        }
        let [Operation { op, path, value: status }]: [Operation; 1] =
            serde_json::from_slice(body).expect("one operation with a status");
        assert_eq!((&*op, &*path), ("add", "/status"));
        let object = Arc::make_mut(self.objects[set].as_mut().expect("it was looked for"));
        if object.status.as_ref() != Some(&status) {
            object.status = Some(status);
            self.touch(set);
        }
        (StatusCode::OK, ANSWER.as_bytes().to_vec())
    }

    fn patch_metadata(&mut self, set: usize, body: &[u8]) -> (StatusCode, Vec<u8>) {
        let body: Value = serde_json::from_slice(body).expect("a patch is JSON");
        let object = Arc::make_mut(self.objects[set].as_mut().expect("it was looked for"));
        let wanted = &body["metadata"];
        let is_met = |given: &Value, there: &Option<String>| {
            given.as_str().is_none_or(|given| Some(given) == there.as_deref())
        };
        if !is_met(&wanted["resourceVersion"], &object.metadata.resource_version)
            || !is_met(&wanted["uid"], &object.metadata.uid)
        {
            return refused(StatusCode::CONFLICT, "Conflict");
        }
        if let Some(finalizers) = wanted.get("finalizers") {
            object.metadata.finalizers = serde_json::from_value(finalizers.clone()).expect("finalizers");
        }
        for (name, value) in wanted["annotations"].as_object().into_iter().flatten() {
            let annotations = object.metadata.annotations.get_or_insert_default();
            match value.as_str() {
                Some(text) => drop(annotations.insert(name.clone(), text.to_owned())),
                None => drop(annotations.remove(name)),
            }
        }
        let metadata = serde_json::to_value(&object.metadata).expect("metadata has a JSON form");
        self.touch(set);
        self.let_go(set);
        ok(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}))
    }
}

/// An object, as short as it can be.
const ANSWER: &str = r#"{"apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet", "metadata": {"name": "any"},
    "spec": {"github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}}, "backends": []}}"#;

fn ok(answer: &Value) -> (StatusCode, Vec<u8>) {
    (StatusCode::OK, answer.to_string().into_bytes())
}

fn refused(code: StatusCode, reason: &str) -> (StatusCode, Vec<u8>) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code.as_u16()});
    (code, status.to_string().into_bytes())
}

fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "github", "namespace": "ns"},
        "data": {"github_token": "Z2hwX21vZGVs"}})
}

pub fn name(set: usize) -> String {
    format!("set-{set}")
}

pub fn uid(set: usize) -> String {
    format!("uid-{set}")
}

fn object(number: usize, set: &SetSetup, setup: &Setup, now: Timestamp) -> RunnerScaleSet {
    let backends: Vec<Value> = set
        .backends
        .iter()
        .enumerate()
        .map(|(at, backend)| {
            let hosts: Vec<Value> = backend
                .hosts
                .iter()
                .map(|host| {
                    let mut value =
                        json!({"name": format!("host-{host}"), "endpoint": format!("unix:///{host}")});
                    if let Some(slots) = setup.hosts[*host].slots {
                        value["maxRunners"] = slots.into();
                    }
                    value
                })
                .collect();
            let mut value =
                json!({"name": format!("backend-{at}"), "docker": {"image": "runner:1", "hosts": hosts}});
            if let Some(max) = backend.max {
                value["maxRunners"] = max.into();
            }
            value
        })
        .collect();
    let seconds = |seconds: u32| format!("{seconds}s");
    let spec = json!({
        "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
        "minRunners": set.min, "maxRunners": set.max, "backends": backends,
        "timeouts": {"start": seconds(set.start), "job": seconds(set.job), "idle": seconds(set.idle),
            "lifetime": seconds(set.lifetime), "drain": seconds(set.drain)},
        "scaleDown": {"delay": seconds(set.delay)},
    });
    let spec = serde_json::from_value(spec).expect("a spec is one");
    let mut object = RunnerScaleSet::new(&name(number), spec);
    object.metadata = ObjectMeta {
        name: Some(name(number)),
        namespace: Some("ns".to_owned()),
        uid: Some(uid(number)),
        generation: Some(1),
        resource_version: Some("1".to_owned()),
        creation_timestamp: Some(Time(now)),
        ..ObjectMeta::default()
    };
    object
}

/// How a call goes.
enum Course {
    Well,
    /// It does nothing, and fails.
    Fails,
    /// It does what it should, and nobody is told.
    AnswerLost,
    /// Nothing comes of it, for long.
    Hangs,
}

impl State {
    fn course(&mut self) -> Course {
        let weather = self.cluster.weather;
        match weather {
            Weather::Fine => Course::Well,
            Weather::Patchy => match self.millis(0, 9).as_millis() {
                0..=5 => Course::Well,
                6 | 7 => Course::Fails,
                8 => Course::AnswerLost,
                _ => Course::Hangs,
            },
            Weather::Down if self.chance(50) => Course::Fails,
            Weather::Down => Course::Hangs,
        }
    }
}

/// The API server as one controller reaches it.
pub fn client(life: &Arc<Life>) -> Client {
    let life = life.clone();
    let service = service_fn(move |request: Request<Body>| {
        let life = life.clone();
        async move { call(&life, request).await }
    });
    Client::new(service, "ns")
}

async fn call(life: &Arc<Life>, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    life.living().await;
    let (parts, body) = request.into_parts();
    let body = body.collect_bytes().await.map_err(std::io::Error::other)?;
    let (course, there, back) = {
        let mut state = life.sim.state();
        life.count_call(&mut state);
        (state.course(), state.millis(1, 20), state.millis(1, 20))
    };
    let (sender, answered) = oneshot::channel();
    let sim = life.sim.clone();
    tokio::spawn(async move {
        tokio::time::sleep(there).await;
        let path = parts.uri.path().to_owned();
        let answer = match course {
            Course::Fails => refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Course::Hangs => return tokio::time::sleep(GIVEN_UP).await,
            Course::Well | Course::AnswerLost => sim.state().cluster.answer(&parts.method, &path, &body),
        };
        if !path.contains("events") {
            sim.cluster.tell();
        }
        if matches!(course, Course::AnswerLost) {
            tokio::time::sleep(GIVEN_UP).await;
            return;
        }
        tokio::time::sleep(back).await;
        let _ = sender.send(answer);
    });
    let answer = answered.await;
    life.living().await;
    let Ok((code, body)) = answer else {
        return Err(std::io::Error::other("no answer"));
    };
    let response = Response::builder().status(code).header("content-type", "application/json");
    Ok(response.body(Body::from(body)).expect("a response"))
}
