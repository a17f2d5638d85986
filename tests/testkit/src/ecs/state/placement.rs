//! Where a task goes: Fargate's room, or a container instance with enough left.

use serde_json::Value;
use tokio::time::Instant;

use super::cluster::{Cluster, Instance, Provider, ProviderKind};
use super::task::{LaunchType, Task, TaskId};
use super::{Definition, State};
use crate::ecs::fault::reason;
use crate::ecs::refusal::{own, reported};
use crate::ecs::wire::{Refusal, failure};

/// How many tasks of a cluster may wait in PROVISIONING for instances.
const PROVISIONING_QUOTA: usize = 500;

/// What a task asks of the place where it runs.
#[derive(Debug, Clone)]
pub(in crate::ecs) struct Need {
    pub cpu: i64,
    pub memory: i64,
    pub interface: bool,
}

impl Need {
    pub fn of(definition: &Definition, cpu: i64, memory: i64) -> Self {
        Self { cpu, memory, interface: definition.network_mode() == "awsvpc" }
    }
}

/// What becomes of one task of a call.
#[derive(Debug)]
pub(in crate::ecs) enum Placement {
    Fargate,
    Instance(String),
    /// Managed scaling starts an instance for it.
    Waits,
    Failed(Vec<Value>),
}

impl State {
    /// Finds a place for one task.
    pub(in crate::ecs) fn place(
        &self,
        cluster: &Cluster,
        launch_type: LaunchType,
        provider: Option<&Provider>,
        need: &Need,
    ) -> Result<Placement, Refusal> {
        if launch_type == LaunchType::Fargate {
            return Ok(self.place_on_fargate(cluster, provider));
        }
        let external = launch_type == LaunchType::External;
        let name = provider.map(|provider| provider.name.as_str());
        let suits = |instance: &&Instance| {
            instance.spec.external == external
                && (name.is_none() || instance.spec.provider.as_deref() == name)
        };
        let candidates: Vec<&Instance> = cluster.instances.iter().filter(suits).collect();
        let lacking = candidates.iter().map(|instance| (self.lacking(instance, need), *instance));
        let lacking: Vec<(Option<&'static str>, &Instance)> = lacking.collect();
        if let Some((_, instance)) = lacking.iter().find(|(lack, _)| lack.is_none()) {
            return Ok(Placement::Instance(instance.arn.clone()));
        }
        match provider.map(|provider| provider.kind) {
            Some(ProviderKind::AutoScaling { managed: true }) => {
                let waiting = |task: &&Task| task.awaits_instance && task.cluster == cluster.name;
                if self.tasks.values().filter(waiting).count() >= PROVISIONING_QUOTA {
                    return Err(own::provisioning_quota());
                }
                Ok(Placement::Waits)
            }
            Some(_) if candidates.is_empty() => {
                Ok(Placement::Failed(vec![failure(name, reason::EMPTY_CAPACITY_PROVIDER, None)]))
            }
            None if candidates.is_empty() => Err(reported::no_instances()),
            _ => {
                let failures = lacking
                    .iter()
                    .filter_map(|(lack, instance)| Some(failure(Some(&instance.arn), (*lack)?, None)));
                Ok(Placement::Failed(failures.collect()))
            }
        }
    }

    fn place_on_fargate(&self, cluster: &Cluster, provider: Option<&Provider>) -> Placement {
        let name = provider.map_or("FARGATE", |provider| provider.name.as_str());
        let runs_there = |task: &&Task| {
            let there = task.provider.as_deref().unwrap_or("FARGATE") == name;
            task.launch_type == LaunchType::Fargate
                && there
                && task.cluster == cluster.name
                && task.holds_capacity()
        };
        let room = cluster.fargate_room.get(name);
        if room.is_some_and(|room| self.tasks.values().filter(runs_there).count() >= *room) {
            return Placement::Failed(vec![failure(None, reason::FARGATE_CAPACITY, None)]);
        }
        Placement::Fargate
    }

    /// What the instance has too little of for a task.
    fn lacking(&self, instance: &Instance, need: &Need) -> Option<&'static str> {
        let there = |task: &&Task| task.instance.as_deref() == Some(&instance.arn) && task.holds_capacity();
        let tasks: Vec<&Task> = self.tasks.values().filter(there).collect();
        let interfaces = tasks.iter().filter(|task| task.definition.network_mode() == "awsvpc").count();
        if !instance.spec.connected {
            Some(reason::AGENT)
        } else if tasks.iter().map(|task| task.cpu).sum::<i64>() + need.cpu > instance.spec.cpu {
            Some(reason::CPU)
        } else if tasks.iter().map(|task| task.memory).sum::<i64>() + need.memory > instance.spec.memory {
            Some(reason::MEMORY)
        } else if need.interface && interfaces >= instance.spec.interfaces {
            Some(reason::ENI)
        } else {
            None
        }
    }

    /// Finds places for the tasks that wait in PROVISIONING, the oldest first.
    pub(in crate::ecs) fn place_waiting(&mut self, at: Instant) {
        let mut waiting: Vec<(Instant, TaskId)> = self
            .tasks
            .values()
            .filter(|task| task.awaits_instance)
            .map(|task| (task.times.accepted, task.id.clone()))
            .collect();
        waiting.sort();
        let delay = self.config.delays.provisioning;
        for (_, id) in waiting {
            let Some(Placement::Instance(arn)) = self.place_again(&id) else { continue };
            if let Some(task) = self.tasks.get_mut(&id) {
                task.instance = Some(arn);
                task.awaits_instance = false;
                task.due = Some(at + delay);
            }
        }
    }

    fn place_again(&self, id: &str) -> Option<Placement> {
        let task = self.tasks.get(id)?;
        let cluster = self.clusters.get(&task.cluster)?;
        let provider = task.provider.as_deref().and_then(|name| cluster.provider(name));
        let need = Need::of(&task.definition, task.cpu, task.memory);
        self.place(cluster, task.launch_type, provider, &need).ok()
    }

    /// What a task that waited in vain is told that it lacked.
    pub(in crate::ecs) fn missing_resource(&self, id: &str) -> &'static str {
        let found = self.tasks.get(id).and_then(|task| {
            let cluster = self.clusters.get(&task.cluster)?;
            let need = Need::of(&task.definition, task.cpu, task.memory);
            let mut instances = cluster.instances.iter().filter(|i| i.spec.provider == task.provider);
            instances.find_map(|instance| self.lacking(instance, &need))
        });
        found.unwrap_or(reason::EMPTY_CAPACITY_PROVIDER)
    }
}
