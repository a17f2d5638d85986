//! Tasks and task definitions as the API shows them.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::task::{Container, LaunchType, Status, Task};
use super::{Definition, State};

/// Sets a field, if there is something to set.
fn set<T: Into<Value>>(view: &mut Value, name: &str, value: Option<T>) {
    if let Some(value) = value {
        view[name] = value.into();
    }
}

impl State {
    fn stamp(&self, view: &mut Value, name: &str, at: Option<Instant>) {
        set(view, name, at.map(|at| self.clock.epoch_seconds(at)));
    }

    /// A task as DescribeTasks shows it.
    pub(in crate::ecs) fn view_task(&self, task: &Task, with_tags: bool) -> Value {
        let cluster_arn = self.clusters.get(&task.cluster).map(|cluster| cluster.arn.as_str());
        let up = task.status >= Status::Activating && task.status < Status::Stopped;
        let mut view = json!({
            "taskArn": task.arn,
            "clusterArn": cluster_arn,
            "taskDefinitionArn": task.definition.arn,
            "group": task.group,
            "launchType": task.launch_type.name(),
            "lastStatus": task.status,
            "desiredStatus": if task.stop_wanted { "STOPPED" } else { "RUNNING" },
            "connectivity": if up { "CONNECTED" } else { "DISCONNECTED" },
            "cpu": task.cpu.to_string(),
            "memory": task.memory.to_string(),
            "overrides": overrides(task),
            "attachments": attachments(task),
            "attributes": [{ "name": "ecs.cpu-architecture", "value": architecture(&task.definition) }],
            "containers": task.containers.iter().map(|c| self.view_container(task, c)).collect::<Vec<_>>(),
            "availabilityZone": format!("{}a", self.config.region),
            "enableExecuteCommand": false,
            "healthStatus": "UNKNOWN",
            "inferenceAccelerators": [],
            "version": task.version,
            "tags": if with_tags { json!(task.tags) } else { json!([]) },
        });
        set(&mut view, "startedBy", task.started_by.clone());
        set(&mut view, "capacityProviderName", task.provider.clone());
        set(&mut view, "containerInstanceArn", task.instance.clone());
        set(&mut view, "stoppedReason", task.stopped_reason.clone());
        set(&mut view, "stopCode", task.stop_code.map(|code| json!(code)));
        if task.launch_type == LaunchType::Fargate {
            set(&mut view, "platformVersion", task.platform_version.clone());
            view["platformFamily"] = json!("Linux");
            let size = task.definition.body["ephemeralStorage"]["sizeInGiB"].as_i64().unwrap_or(20);
            view["ephemeralStorage"] = json!({ "sizeInGiB": size });
        }
        let times = &task.times;
        self.stamp(&mut view, "createdAt", times.created.or(Some(times.accepted)));
        self.stamp(&mut view, "pullStartedAt", times.created.filter(|_| times.pulled.is_some()));
        self.stamp(&mut view, "pullStoppedAt", times.pulled);
        self.stamp(&mut view, "connectivityAt", times.created);
        self.stamp(&mut view, "startedAt", times.started);
        self.stamp(&mut view, "stoppingAt", times.stopping);
        self.stamp(&mut view, "executionStoppedAt", times.execution_stopped);
        self.stamp(&mut view, "stoppedAt", times.stopped);
        view
    }

    fn view_container(&self, task: &Task, container: &Container) -> Value {
        let status = match () {
            () if container.ended || task.status == Status::Stopped => "STOPPED",
            () if container.started => "RUNNING",
            () => "PENDING",
        };
        let mut view = json!({
            "containerArn": container.arn,
            "taskArn": task.arn,
            "name": container.name,
            "image": container.image,
            "lastStatus": status,
            "networkInterfaces": [],
            "networkBindings": [],
            "healthStatus": "UNKNOWN",
            "cpu": "0",
        });
        set(&mut view, "exitCode", container.exit_code);
        set(&mut view, "reason", container.reason.clone());
        if container.started {
            view["runtimeId"] = json!(format!("{}-{}", task.id, self.config.account));
        }
        view
    }

    /// A task definition as DescribeTaskDefinition shows it.
    pub(in crate::ecs) fn view_definition(&self, definition: &Definition) -> Value {
        let mut view = definition.body.clone();
        view["taskDefinitionArn"] = json!(definition.arn);
        view["family"] = json!(definition.family);
        view["revision"] = json!(definition.revision);
        view["status"] = json!(definition.status);
        view["registeredBy"] = json!(format!("arn:aws:iam::{}:user/simulated", self.config.account));
        self.stamp(&mut view, "registeredAt", Some(definition.registered_at));
        self.stamp(&mut view, "deregisteredAt", definition.deregistered_at);
        self.stamp(&mut view, "deleteRequestedAt", definition.delete_requested_at);
        view
    }
}

/// The overrides with an entry for each container, as AWS fills them up.
fn overrides(task: &Task) -> Value {
    let mut view = if task.overrides.is_object() { task.overrides.clone() } else { json!({}) };
    let named = view["containerOverrides"].as_array().cloned().unwrap_or_default();
    let others = task.definition.containers().filter(|c| named.iter().all(|n| n["name"] != c["name"]));
    let others: Vec<Value> = others.map(|c| json!({ "name": c["name"] })).collect();
    view["containerOverrides"] = json!(named.into_iter().chain(others).collect::<Vec<_>>());
    view["inferenceAcceleratorOverrides"] = json!([]);
    view
}

fn attachments(task: &Task) -> Value {
    let Some(subnet) = &task.subnet else { return json!([]) };
    let status = match task.status {
        Status::Provisioning => "PRECREATED",
        Status::Stopped => "DELETED",
        _ => "ATTACHED",
    };
    json!([{
        "id": task.id,
        "type": "ElasticNetworkInterface",
        "status": status,
        "details": [{ "name": "subnetId", "value": subnet }],
    }])
}

fn architecture(definition: &Definition) -> &'static str {
    match definition.body["runtimePlatform"]["cpuArchitecture"].as_str() {
        Some("ARM64") => "arm64",
        _ => "x86_64",
    }
}
