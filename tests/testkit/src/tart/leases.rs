//! The host's two scarce goods: the right to run a macOS guest, and addresses.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lock::FolderLock;
use super::scenario::{Scenario, read, write};

/// Takes one of the host's slots, if one is free. It is free again when the lock is dropped or its process is gone.
pub(super) fn take_slot(host: &Path, limit: usize) -> io::Result<Option<FolderLock>> {
    for number in 0..limit {
        let path = host.join(format!("slot-{number}"));
        OpenOptions::new().append(true).create(true).open(&path)?;
        if let Some(lock) = FolderLock::try_take(&path)? {
            return Ok(Some(lock));
        }
    }
    Ok(None)
}

#[derive(Clone, Serialize, Deserialize)]
struct Lease {
    number: usize,
    until: Timestamp,
}

/// Leases an address to a MAC: the one that it has, else one that is free. None are free when that many fresh MACs came
/// within the time of a lease.
pub(super) fn lease(host: &Path, mac: &str, scenario: &Scenario) -> io::Result<()> {
    let _lock = lock(host)?;
    let path = host.join("leases.json");
    let mut leases: BTreeMap<String, Lease> = read(&path)?.unwrap_or_default();
    let now = Timestamp::now();
    leases.retain(|_, lease| lease.until > now);
    let until = now + scenario.lease;
    if let Some(lease) = leases.get_mut(mac) {
        lease.until = until;
    } else if let Some(number) =
        (2..scenario.addresses + 2).find(|number| leases.values().all(|lease| lease.number != *number))
    {
        leases.insert(mac.to_owned(), Lease { number, until });
    }
    write(&path, &leases)
}

/// The address that was leased to a MAC, whether its VM runs or not.
pub(super) fn address(host: &Path, mac: &str) -> io::Result<Option<String>> {
    let leases: BTreeMap<String, Lease> = read(&host.join("leases.json"))?.unwrap_or_default();
    let lease = leases.get(mac).filter(|lease| lease.until > Timestamp::now());
    Ok(lease.map(|lease| format!("192.168.64.{}", lease.number)))
}

fn lock(host: &Path) -> io::Result<FolderLock> {
    let path = host.join("leases.lock");
    OpenOptions::new().append(true).create(true).open(&path)?;
    FolderLock::wait(&path)
}
