//! One VM's folder, local or in the cache of images.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::config::{VmConfig, random_mac};
use super::failure::Failure;
use super::lock::{Holder, PidLock};

/// What `tart list` calls the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// A `tart run` holds it.
    Running,
    /// It does not run, and its memory was saved.
    Suspended,
    /// It does not run.
    Stopped,
}

impl VmState {
    /// Tart's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
        }
    }
}

/// A VM's folder.
#[derive(Debug, Clone)]
pub(super) struct VmDir {
    path: PathBuf,
}

impl VmDir {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    pub fn config_path(&self) -> PathBuf {
        self.path.join("config.json")
    }

    pub fn disk_path(&self) -> PathBuf {
        self.path.join("disk.img")
    }

    fn nvram_path(&self) -> PathBuf {
        self.path.join("nvram.bin")
    }

    pub fn state_path(&self) -> PathBuf {
        self.path.join("state.vzvmsave")
    }

    /// What is on the guest's disk, as files: the stand-in's own.
    pub fn guest_path(&self) -> PathBuf {
        self.path.join(".guest")
    }

    /// How much of the volume the disk takes, in bytes: the stand-in's own, whose disks are empty.
    fn allocated_path(&self) -> PathBuf {
        self.path.join(".allocated")
    }

    /// Its time of modification is when Tart opened the VM last. (The folder's own, which Tart sets, is moved by Linux.)
    fn accessed_path(&self) -> PathBuf {
        self.path.join(".accessed")
    }

    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    pub fn initialized(&self) -> bool {
        self.config_path().exists() && self.disk_path().exists() && self.nvram_path().exists()
    }

    /// Fails if there is no such VM or a part of it is missing; notes the access otherwise.
    pub fn open(&self, name: &str) -> Result<(), Failure> {
        if !self.exists() {
            return Err(Failure::missing(name));
        }
        if !self.initialized() {
            let text = "VM is missing some of its files (config.json, disk.img or nvram.bin)";
            return Err(Failure::new(text));
        }
        Ok(self.set_accessed(Timestamp::now())?)
    }

    pub fn config(&self) -> Result<VmConfig, Failure> {
        VmConfig::read(&self.config_path())
    }

    pub fn lock(&self) -> io::Result<PidLock> {
        PidLock::open(&self.config_path())
    }

    /// Who runs the VM. A folder that vanishes meanwhile is one that nobody runs.
    pub fn holder(&self) -> io::Result<Holder> {
        match self.lock() {
            Ok(lock) => lock.holder(),
            Err(_) => Ok(Holder::Nobody),
        }
    }

    pub fn running(&self) -> io::Result<bool> {
        Ok(self.holder()? != Holder::Nobody)
    }

    pub fn state(&self) -> io::Result<VmState> {
        Ok(if self.running()? {
            VmState::Running
        } else if self.state_path().exists() {
            VmState::Suspended
        } else {
            VmState::Stopped
        })
    }

    /// Makes a new VM: an empty disk of that size, of which so much counts as taken.
    pub fn create(&self, config: &VmConfig, disk_gb: u64, allocated_gb: u64) -> Result<(), Failure> {
        fs::create_dir_all(self.guest_path().join("disk"))?;
        config.write(&self.config_path())?;
        fs::write(self.nvram_path(), [])?;
        fs::File::create(self.disk_path())?.set_len(disk_gb * 1_000_000_000)?;
        fs::write(self.allocated_path(), (allocated_gb * 1_000_000_000).to_string())?;
        Ok(self.set_accessed(Timestamp::now())?)
    }

    /// Copies it to a folder that exists. A saved state goes along unless the MAC is to be another.
    pub fn copy_to(&self, to: &Self, new_mac: bool) -> Result<(), Failure> {
        for file in [Self::config_path, Self::nvram_path, Self::allocated_path] {
            fs::copy(file(self), file(to))?;
        }
        let length = fs::metadata(self.disk_path())?.len();
        fs::File::create(to.disk_path())?.set_len(length)?;
        copy_tree(&self.guest_path().join("disk"), &to.guest_path().join("disk"))?;
        if self.state_path().exists() {
            fs::copy(self.state_path(), to.state_path())?;
        }
        if new_mac { to.renew_mac() } else { Ok(()) }
    }

    /// Gives it another MAC, which makes a saved state useless.
    pub fn renew_mac(&self) -> Result<(), Failure> {
        let config = VmConfig { mac_address: random_mac(), ..self.config()? };
        let _ = fs::remove_file(self.state_path());
        config.write(&self.config_path())
    }

    pub fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(self.disk_path())?.len())
    }

    pub fn allocated(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.allocated_path())?;
        text.trim().parse().map_err(io::Error::other)
    }

    pub fn accessed(&self) -> io::Result<Timestamp> {
        Timestamp::try_from(fs::metadata(self.accessed_path())?.modified()?).map_err(io::Error::other)
    }

    pub fn set_accessed(&self, time: Timestamp) -> io::Result<()> {
        fs::File::create(self.accessed_path())?.set_modified(time.into())
    }

    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }
}

/// Copies a folder with its modes and links.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
