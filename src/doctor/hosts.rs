//! The hosts that scale sets name, and those that are given: opened as the controller opens them, and only looked at.

use std::collections::HashSet;
use std::sync::Arc;

use futures::future::join_all;
use serde_json::{Value, json};

use super::finding::{Finding, Kind};
use super::objects::name_of;
use crate::api::{self, BackendType, PullPolicy, Reason, RunnerScaleSet};
use crate::backend::{Availability, Backend, HostKey, HostState, Lack, NamedHost, Providers, settle};
use crate::controller::{InputError, Objects, read_backend};
use crate::runner::Identity;

/// A host that no scale set names, and the Secret with its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtraHost {
    endpoint: String,
    kind: BackendType,
    /// Namespace and name.
    secret: Option<(String, String)>,
}

/// A backend that is open.
pub(super) struct Opened {
    /// `namespace/name` of the scale set; empty for a host that is given.
    pub(super) scale_set: String,
    backend: Arc<dyn Backend>,
    named: Vec<NamedHost>,
    /// Whether an image that is missing is missed: the spec does not let it be pulled.
    needs_image: bool,
}

impl std::str::FromStr for ExtraHost {
    type Err = String;

    /// Reads `ENDPOINT[,kind=KIND][,secret=NAMESPACE/NAME]`.
    fn from_str(text: &str) -> Result<ExtraHost, String> {
        let mut parts = text.split(',');
        let endpoint = parts.next().unwrap_or_default().to_owned();
        let mut kind = match endpoint.split_once("://") {
            Some(("unix" | "tcp" | "ssh", _)) => BackendType::Docker,
            Some(("ecs", _)) => BackendType::Ecs,
            _ if endpoint == "local" => BackendType::Tart,
            _ => return Err("it begins with unix://, tcp://, ssh:// or ecs://, or is `local`".to_owned()),
        };
        let mut secret = None;
        for part in parts {
            match part.split_once('=') {
                Some(("kind", "docker")) => kind = BackendType::Docker,
                Some(("kind", "tart")) => kind = BackendType::Tart,
                Some(("secret", name)) => {
                    let (namespace, name) = name.split_once('/').ok_or("secret=NAMESPACE/NAME is wanted")?;
                    secret = Some((namespace.to_owned(), name.to_owned()));
                }
                _ => return Err(format!("{part:?} is neither kind=docker|tart nor secret=NAMESPACE/NAME")),
            }
        }
        Ok(ExtraHost { endpoint, kind, secret })
    }
}

impl ExtraHost {
    /// A scale set that names it, and nothing else.
    fn object(&self) -> Option<RunnerScaleSet> {
        let (namespace, name) = self.secret.clone().unwrap_or_default();
        let secret = if name.is_empty() { Value::Null } else { json!({"name": name}) };
        let mut host = json!({"name": "given", "endpoint": self.endpoint});
        let login = if self.endpoint.starts_with("tcp://") { "tlsSecretRef" } else { "sshSecretRef" };
        host[login] = secret.clone();
        let backend = match self.kind {
            BackendType::Docker => json!({"name": "given", "docker": {"hosts": [host]}}),
            BackendType::Tart => json!({"name": "given", "tart": {"image": "none", "hosts": [host]}}),
            BackendType::Ecs => {
                let (region, cluster) = self.endpoint.strip_prefix("ecs://")?.split_once('/')?;
                let ecs = json!({"region": region, "cluster": cluster, "taskDefinition": "none",
                    "credentialsSecretRef": secret});
                json!({"name": "given", "ecs": ecs})
            }
        };
        let object: Value = json!({
            "apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet",
            "metadata": {"name": "given", "namespace": namespace},
            "spec": {"github": {"url": "", "credentialsSecretRef": {"name": ""}}, "backends": [backend]},
        });
        serde_json::from_value(object).ok()
    }
}

/// Opens all backends of a scale set. What it refers to and cannot be used is told of.
pub(super) async fn open(
    object: &RunnerScaleSet,
    cluster_id: &str,
    providers: &Providers,
    objects: &dyn Objects,
) -> (Vec<Opened>, Vec<Finding>) {
    let (mut opened, mut found) = (Vec::new(), Vec::new());
    let owner = Identity {
        cluster: cluster_id.to_owned(),
        scale_set_uid: object.metadata.uid.clone().unwrap_or_default(),
        scale_set: name_of(object),
    };
    for backend in &object.spec.backends {
        match read_backend(objects, providers, object, &looking_only(backend)).await {
            Ok(resolved) => opened.push(Opened {
                scale_set: owner.scale_set.clone(),
                backend: providers.open(&*resolved, &backend.name, &[], &owner),
                named: resolved.hosts().to_vec(),
                needs_image: pull_policy(backend) == Some(PullPolicy::Never),
            }),
            Err(error) => found.push(unusable(&owner.scale_set, &error)),
        }
    }
    (opened, found)
}

/// The hosts that a scale set names, whether or not they can be used.
pub(super) fn keys(object: &RunnerScaleSet, providers: &Providers) -> HashSet<HostKey> {
    let resolved = object.spec.backends.iter().filter_map(|backend| providers.resolve_offline(backend));
    resolved.flat_map(|resolved| resolved.hosts().to_vec()).filter_map(|named| named.key).collect()
}

/// Opens a host that is given.
pub(super) async fn open_extra(
    extra: &ExtraHost,
    cluster_id: &str,
    providers: &Providers,
    objects: &dyn Objects,
) -> (Vec<Opened>, Vec<Finding>) {
    let Some(object) = extra.object() else {
        let remedy = "a cluster is ecs://REGION/CLUSTER";
        let place = ("command line", extra.endpoint.as_str());
        return (Vec::new(), vec![Finding::new(Kind::Unusable, place, "it is no host", remedy)]);
    };
    let (mut opened, found) = open(&object, cluster_id, providers, objects).await;
    opened.iter_mut().for_each(|opened| opened.scale_set.clear());
    (opened, found)
}

/// What a spec refers to cannot be used.
pub(super) fn unusable(scale_set: &str, error: &InputError) -> Finding {
    let remedy = "correct the field, or create what it names";
    Finding::new(Kind::Unusable, ("cluster", scale_set), error.to_string(), remedy)
}

/// A backend as it is opened by who only looks: nothing is pulled or removed.
fn looking_only(backend: &api::Backend) -> api::Backend {
    let mut backend = backend.clone();
    backend.keep_no_house();
    backend.docker.iter_mut().for_each(|docker| docker.pull_policy = PullPolicy::Never);
    backend.tart.iter_mut().for_each(|tart| tart.pull_policy = PullPolicy::Never);
    backend
}

fn pull_policy(backend: &api::Backend) -> Option<PullPolicy> {
    let docker = backend.docker.as_ref().map(|docker| docker.pull_policy);
    docker.or(backend.tart.as_ref().map(|tart| tart.pull_policy))
}

/// Where something is: the kind of host, and its endpoint.
pub(super) fn place_of(host: &HostKey) -> String {
    format!("{} {}", host.kind, host.endpoint)
}

impl Opened {
    /// Looks at all of its hosts. Answers what is wrong with them, and whether all answer.
    pub(super) async fn examine(&self, progress: &(dyn Fn(&str) + Sync)) -> (Vec<Finding>, bool) {
        let hosts = self.backend.hosts();
        let looks = hosts.iter().map(async |host| {
            let place = self.place(&host.name);
            progress(&format!("{place}: connecting"));
            let state = settle(&*self.backend, &host.name, &|_| {}).await;
            let answers = state.availability != Availability::Unreachable;
            (self.judge(&place, &state).await, answers)
        });
        let looks = join_all(looks).await;
        let all_answer = looks.iter().all(|(_, answers)| *answers);
        (looks.into_iter().flat_map(|(found, _)| found).collect(), all_answer)
    }

    fn place(&self, host: &str) -> String {
        let named = self.named.iter().find(|named| named.name == host);
        match named.and_then(|named| named.key.as_ref()) {
            Some(key) => place_of(key),
            None => format!("{} {}", self.backend.kind(), named.map_or(host, |named| &named.endpoint)),
        }
    }

    async fn judge(&self, place: &str, state: &HostState) -> Vec<Finding> {
        let subject = match self.scale_set.as_str() {
            "" => state.name.clone(),
            scale_set => format!("{scale_set}: {}/{}", self.backend.name(), state.name),
        };
        let at = |kind, message: &str, remedy: &str| Finding::new(kind, (place, &subject), message, remedy);
        match &state.availability {
            Availability::Unreachable => {
                let remedy = "see whether the host is up and lets the controller in: network, login, rights on the socket";
                return vec![at(Kind::HostUnreachable, &state.message, remedy)];
            }
            Availability::Refused => {
                return vec![at(Kind::HostRefuses, &state.message, "change what the message names")];
            }
            Availability::BackOff { reason: Reason::ImageMissing, .. } if self.needs_image => {
                let remedy = "pull the image on the host, or let pullPolicy be IfNotPresent";
                return vec![at(Kind::ImageMissing, &state.message, remedy)];
            }
            _ => {}
        }
        // What is given on the command line has a backend in name only.
        if self.scale_set.is_empty() && self.backend.kind() == BackendType::Ecs {
            return Vec::new();
        }
        match self.backend.examine(&state.name).await {
            Ok(examination) => {
                let lacks = examination.lacks.iter().map(|lack| match lack {
                    Lack::Version(message) => at(Kind::HostTooOld, message, "upgrade what runs there"),
                    Lack::Disk(message) => at(
                        Kind::DiskNearlyFull,
                        message,
                        "free space: images and build cache that nothing uses; housekeeping keeps it so",
                    ),
                });
                lacks.collect()
            }
            Err(error) => {
                vec![at(Kind::HostRefuses, &error.to_string(), "change what the message names")]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_given_with_its_kind_and_its_secret() {
        let read = |text: &str| text.parse::<ExtraHost>();
        let kind = |text: &str| read(text).unwrap().kind;
        assert_eq!(kind("unix:///var/run/docker.sock"), BackendType::Docker);
        assert_eq!(kind("ssh://admin@mac-1,kind=tart,secret=ci/mac"), BackendType::Tart);
        assert_eq!(kind("local"), BackendType::Tart);
        assert_eq!(kind("ecs://eu-west-1/runners"), BackendType::Ecs);
        for wrong in ["", "http://a", "ssh://a,kind=ecs", "ssh://a,secret=mac", "ssh://a,x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for text in ["tcp://a:2376,secret=ci/tls", "ssh://a,kind=tart,secret=ci/mac", "ecs://eu-west-1/c"] {
            let object = read(text).unwrap().object().unwrap();
            assert!(object.spec.backends[0].kind() == Some(read(text).unwrap().kind), "{text}");
        }
        let host = read("tcp://a:2376,secret=ci/tls").unwrap().object().unwrap();
        let docker = host.spec.backends[0].docker.as_ref().unwrap();
        assert_eq!(docker.hosts[0].tls_secret_ref.as_ref().unwrap().name, "tls");
        assert_eq!(host.metadata.namespace.as_deref(), Some("ci"));
    }
}
