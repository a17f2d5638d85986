//! Amazon ECS as a backend: a task for each runner.
//!
//! [`EcsProvider`] knows each account and each cluster once, looks at each cluster for all scale sets together and keeps to the
//! account's limits; an [`EcsBackend`] is one scale set's use of a cluster.

mod account;
mod binding;
mod bucket;
mod call;
mod classify;
mod cluster;
mod clusters;
mod definition;
mod endpoint;
mod examine;
mod index;
mod instance;
mod launch;
mod provider;
mod reservation;
mod revisions;
mod stop;
mod strategy;
mod task;
mod template;
mod watch;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

pub use cluster::Timing;
pub use provider::EcsProvider;

use super::{Backend, Error, Examination, HostState, Listing, Reservation};
use crate::api::BackendType;
use crate::backend::Availability;
use crate::runner::{Identity, Instance};
use binding::Binding;
use cluster::Link;
use clusters::Watched;
use instance::instance;
use reservation::EcsReservation;
use task::Task;
use template::EcsTemplate;

/// One scale set's use of an ECS cluster.
pub struct EcsBackend {
    name: String,
    siblings: Vec<String>,
    /// Its only host: the cluster's short name.
    host: String,
    binding: Arc<Binding>,
}

impl EcsBackend {
    /// One scale set's backend of that name. `siblings` are the scale set's backends in the same cluster, itself among them.
    fn new(
        name: &str,
        siblings: &[String],
        owner: &Identity,
        template: EcsTemplate,
        watched: Arc<Watched>,
    ) -> EcsBackend {
        let host = watched.cluster.short_name().to_owned();
        let binding = Binding::new(watched, template, owner, name);
        EcsBackend { name: name.to_owned(), siblings: siblings.to_vec(), host, binding: Arc::new(binding) }
    }

    /// Whether a task is this backend's, or of one that the spec had and has no more. One whose tags are gone is the first's.
    fn speaks_for(&self, task: &Task) -> bool {
        let first = self.siblings.first().is_none_or(|first| *first == self.name);
        match &task.tags {
            Some(tags) if tags.backend == self.name => true,
            Some(tags) => first && !self.siblings.is_empty() && !self.siblings.contains(&tags.backend),
            None => first,
        }
    }

    fn known(&self, host: &str) -> Result<(), Error> {
        if host == self.host { Ok(()) } else { Err(Error::Refused("there is no such cluster".to_owned())) }
    }
}

#[async_trait]
impl Backend for EcsBackend {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> BackendType {
        BackendType::Ecs
    }

    fn template_hash(&self) -> &str {
        &self.binding.template_hash
    }

    fn hosts(&self) -> Vec<HostState> {
        let (availability, message) = self.binding.state();
        let free_slots = if availability == Availability::Unreachable { 0 } else { u32::MAX };
        let (name, slots) = (self.host.clone(), u32::MAX);
        vec![HostState { name, availability, slots, free_slots, warm: 0, failures: 0, message }]
    }

    fn instances(&self) -> Vec<Listing> {
        let cluster = self.binding.cluster();
        let (tasks, listed_at, current, hides) = {
            let state = cluster.state();
            let ours = state.index.of_set(&self.binding.identity.scale_set_uid);
            let tasks: Vec<Task> = ours.filter(|task| self.speaks_for(task)).cloned().collect();
            (tasks, state.listed_at, state.link == Link::Up, state.hides(cluster.timing.settles))
        };
        self.binding.note_ends(tasks.iter());
        let instances = tasks.iter().map(|task| instance(&self.binding, &self.host, task)).collect();
        vec![Listing { host: self.host.clone(), listed_at, current, hides, instances }]
    }

    /// Starts prepare themselves.
    fn prepare(&self, _: &str) {}

    /// A cluster has no slots of ours.
    fn wait_for_slots(&self, _: &str, _: u32) {}

    fn reserve(&self, host: &str) -> Option<Box<dyn Reservation>> {
        let (availability, _) = self.binding.state();
        let takes = self.known(host).is_ok() && availability == Availability::Ready;
        takes.then(|| Box::new(EcsReservation::new(host, Arc::clone(&self.binding))) as Box<dyn Reservation>)
    }

    /// Nothing is ready ahead of need.
    fn keep_warm(&self, _: bool) {}

    fn warm(&self) -> Option<u32> {
        None
    }

    /// Tasks outlive the API's silence, and are seen again as they were.
    fn lost_hosts(&self) -> Vec<String> {
        Vec::new()
    }

    fn left_over(&self) -> u32 {
        0
    }

    async fn remove(&self, host: &str, instance_id: &str) -> Result<(), Error> {
        self.known(host)?;
        stop::remove(self.binding.cluster(), &self.binding.identity.scale_set_uid, instance_id).await?;
        self.binding.tidy();
        Ok(())
    }

    /// ECS keeps no output: where it is kept is told with the end.
    async fn log_tail(&self, host: &str, _: &str) -> Result<String, Error> {
        self.known(host)?;
        Ok(String::new())
    }

    async fn examine(&self, host: &str) -> Result<Examination, Error> {
        self.known(host)?;
        examine::examine(&self.binding).await
    }
}

impl fmt::Debug for EcsBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EcsBackend")
            .field("name", &self.name)
            .field("template", &self.binding.template)
            .finish()
    }
}

/// A task as an instance of no backend, for whoever looks after all of them.
fn unowned(host: &str, task: &Task) -> Instance {
    let tags = task.tags.as_ref();
    Instance {
        id: task.id.clone(),
        runner: task.runner.clone(),
        scale_set_uid: task.scale_set_uid.clone(),
        backend: tags.map(|tags| tags.backend.clone()).unwrap_or_default(),
        host: host.to_owned(),
        template_hash: tags.map(|tags| tags.template_hash.clone()).unwrap_or_default(),
        created_at: task.created_at,
        state: task.stage.state(),
    }
}
