//! VMs that are booted ahead of need: filled up in the background, and those that are dead, of an old template or too many
//! removed.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tracing::{debug, info};

use super::binding::HostBinding;
use super::index::Vm;
use super::vm;
use crate::backend::{Availability, Error};

/// A removal that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(10);

/// Brings the VMs without a runner on the hosts of a backend to the number that is wanted.
pub(super) fn keep(bindings: &[&Arc<HostBinding>], wanted: u32) {
    let mut fit: Vec<(&Arc<HostBinding>, Vm)> = Vec::new();
    let mut filling = 0;
    for binding in bindings.iter().copied().filter(|binding| binding.mac().answers().is_ok()) {
        let spares = binding.spares(&binding.mac().host.state());
        for (vm, is_fit) in spares {
            match is_fit {
                true => fit.push((binding, vm)),
                false => remove(binding, vm.name),
            }
        }
        filling += u32::from(is_filling(binding));
    }
    // The eldest stay: they have proved to live.
    fit.sort_by_key(|(_, vm)| vm.record.as_ref().map(|record| record.created_at));
    let many = usize::try_from(wanted).unwrap_or(usize::MAX).min(fit.len());
    for (binding, vm) in fit.drain(many..) {
        remove(binding, vm.name);
    }
    let there = u32::try_from(many).unwrap_or(u32::MAX).saturating_add(filling);
    let mut hosts: Vec<&Arc<HostBinding>> =
        bindings.iter().copied().filter(|binding| may_fill(binding)).collect();
    hosts.sort_by_key(|binding| std::cmp::Reverse(binding.free(&binding.mac().host.state())));
    let mut missing = wanted.saturating_sub(there);
    for binding in hosts {
        if missing == 0 {
            break;
        }
        missing -= u32::from(fill(binding));
    }
}

fn is_filling(binding: &HostBinding) -> bool {
    binding.filling.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// Whether a slot is free that nobody's runner waits for.
fn may_fill(binding: &HostBinding) -> bool {
    let (availability, ..) = binding.state();
    let state = binding.mac().host.state();
    availability == Availability::Ready
        && !is_filling(binding)
        && !binding.is_waiting(&state)
        && binding.free(&state) > 0
}

/// Begins to make a VM ahead of need, unless one is made on the host. Answers whether it did.
fn fill(binding: &Arc<HostBinding>) -> bool {
    let Ok(turn) = binding.mac().host.filling.clone().try_acquire_owned() else { return false };
    let Some(slot) = binding.take_slot() else { return false };
    let mut making = binding.make(Arc::new(slot));
    *binding.filling.lock().unwrap_or_else(PoisonError::into_inner) = Some(making.clone());
    let binding = Arc::clone(binding);
    tokio::spawn(async move {
        let made = making.done().await;
        let vm = making.vm.clone();
        drop(making);
        end_fill(&binding, &vm, turn);
        match made {
            Ok(()) => info!(vm, host = %binding.mac().endpoint, "a VM is kept ready"),
            Err(error) => debug!(vm, host = %binding.mac().endpoint, %error, "no VM could be made ready"),
        }
        binding.mac().host.requeue_all();
    });
    true
}

/// Nobody claimed the VM: it is one of those that are kept ready from now on.
fn end_fill(binding: &HostBinding, vm: &str, turn: OwnedSemaphorePermit) {
    let mut filling = binding.filling.lock().unwrap_or_else(PoisonError::into_inner);
    let unclaimed = filling.take_if(|making| making.vm == vm);
    drop(filling);
    drop(unclaimed);
    drop(turn);
}

/// Removes a VM without a runner, in the background.
fn remove(binding: &Arc<HostBinding>, vm: String) {
    let held = binding.hold(&vm);
    let binding = Arc::clone(binding);
    tokio::spawn(async move {
        let uid = &binding.maker.owner.scale_set_uid;
        match vm::remove(binding.mac(), uid, &vm).await {
            Ok(()) | Err(Error::Gone) => info!(vm, "a VM that was kept ready is removed"),
            Err(error) => {
                debug!(vm, %error, "a VM that was kept ready cannot be removed now");
                // Not again at once: it is held until then.
                tokio::time::sleep(RETRY).await;
            }
        }
        drop(held);
        binding.mac().host.requeue_all();
    });
}
