//! `TART_HOME`: where Tart keeps local VMs, cached images and unfinished work.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::lock::FolderLock;
use super::scenario::Sim;
use super::vm::VmDir;

/// A `TART_HOME`.
#[derive(Debug, Clone)]
pub(super) struct Home {
    root: PathBuf,
    pub sim: Sim,
}

impl Home {
    /// The one that `TART_HOME` names, else `.tart` in the user's home. An empty variable means the working folder.
    pub fn from_environment() -> Result<Self, Failure> {
        let root = match std::env::var_os("TART_HOME") {
            Some(path) => std::env::current_dir()?.join(path),
            None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".tart"),
        };
        let broken = |error: io::Error| {
            let path = root.display();
            Failure::new(format!(
                "TART_HOME is invalid: {path} does not exist, yet we can't create it: {error}"
            ))
        };
        Self::open(&root).map_err(broken)
    }

    /// Makes the folders where they are missing.
    pub fn open(root: &Path) -> io::Result<Self> {
        let home = Self { root: root.to_owned(), sim: Sim::of(root) };
        fs::create_dir_all(home.images())?;
        fs::create_dir_all(home.tmp())?;
        home.sim.create()?;
        Ok(home)
    }

    /// Where local VMs are. The folder is made with the first of them.
    pub fn vms(&self) -> PathBuf {
        self.root.join("vms")
    }

    /// The local VM of that name, whether it exists or not.
    pub fn vm(&self, name: &str) -> VmDir {
        VmDir::new(self.vms().join(name))
    }

    /// The local VM of that name.
    pub fn open_vm(&self, name: &str) -> Result<VmDir, Failure> {
        let vm = self.vm(name);
        vm.open(name)?;
        Ok(vm)
    }

    /// Where cached images are.
    pub fn images(&self) -> PathBuf {
        self.root.join("cache").join("OCIs")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// The local VMs that are complete, by name.
    pub fn local_vms(&self) -> io::Result<Vec<VmDir>> {
        let entries = match fs::read_dir(self.vms()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut vms = Vec::new();
        for entry in entries {
            let vm = VmDir::new(entry?.path());
            if vm.initialized() {
                vms.push(vm);
            }
        }
        vms.sort_by_key(VmDir::name);
        Ok(vms)
    }

    /// The lock that clones, renames and starts of VMs wait for.
    pub fn lock(&self) -> io::Result<FolderLock> {
        FolderLock::wait(&self.root)
    }

    /// A folder for unfinished work, and the lock that keeps it from being collected.
    pub fn temporary(&self) -> io::Result<(VmDir, FolderLock)> {
        self.temporary_named(&uuid::Uuid::new_v4().to_string().to_uppercase())
    }

    /// The same under a name by which it is found again. What is in it stays.
    pub fn temporary_named(&self, name: &str) -> io::Result<(VmDir, FolderLock)> {
        let path = self.tmp().join(name);
        loop {
            fs::create_dir_all(&path)?;
            // Another command may have collected it between the two.
            match FolderLock::wait(&path) {
                Ok(lock) if path.exists() => return Ok((VmDir::new(path), lock)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes unfinished work that no command is at.
    pub fn collect_garbage(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.tmp())? {
            let path = entry?.path();
            match FolderLock::try_take(&path) {
                Ok(Some(_lock)) => gone_or(fs::remove_dir_all(&path))?,
                Ok(None) => {}
                Err(error) => gone_or(Err(error))?,
            }
        }
        Ok(())
    }
}

/// Takes for done what another command did meanwhile.
pub(super) fn gone_or(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
