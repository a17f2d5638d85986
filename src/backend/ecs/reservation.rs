//! A place for a runner in an ECS cluster, and the two steps of a start there.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use tracing::debug;

use super::binding::{Binding, Place};
use super::instance::instance;
use super::launch::{Launch, admit};
use super::task::Task;
use super::template::Definition;
use crate::backend::{Error, NewRunner, Reservation};
use crate::runner::Instance;

/// A place for a runner.
pub(super) struct EcsReservation {
    host: String,
    binding: Arc<Binding>,
    /// What the first step came to.
    prepared: Option<Prepared>,
}

/// A start that the account takes now.
struct Prepared {
    definition: String,
    place: Held,
}

/// A place that a start is counted on until this is dropped.
struct Held {
    binding: Arc<Binding>,
    place: Place,
}

impl Held {
    fn choose(binding: &Arc<Binding>, tried: &[Place]) -> Result<Held, Error> {
        Ok(Held { binding: Arc::clone(binding), place: binding.choose(tried)? })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.binding.left(&self.place);
    }
}

impl EcsReservation {
    pub(super) fn new(host: &str, binding: Arc<Binding>) -> EcsReservation {
        EcsReservation { host: host.to_owned(), binding, prepared: None }
    }

    async fn prepare(&self) -> Result<Prepared, Error> {
        self.binding.answers()?;
        let place = Held::choose(&self.binding, &[])?;
        let definition = match (&self.binding.template.definition, &self.binding.revisions) {
            (Definition::Existing(name), _) => Ok(name.clone()),
            (Definition::Managed(_), Some(revisions)) => revisions.current().await,
            (Definition::Managed(_), None) => Err(Error::Refused("there is no task definition".to_owned())),
        };
        let definition = definition.inspect_err(|error| self.binding.note_failure(&place.place, error))?;
        admit(&self.binding, &place.place).await;
        Ok(Prepared { definition, place })
    }
}

#[async_trait]
impl Reservation for EcsReservation {
    fn host(&self) -> &str {
        &self.host
    }

    /// Registers the task definition if need be, and waits until the account takes one more start.
    async fn ready(&mut self) -> Result<(), Error> {
        self.prepared = Some(self.prepare().await?);
        Ok(())
    }

    async fn start(mut self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        if self.prepared.is_none() {
            self.ready().await?;
        }
        let EcsReservation { host, binding, prepared } = *self;
        let Some(Prepared { definition, place }) = prepared else {
            return Err(Error::Unreachable("the start is not ready".to_owned()));
        };
        binding.answers()?;
        let (name, jit) = (runner.name.to_owned(), runner.jit.clone());
        let started = tokio::spawn(async move {
            let launch = Launch { binding: &binding, runner: name, jit, definition };
            let started = launch_somewhere(&binding, &launch, place).await;
            debug!(runner = launch.runner, host, ok = started.is_ok(), "task start");
            started.map(|task| instance(&binding, &host, &task))
        });
        started.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
}

/// Starts on the place that was chosen, and where that has no room on the next.
async fn launch_somewhere(binding: &Arc<Binding>, launch: &Launch<'_>, first: Held) -> Result<Task, Error> {
    let (mut held, mut tried, mut admitted) = (first, Vec::new(), true);
    launch.check().inspect_err(|error| binding.note_failure(&held.place, error))?;
    loop {
        match launch.run(&held.place, std::mem::take(&mut admitted)).await {
            Ok(task) => {
                binding.note_success(&held.place);
                let cluster = binding.cluster();
                cluster.update(|state| {
                    state.index.started(task.clone());
                    BTreeSet::new()
                });
                cluster.quicken();
                binding.tidy();
                return Ok(task);
            }
            Err(error) => {
                binding.note_failure(&held.place, &error);
                tried.push(held.place.clone());
                if let (Error::Refused(_), Some(revisions)) = (&error, &binding.revisions) {
                    // It may have been deregistered by someone else.
                    revisions.forget().await;
                }
                let room = matches!(error, Error::NoCapacity(_));
                match Held::choose(binding, &tried) {
                    Ok(next) if room => held = next,
                    _ => return Err(error),
                }
            }
        }
    }
}
