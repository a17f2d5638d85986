//! The engine's side: this test's containers, and what happened to them when.

use std::collections::{BTreeMap, HashMap};
use std::process::Command;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
};
use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{Lab, PATIENCE};

/// The label that carries the cluster's id.
const CLUSTER: &str = "paddock.dev/cluster";
/// The label that carries what a container is of its runner, and that of a private engine.
const PART: &str = "paddock.dev/part";
const PRIVATE_ENGINE: &str = "docker";

/// What happened to a container.
#[derive(Debug, Clone)]
pub struct Event {
    /// The engine's own time of it.
    pub at: Timestamp,
    /// `create`, `start`, `kill`, `die`, `destroy` and the like.
    pub action: String,
    /// The runner's name.
    pub runner: String,
    /// The exit code, of one that died.
    pub exit_code: Option<i64>,
}

/// The events of this test's containers, as they come.
pub struct Timeline {
    events: watch::Receiver<Vec<Event>>,
    task: JoinHandle<()>,
}

impl Timeline {
    /// Follows the containers of a cluster from now on.
    pub(super) fn follow(docker: &Docker, cluster: &str) -> Timeline {
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![format!("{CLUSTER}={cluster}")]),
        ]);
        let since = Timestamp::now().as_second().to_string();
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let mut stream = docker.events(Some(options));
        let (sender, events) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                sender.send_modify(|events| events.extend(event(message)));
            }
        });
        Timeline { events, task }
    }

    /// The events so far of one action, in order.
    pub fn all(&self, action: &str) -> Vec<Event> {
        let events = self.events.borrow();
        events.iter().filter(|e| e.action == action).cloned().collect()
    }

    /// How often something happened so far.
    pub fn count(&self, action: &str) -> usize {
        self.all(action).len()
    }

    /// Waits until the events are so.
    pub async fn until(&self, what: &str, so: impl FnMut(&Vec<Event>) -> bool) {
        assert!(self.is_so_within(PATIENCE, so).await, "{what}: {:#?}", self.events.borrow());
    }

    /// Whether the events come to be so in this time.
    pub async fn is_so_within(&self, time: Duration, so: impl FnMut(&Vec<Event>) -> bool) -> bool {
        let deadline = Instant::now() + time;
        let mut events = self.events.clone();
        timeout_at(deadline, events.wait_for(so)).await.is_ok_and(|seen| seen.is_ok())
    }

    /// From each container's first `from` to its first `to`, by runner.
    pub fn between(&self, from: &str, to: &str) -> BTreeMap<String, Duration> {
        let first = |action: &str| -> BTreeMap<String, Timestamp> {
            let events = self.all(action).into_iter().rev();
            events.map(|e| (e.runner, e.at)).collect()
        };
        let ends = first(to);
        first(from)
            .into_iter()
            .filter_map(|(runner, from)| {
                let took = ends.get(&runner)?.duration_since(from);
                Some((runner, took.unsigned_abs()))
            })
            .collect()
    }
}

impl Timeline {
    /// Everything so far, in order.
    pub fn events(&self) -> Vec<Event> {
        self.events.borrow().clone()
    }
}

impl Drop for Timeline {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn event(message: EventMessage) -> Option<Event> {
    let mut attributes = message.actor?.attributes?;
    if attributes.get(PART).is_some_and(|part| part == PRIVATE_ENGINE) {
        return None;
    }
    Some(Event {
        at: Timestamp::from_nanosecond(message.time_nano?.into()).ok()?,
        action: message.action?,
        runner: attributes.remove("paddock.dev/runner")?,
        exit_code: attributes.get("exitCode").and_then(|code| code.parse().ok()),
    })
}

impl Lab {
    /// This test's containers, running or not: runner and container id.
    pub async fn containers(&self) -> BTreeMap<String, String> {
        let label = format!("{CLUSTER}={}", self.cluster);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&HashMap::from([("label", vec![label])]))
            .build();
        let containers = self.docker.list_containers(Some(options)).await.unwrap();
        let of_runner = |mut labels: HashMap<String, String>| {
            let runner = labels.remove("paddock.dev/runner")?;
            (labels.get(PART).map(String::as_str) != Some(PRIVATE_ENGINE)).then_some(runner)
        };
        containers.into_iter().filter_map(|c| Some((of_runner(c.labels?)?, c.id?))).collect()
    }

    /// The environment of a container.
    pub async fn environment(&self, container: &str) -> Vec<String> {
        let inspection = self.docker.inspect_container(container, None::<InspectContainerOptions>);
        inspection.await.unwrap().config.unwrap().env.unwrap_or_default()
    }

    /// Kills a container from outside.
    pub async fn kill_container(&self, container: &str) {
        let options = KillContainerOptionsBuilder::new().signal("KILL").build();
        self.docker.kill_container(container, Some(options)).await.unwrap();
    }
}

/// Removes what is left of a cluster. From a destructor, so by the command line.
pub(super) fn remove_all(cluster: &str) {
    let filter = format!("label={CLUSTER}={cluster}");
    let list = Command::new("docker").args(["ps", "--all", "--quiet", "--filter", &filter]).output();
    let ids = list.map(|list| String::from_utf8_lossy(&list.stdout).into_owned());
    let ids = ids.unwrap_or_default();
    if !ids.is_empty() {
        let _ =
            Command::new("docker").args(["rm", "--force", "--volumes"]).args(ids.split_whitespace()).output();
    }
}
