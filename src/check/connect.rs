//! Tries what a spec names, as the controller would: GitHub, the hosts, the images.

use futures::future::join_all;

use super::line::Report;
use super::sources::Sources;
use crate::api::{self, BackendType, RunnerScaleSet};
use crate::backend::{Availability, Backend, Lack, Providers, settle};
use crate::controller::{Cluster, read_backend, read_client, recorded, wanted_scale_set};
use crate::github::{Client, Deadlines, Error, ScaleSet};
use crate::runner::Identity;

const CREDENTIALS: &str = "spec.github.credentialsSecretRef";
const GROUP: &str = "spec.github.runnerGroup";
const NAME: &str = "spec.scaleSetName";

/// What is tried, and with what.
pub(super) struct Trial<'a> {
    pub(super) sources: &'a Sources<'a>,
    pub(super) providers: &'a Providers,
    pub(super) cluster: &'a Cluster,
    pub(super) cluster_id: &'a str,
    pub(super) progress: &'a (dyn Fn(&str) + Sync),
}

impl Trial<'_> {
    /// Tries all that an object names. What the controller could not read is told of already, and not tried.
    pub(super) async fn connect(&self, object: &RunnerScaleSet, report: &mut Report<'_>) {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let there = match self.cluster.scale_set(namespace, name).await {
            Ok(there) => there,
            Err(error) => return report.tell(false, "", error.to_string()),
        };
        self.github(object, there.as_ref(), report).await;
        let uid = there.and_then(|there| there.metadata.uid);
        let owner = Identity {
            cluster: self.cluster_id.to_owned(),
            scale_set_uid: uid.unwrap_or_else(|| "not-created".to_owned()),
            scale_set: format!("{namespace}/{name}"),
        };
        for backend in &object.spec.backends {
            self.hosts(object, backend, &owner, report).await;
        }
    }

    async fn github(&self, object: &RunnerScaleSet, there: Option<&RunnerScaleSet>, report: &mut Report<'_>) {
        let Ok(config) = read_client(self.sources, object, &|_| {}).await else { return };
        (self.progress)(&format!("{}: asking {}", report.object, config.url));
        let wanted = wanted_scale_set(object);
        let found = match Client::new(&config, Deadlines::default()) {
            Ok(client) => client.look_up(&wanted).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => {
                report.tell(true, CREDENTIALS, "GitHub takes the credentials");
                report.tell(true, GROUP, format!("the runner group {} is there", wanted.runner_group));
                name_at_github(&wanted.name, found, there.and_then(recorded), report);
            }
            Err(error) => report.tell(false, field_of(&error), error.to_string()),
        }
    }

    async fn hosts(
        &self,
        object: &RunnerScaleSet,
        backend: &api::Backend,
        owner: &Identity,
        report: &mut Report<'_>,
    ) {
        let mut quiet = backend.clone();
        quiet.keep_no_house();
        let Ok(resolved) = read_backend(self.sources, self.providers, object, &quiet).await else { return };
        let opened = self.providers.open(&*resolved, &backend.name, &[], owner);
        let field = |host: &str| match opened.kind() {
            BackendType::Ecs => format!("spec.backends[{}].ecs.cluster", backend.name),
            kind => format!("spec.backends[{}].{kind}.hosts[{host}]", backend.name),
        };
        let fields = opened.hosts().into_iter().map(|host| (field(&host.name), host.name));
        let looks = fields.map(async |(field, host)| {
            (self.progress)(&format!("{field}: connecting"));
            let tell = |about: &str| (self.progress)(&format!("{field}: {about}"));
            let found = try_host(&*opened, &host, &tell).await;
            (field, found)
        });
        for (field, found) in join_all(looks).await {
            match found {
                Ok(about) => report.tell(true, field, about),
                Err(wrong) => wrong.into_iter().for_each(|wrong| report.tell(false, field.clone(), wrong)),
            }
        }
    }
}

/// Tells whether a name is free, or the object's own.
fn name_at_github(name: &str, found: Option<ScaleSet>, own: Option<i64>, report: &mut Report<'_>) {
    match found {
        None => report.tell(true, NAME, format!("the name {name} is free at GitHub")),
        Some(ScaleSet { id, .. }) if own == Some(id) => {
            report.tell(true, NAME, format!("the scale set {name} at GitHub is this object's own"));
        }
        Some(ScaleSet { id, .. }) => report.tell(
            false,
            NAME,
            format!(
                "GitHub has a scale set {name} (id {id}) that is not this object's: the controller takes it as soon as nobody \
                 listens to it; where somebody does, another name is needed"
            ),
        ),
    }
}

/// The field that an error of GitHub's is about.
fn field_of(error: &Error) -> &'static str {
    match error {
        Error::AuthRejected(_) | Error::Forbidden(_) => CREDENTIALS,
        Error::GroupNotFound(_) => GROUP,
        Error::NameTaken(_) => NAME,
        _ => "spec.github",
    }
}

/// Answers what a host is like that takes starts, or all that is wrong with it.
async fn try_host(
    backend: &dyn Backend,
    host: &str,
    tell: &(dyn Fn(&str) + Sync),
) -> Result<String, Vec<String>> {
    let state = settle(backend, host, tell).await;
    let mut wrong = Vec::new();
    if state.availability != Availability::Ready {
        wrong.push(state.message);
    }
    let examination = match backend.examine(host).await {
        Ok(examination) => examination,
        Err(error) if wrong.is_empty() => return Err(vec![error.to_string()]),
        Err(_) => return Err(wrong),
    };
    let mut about = examination.about;
    if backend.kind() != BackendType::Ecs {
        about.push_str("; the image is there");
    }
    for lack in examination.lacks {
        match lack {
            Lack::Version(message) => wrong.push(message),
            // It is no fault of the manifest, and may pass.
            Lack::Disk(message) => about.push_str(&format!("; {message}")),
        }
    }
    if wrong.is_empty() { Ok(about) } else { Err(wrong) }
}
