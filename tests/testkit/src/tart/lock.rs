//! The two kinds of locks that Tart takes: a record lock on a VM's `config.json`, which says that it runs and by whom, and
//! a lock on a folder, which keeps commands from each other. Both end with the process that holds them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};

/// Who holds a [`PidLock`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// Nobody.
    Nobody,
    /// This process.
    Process(Pid),
    /// A process that cannot be seen from here: it runs in a PID namespace that is not above ours.
    Unseen,
}

/// A record lock (fcntl) on a file. Whoever closes any descriptor of that file loses its locks on it.
#[derive(Debug)]
pub(super) struct PidLock {
    file: File,
}

impl PidLock {
    /// Opens the file; takes no lock yet.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: OpenOptions::new().read(true).write(true).open(path)? })
    }

    /// Takes the lock, if nobody has it.
    pub fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::fcntl_lock(&self.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds who holds the lock. The caller's own lock is not seen.
    pub fn holder(&self) -> io::Result<Holder> {
        let asked = Flock::from(FlockType::ReadLock);
        Ok(match fcntl_getlk(&self.file, &asked)? {
            None => Holder::Nobody,
            Some(Flock { pid: Some(pid), .. }) => Holder::Process(pid),
            Some(Flock { pid: None, .. }) => Holder::Unseen,
        })
    }
}

/// A lock (flock) on a folder or a file, held until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Waits for the lock.
    pub fn wait(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        file.lock()?;
        Ok(Self { _file: file })
    }

    /// Takes the lock, if nobody has it.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
