//! A slot taken on a Mac, and the two steps of a start in it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tracing::debug;

use super::binding::{HostBinding, Making};
use super::host::HeldSlot;
use super::record::{Record, vm_name};
use super::vm;
use crate::backend::{Error, NewRunner, Reservation};
use crate::runner::Instance;

/// A VM that was up is given so long to answer again.
const STILL_UP: Duration = Duration::from_secs(10);

/// A slot on a Mac.
pub(super) struct TartReservation {
    host: String,
    binding: Arc<HostBinding>,
    slot: Arc<HeldSlot>,
    vm: Stage,
}

/// How far the VM is.
enum Stage {
    /// There is none.
    None,
    /// It was up when it was looked at last.
    Warm(Record),
    Making(Making),
    Up(Record),
}

/// Takes a VM that is up; else a free slot; else the VM that is being made ahead of need.
pub(super) fn reserve(host: &str, binding: &Arc<HostBinding>) -> Option<TartReservation> {
    let reservation =
        |slot, vm| TartReservation { host: host.to_owned(), binding: Arc::clone(binding), slot, vm };
    if let Some((slot, record)) = binding.take_warm() {
        return Some(reservation(Arc::new(slot), Stage::Warm(record)));
    }
    if let Some(slot) = binding.take_slot() {
        return Some(reservation(Arc::new(slot), Stage::None));
    }
    let making = binding.take_filling()?;
    Some(reservation(making.slot.clone(), Stage::Making(making)))
}

impl TartReservation {
    /// Whether a VM that was up still is, and is of the image's latest digest.
    async fn is_still_fit(&self, record: &Record) -> Result<bool, Error> {
        let digest = self.binding.image.digest();
        if digest.is_some() && record.digest != digest {
            return Ok(false);
        }
        match vm::await_agent(self.binding.mac(), &self.slot.vm(), STILL_UP).await {
            Ok(()) => Ok(true),
            Err(Error::Unreachable(why)) => Err(Error::Unreachable(why)),
            Err(error) => {
                debug!(vm = self.slot.vm(), %error, "a VM that was kept ready is replaced");
                Ok(false)
            }
        }
    }

    /// Removes the VM; another is made in its place.
    async fn replace(&mut self) -> Result<(), Error> {
        let owner = &self.binding.maker.owner;
        match vm::remove(self.binding.mac(), &owner.scale_set_uid, &self.slot.vm()).await {
            Ok(()) | Err(Error::Gone) => {}
            Err(error) => return Err(error),
        }
        self.slot.give_to(&vm_name(owner));
        self.vm = Stage::None;
        Ok(())
    }

    async fn advance(&mut self) -> Result<(), Error> {
        self.binding.image.refresh(self.binding.mac()).await?;
        loop {
            match &mut self.vm {
                Stage::Up(_) => return Ok(()),
                Stage::None => self.vm = Stage::Making(self.binding.make(self.slot.clone())),
                Stage::Warm(record) => {
                    let record = record.clone();
                    match self.is_still_fit(&record).await? {
                        true => self.vm = Stage::Up(record),
                        false => self.replace().await?,
                    }
                }
                Stage::Making(making) => {
                    // What made it notes what a failure says of the host.
                    making.done().await?;
                    self.vm = Stage::Up(making.record.clone());
                }
            }
        }
    }
}

#[async_trait]
impl Reservation for TartReservation {
    fn host(&self) -> &str {
        &self.host
    }

    /// Pulls the image where `pullPolicy` is `Always`, and waits until a VM is up.
    async fn ready(&mut self) -> Result<(), Error> {
        self.advance().await
    }

    async fn start(self: Box<Self>, runner: &NewRunner<'_>) -> Result<Instance, Error> {
        let TartReservation { host, binding, slot, vm } = *self;
        let Stage::Up(record) = vm else {
            return Err(Error::Unreachable("its VM is not up".to_owned()));
        };
        let (name, jit) = (runner.name.to_owned(), runner.jit.clone());
        let started = tokio::spawn(async move {
            let (mac, template) = (binding.mac(), &binding.maker.template);
            let started = vm::start(mac, &slot.vm(), (&name, &jit), (&record, template)).await;
            // The slot is the VM's own by now, or free again.
            drop(slot);
            if let Err(error) = &started {
                binding.note_failure(error);
            }
            debug!(runner = name, host, ok = started.is_ok(), "runner start");
            started.map(|instance| Instance { host, ..instance })
        });
        started.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
    }
}
