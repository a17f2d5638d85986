//! A container that does a small piece of work on a host, made from an image that is there, and gone after it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::TryStreamExt;
use jiff::Timestamp;
use tracing::{debug, info};

use crate::api::Reason;
use crate::backend::Error;
use crate::backend::docker::failure::call;
use crate::runner::Identity;
use crate::time::Plus;

/// A helper ends itself after so long, whoever watches it.
pub(super) const BOUND: Duration = Duration::from_secs(600);
/// One that is older than this was left by a controller that died.
const LEFT: Duration = Duration::from_secs(900);
/// For a call that makes the engine work.
const CALL: Duration = Duration::from_secs(60);
/// What is read of what it prints.
const MOST_OUTPUT: usize = 64 * 1024;

/// An image that is on the host already.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HelperImage {
    pub(crate) reference: String,
    pub(crate) platform: Option<String>,
}

/// What a helper is to do.
pub(super) struct Helper<'a> {
    pub(super) cluster: &'a str,
    pub(super) image: &'a HelperImage,
    /// For a POSIX shell; it finds `arguments` from `$1` on.
    pub(super) script: &'a str,
    pub(super) arguments: Vec<String>,
    pub(super) mount: Mount,
    /// What root may do in it beyond what anyone may.
    pub(super) capabilities: &'a [&'a str],
}

impl Helper<'_> {
    /// Runs it to its end and answers what it printed. Nothing of it is left, even if the future is dropped.
    pub(super) async fn run(&self, docker: &Docker) -> Result<String, Error> {
        let options = CreateContainerOptionsBuilder::new();
        let options =
            self.image.platform.iter().fold(options, |options, platform| options.platform(platform));
        let creation = docker.create_container(Some(options.build()), self.body());
        let id = call("making a helper", CALL, creation).await?.id;
        let removal = Removal { docker: docker.clone(), id: id.clone() };
        let ran = tokio::time::timeout(BOUND, output(docker, &id)).await;
        removal.now().await;
        ran.unwrap_or_else(|_| Err(failed(format!("it took longer than {} s", BOUND.as_secs()))))
    }

    fn body(&self) -> ContainerCreateBody {
        let bound = BOUND.as_secs().to_string();
        let command = ["timeout", "-s", "KILL", &bound, "sh", "-c", self.script, "housekeeping"];
        let log_options = [("max-size", "1m"), ("max-file", "1")];
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        ContainerCreateBody {
            image: Some(self.image.reference.clone()),
            // One empty word takes the image's own entrypoint away.
            entrypoint: Some(vec![String::new()]),
            cmd: Some(command.map(str::to_owned).into_iter().chain(self.arguments.clone()).collect()),
            user: Some("0:0".to_owned()),
            // The image's own may lead to other programs.
            env: Some(vec![
                "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
                "LC_ALL=C".to_owned(),
                "TZ=UTC".to_owned(),
            ]),
            working_dir: Some("/".to_owned()),
            labels: Some([owned((Identity::HELPER, self.cluster))].into()),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                readonly_rootfs: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                cap_add: Some(self.capabilities.iter().map(|name| (*name).to_owned()).collect()),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                pids_limit: Some(64),
                memory: Some(256 << 20),
                memory_swap: Some(256 << 20),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".to_owned()),
                    config: Some(log_options.map(owned).into()),
                }),
                mounts: Some(vec![self.mount.clone()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        }
    }
}

async fn output(docker: &Docker, id: &str) -> Result<String, Error> {
    call("starting a helper", CALL, docker.start_container(id, None::<StartContainerOptions>)).await?;
    let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
    let lines = docker.logs(id, Some(options)).try_fold(String::new(), |mut text, line| async move {
        if text.len() < MOST_OUTPUT {
            text.push_str(&String::from_utf8_lossy(&line.into_bytes()));
        }
        Ok(text)
    });
    let text = call("a helper", BOUND, lines).await?;
    let inspection = docker.inspect_container(id, None::<InspectContainerOptions>);
    let state = call("an inspection", CALL, inspection).await?.state.unwrap_or_default();
    match state.exit_code {
        Some(0) => Ok(text),
        code => {
            let said: String = text.trim().chars().take(200).collect();
            Err(failed(format!("it ended with {}: {said}", code.unwrap_or(-1))))
        }
    }
}

fn failed(why: String) -> Error {
    Error::no_capacity(Reason::EngineError, format!("housekeeping's container failed: {why}"))
}

/// Removes a helper, whatever becomes of who waits for it.
struct Removal {
    docker: Docker,
    id: String,
}

impl Removal {
    async fn now(mut self) {
        let id = std::mem::take(&mut self.id);
        remove(&self.docker, &id).await;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && !id.is_empty()
        {
            runtime.spawn(async move { remove(&docker, &id).await });
        }
    }
}

async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    if let Err(error) = call("removing a helper", CALL, docker.remove_container(id, Some(options))).await {
        debug!(id, %error, "a helper cannot be removed now");
    }
}

/// Removes the helpers of this cluster that a controller left which died. `now` is the engine's own time.
pub(super) async fn remove_left(docker: &Docker, cluster: &str, now: Timestamp) -> Result<(), Error> {
    let filters = HashMap::from([("label", vec![format!("{}={cluster}", Identity::HELPER)])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = call("a listing", CALL, docker.list_containers(Some(options))).await?;
    for helper in found {
        if let Some(id) = helper.id.filter(|_| is_left(helper.created, now)) {
            info!(id, "removing a helper that a controller left");
            remove(docker, &id).await;
        }
    }
    Ok(())
}

/// Whether nobody waits for a helper any more that was made in that second.
fn is_left(created: Option<i64>, now: Timestamp) -> bool {
    let created_at = created.and_then(|at| Timestamp::from_second(at).ok());
    created_at.is_some_and(|at| at.plus(LEFT) <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_left_once_it_must_have_ended_by_itself() {
        let now = Timestamp::from_second(10_000).unwrap();
        let age = |seconds: i64| is_left(Some(10_000 - seconds), now);
        assert!(!age(0) && !age(BOUND.as_secs() as i64 + 120) && age(900));
        assert!(!is_left(None, now));
    }
}
