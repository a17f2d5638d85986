//! A slot taken, and the two steps of a start in it.

use async_trait::async_trait;
use paddock::backend::{Error, NewRunner, Reservation};
use paddock::runner::{Identity, Instance, InstanceState};
use tokio::task::yield_now;

use super::hosts::{Fault, Made, Method};
use super::view::HeldSlot;

/// A slot on a host, and what is to be started in it.
pub(super) struct FakeReservation {
    pub(super) slot: HeldSlot,
    /// The host's name in the backend.
    pub(super) host: String,
    pub(super) backend: String,
    pub(super) owner: Identity,
    pub(super) template_hash: String,
}

#[async_trait]
impl Reservation for FakeReservation {
    fn host(&self) -> &str {
        &self.host
    }

    async fn ready(&mut self) -> Result<(), Error> {
        self.slot.host.hosts.called(Method::Ready, &self.slot.host.endpoint, "")?;
        yield_now().await;
        Ok(())
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let FakeReservation { slot, host, backend, owner, template_hash } = *self;
        let seen = slot.host.clone();
        seen.hosts.called(Method::Start, &seen.endpoint, runner.name)?;
        slot.bind(runner.name);
        let made = Made {
            endpoint: seen.endpoint.clone(),
            cluster: owner.cluster.clone(),
            scale_set: owner.scale_set.clone(),
            instance: Instance {
                id: String::new(),
                runner: runner.name.to_owned(),
                scale_set_uid: owner.scale_set_uid.clone(),
                backend,
                host: String::new(),
                template_hash,
                created_at: seen.hosts.world().now(),
                state: InstanceState::Starting,
            },
        };
        let jit = runner.jit.clone();
        let abandons = seen.hosts.has_fault(Fault::AbandonedStart);
        let start = async move {
            let late = seen.hosts.has_fault(Fault::ListedLate);
            let look = || {
                if !late {
                    seen.look();
                }
            };
            yield_now().await;
            if seen.hosts.list(&seen.endpoint).is_none() {
                return Err(Error::Unreachable(format!("{} is silent", seen.endpoint)));
            }
            let id = seen.hosts.make(made);
            look();
            yield_now().await;
            let instance = seen.hosts.bring_up(&id);
            if let Some(instance) = &instance {
                seen.hosts.world().runs(&seen.endpoint, instance, &jit);
            }
            look();
            // The slot is the instance's own by now.
            drop(slot);
            instance.ok_or(Error::Gone).map(|instance| Instance { host, ..instance })
        };
        if abandons {
            return start.await;
        }
        tokio::spawn(start).await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
}
