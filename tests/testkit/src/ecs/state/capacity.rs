//! What a test changes about clusters and their capacity.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::task::{LaunchType, Status, Task, Times};
use super::{Cluster, ControlError, Definition, DefinitionStatus, InstanceSpec, State};

impl State {
    fn control_cluster(&mut self, name: &str) -> Result<&mut Cluster, ControlError> {
        self.clusters.get_mut(name).ok_or_else(|| ControlError::NoSuchCluster(name.to_owned()))
    }

    /// Makes a cluster INACTIVE.
    pub(in crate::ecs) fn deactivate_cluster(&mut self, name: &str) -> Result<(), ControlError> {
        self.control_cluster(name)?.active = false;
        Ok(())
    }

    /// Registers a container instance and places the tasks that wait for one; gives its ARN.
    pub(in crate::ecs) fn add_instance(
        &mut self,
        name: &str,
        spec: InstanceSpec,
    ) -> Result<String, ControlError> {
        let arn = self.control_cluster(name)?.add_instance(spec);
        self.place_waiting(self.clock.now());
        Ok(arn)
    }

    /// Sets for how many tasks a Fargate provider has room; none: for any number.
    pub(in crate::ecs) fn set_fargate_room(
        &mut self,
        name: &str,
        provider: &str,
        room: Option<usize>,
    ) -> Result<(), ControlError> {
        let rooms = &mut self.control_cluster(name)?.fargate_room;
        match room {
            Some(room) => rooms.insert(provider.to_owned(), room),
            None => rooms.remove(provider),
        };
        Ok(())
    }

    /// Starts tasks that somebody else runs: RUNNING already, and known to every reader; gives their ARNs.
    pub(in crate::ecs) fn run_foreign_tasks(
        &mut self,
        name: &str,
        count: usize,
    ) -> Result<Vec<String>, ControlError> {
        let prefix = self.control_cluster(name)?.arn.replacen(":cluster/", ":task/", 1);
        let now = self.clock.now();
        let longest = self.lag.list.max(self.lag.describe);
        let accepted = now.checked_sub(longest).unwrap_or(now);
        let definition = self.foreign_definition(now);
        let arns = (0..count).map(|_| {
            let task = foreign_task(&prefix, name, Arc::clone(&definition), accepted);
            let arn = task.arn.clone();
            self.tasks.insert(task.id.clone(), task);
            arn
        });
        Ok(arns.collect())
    }

    fn foreign_definition(&mut self, now: Instant) -> Arc<Definition> {
        let (region, account) = (&self.config.region, &self.config.account);
        let definition = Definition {
            arn: format!("arn:aws:ecs:{region}:{account}:task-definition/foreign:1"),
            family: "foreign".to_owned(),
            revision: 1,
            status: DefinitionStatus::Active,
            body: json!({ "containerDefinitions": [], "compatibilities": ["EC2"] }),
            tags: Vec::new(),
            registered_at: now,
            deregistered_at: None,
            delete_requested_at: None,
        };
        self.definitions.put(definition)
    }
}

fn foreign_task(prefix: &str, cluster: &str, definition: Arc<Definition>, accepted: Instant) -> Task {
    let id = Uuid::new_v4().simple().to_string();
    Task {
        arn: format!("{prefix}/{id}"),
        id,
        cluster: cluster.to_owned(),
        definition,
        launch_type: LaunchType::Ec2,
        provider: None,
        instance: None,
        started_by: Some("somebody-else".to_owned()),
        group: "family:foreign".to_owned(),
        overrides: Value::Null,
        tags: Vec::new(),
        cpu: 0,
        memory: 0,
        subnet: None,
        platform_version: None,
        status: Status::Running,
        stop_wanted: false,
        stop_code: None,
        stopped_reason: None,
        version: 1,
        containers: Vec::new(),
        times: Times {
            created: Some(accepted),
            pulled: Some(accepted),
            started: Some(accepted),
            ..Times::new(accepted)
        },
        history: vec![Status::Running],
        awaits_instance: false,
        fails_to_start: None,
        due: None,
        kill_due: None,
    }
}
