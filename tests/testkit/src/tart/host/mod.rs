//! A Mac: a `TART_HOME` with the stand-in on the `PATH` and, unless it is a local one, a real sshd. What runs on it is in
//! namespaces of its own, so that it can be switched off, and sees no other processes.

mod builder;
mod init;
mod process;
mod ssh;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Signal, kill_process};
use tokio::net::UnixDatagram;
use tokio::process::Command;

pub use builder::{IMAGE, MacBuilder, StartError};
pub(super) use init::{ROLE, serve};

use super::cache::Cache;
use super::calls::{Call, all};
use super::guest::PROGRAMS;
use super::home::Home;
use super::image::ImageName;
use super::leases::take_slot;
use super::lock::{FolderLock, Holder};
use super::registry::{Image, Registry};
use super::scenario::{Fault, Scenario};
use super::vm::{VmDir, VmState};
use process::Process;
use ssh::Ssh;

/// A simulated Mac. Everything on it ends when it is dropped.
///
/// ```no_run
/// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use testkit::tart::{Effect, Fault, IMAGE, Mac};
///
/// let mac = Mac::builder().scenario(|s| s.boot = Duration::from_secs(1)).start().await?;
/// // The backend under test gets mac.endpoint(), mac.private_key() and mac.known_hosts().
/// mac.fault(Fault::of("clone", Effect::HalfWay { text: "Error: out of luck".into() }).times(1))?;
/// assert_eq!(mac.ssh(&format!("tart clone {IMAGE} vm-1")).await?.status.code(), Some(1));
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Mac {
    dir: PathBuf,
    home: Home,
    tart: PathBuf,
    ssh: Option<Ssh>,
    process: Option<Process>,
    events: UnixDatagram,
}

/// A VM as its files show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: VmState,
    /// The MAC in its configuration.
    pub mac_address: String,
    /// Its CPUs.
    pub cpu: u32,
    /// Its memory, in megabytes.
    pub memory_mb: u64,
}

/// A VM of someone else's that runs on the Mac, until it is dropped: of another user or another tool, in no list.
#[derive(Debug)]
#[must_use = "it runs until it is dropped"]
pub struct StrangersVm {
    _slot: FolderLock,
}

/// The lock of `TART_HOME`, held until it is dropped.
#[derive(Debug)]
#[must_use = "it is free again when this is dropped"]
pub struct HeldLock {
    _lock: FolderLock,
}

/// What was awaited did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was awaited on the Mac did not come within {0:?}")]
pub struct TooLate(Duration);

impl Mac {
    /// Begins to describe a Mac.
    pub fn builder() -> MacBuilder {
        MacBuilder::default()
    }

    /// The folder that Tart keeps its files in.
    pub fn tart_home(&self) -> PathBuf {
        self.user_home().join(".tart")
    }

    fn user_home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The folder with all that is found on the `PATH`.
    pub fn path(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Changes what the Mac is like. Commands that run already keep what they have read.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn scenario(&self, change: impl FnOnce(&mut Scenario)) -> io::Result<()> {
        let mut scenario = self.home.sim.scenario()?;
        change(&mut scenario);
        self.home.sim.set_scenario(&scenario)
    }

    /// Lets something go wrong from now on.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn fault(&self, fault: Fault) -> io::Result<()> {
        self.home.sim.add_fault(fault)
    }

    /// Lets nothing go wrong any more.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn clear_faults(&self) -> io::Result<()> {
        self.home.sim.clear_faults()
    }

    /// Puts an image into the registry, in place of the one before, and gives its digest.
    ///
    /// # Errors
    ///
    /// When the name is none or the files cannot be written.
    pub fn push(&self, name: &str, image: &Image) -> io::Result<String> {
        Registry::of(&self.home.sim)
            .push(name, image)
            .map_err(|failure| io::Error::other(failure.to_string()))
    }

    /// Takes an image's name out of the registry.
    ///
    /// # Errors
    ///
    /// When the name is none or the file cannot be written.
    pub fn unpublish(&self, name: &str) -> io::Result<()> {
        Registry::of(&self.home.sim).remove(name).map_err(|failure| io::Error::other(failure.to_string()))
    }

    /// Sets when Tart used a local VM or an image last.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn set_accessed(&self, name: &str, time: Timestamp) -> io::Result<()> {
        let image = ImageName::parse(name);
        let vm = image.map_or_else(|| self.home.vm(name), |image| Cache::of(&self.home).vm(&image));
        vm.set_accessed(time)
    }

    /// All calls of `tart` so far, in the order in which they began.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn calls(&self) -> io::Result<Vec<Call>> {
        all(&self.home.sim)
    }

    /// The local VMs, by name.
    ///
    /// # Errors
    ///
    /// When a VM's files cannot be read.
    pub fn vms(&self) -> io::Result<Vec<Vm>> {
        let look = |vm: VmDir| {
            let config = vm.config().map_err(|failure| io::Error::other(failure.to_string()))?;
            Ok(Vm {
                name: vm.name(),
                state: vm.state()?,
                mac_address: config.mac_address,
                cpu: config.cpu_count,
                memory_mb: config.memory_size >> 20,
            })
        };
        self.home.local_vms()?.into_iter().map(look).collect()
    }

    /// The names of the local VMs that run.
    ///
    /// # Errors
    ///
    /// When a VM's files cannot be read.
    pub fn running(&self) -> io::Result<Vec<String>> {
        let vms = self.vms()?.into_iter();
        Ok(vms.filter(|vm| vm.state == VmState::Running).map(|vm| vm.name).collect())
    }

    /// The folder with a VM's files below `/Users`.
    pub fn guest_users(&self, vm: &str) -> PathBuf {
        self.home.vm(vm).guest_path().join("disk").join("Users")
    }

    /// Runs a VM of someone else's; `None` where the limit is reached.
    ///
    /// # Errors
    ///
    /// When the host's files cannot be written.
    pub fn run_strangers_vm(&self) -> io::Result<Option<StrangersVm>> {
        let scenario = self.home.sim.scenario()?;
        let slot = take_slot(&self.home.sim.host(&scenario)?, scenario.vm_limit)?;
        Ok(slot.map(|slot| StrangersVm { _slot: slot }))
    }

    /// Holds the lock of `TART_HOME` until it is dropped, as a command does that got stuck: clones and starts of VMs wait.
    ///
    /// # Errors
    ///
    /// When the folder cannot be opened.
    pub fn hold_lock(&self) -> io::Result<HeldLock> {
        Ok(HeldLock { _lock: self.home.lock()? })
    }

    /// Waits until something is so on the Mac.
    ///
    /// # Errors
    ///
    /// When it is not so in time.
    pub async fn wait_until(&self, time: Duration, is_so: impl Fn(&Self) -> bool) -> Result<(), TooLate> {
        /// A process that is killed tells nobody: so often it is looked without being told.
        const UNTOLD: Duration = Duration::from_millis(50);
        let wait = async {
            while !is_so(self) {
                let _ = tokio::time::timeout(UNTOLD, self.events.recv(&mut [0; 1])).await;
            }
        };
        tokio::time::timeout(time, wait).await.map_err(|_| TooLate(time))
    }

    /// A command at the Mac's own keyboard, with the environment that it has there.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match &self.process {
            Some(process) => process.enter(),
            None => Command::new("env"),
        };
        command.arg("-i").args(self.environment()).arg(program);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// `tart` with these arguments, at the Mac's own keyboard.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub async fn tart(&self, args: &[&str]) -> io::Result<Output> {
        self.command("tart").args(args).output().await
    }

    fn environment(&self) -> [String; 2] {
        [format!("HOME={}", self.user_home().display()), format!("PATH={}", self.path().display())]
    }

    /// Cuts the Mac's power: nothing runs on it, nothing answers.
    ///
    /// # Errors
    ///
    /// When its processes cannot be found.
    pub fn power_off(&mut self) -> io::Result<()> {
        if let Some(process) = self.process.take() {
            process.end();
        }
        for vm in self.home.local_vms()? {
            if let Holder::Process(pid) = vm.holder()? {
                // It may be ending by itself.
                let _ = kill_process(pid, Signal::KILL);
                process::ended(pid);
            }
        }
        Ok(())
    }

    /// Switches it on again, with its old address and host key.
    ///
    /// # Errors
    ///
    /// When sshd does not start.
    pub async fn power_on(&mut self) -> Result<(), StartError> {
        if let Some(ssh) = &self.ssh {
            let mut process = Process::start(&self.tart).await?;
            ssh.serve(&mut process).await?;
            self.process = Some(process);
        }
        Ok(())
    }

    /// Switches it off and on: all VMs are stopped, all that was begun is cut off.
    ///
    /// # Errors
    ///
    /// As [`Mac::power_off`] and [`Mac::power_on`].
    pub async fn reboot(&mut self) -> Result<(), StartError> {
        self.power_off()?;
        self.power_on().await
    }
}

impl Drop for Mac {
    fn drop(&mut self) {
        // Whatever is left is in a temporary folder.
        let _ = self.power_off();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Links what a Mac's `PATH` has.
fn fill_path(bin: &Path, tart: &Path) -> io::Result<()> {
    std::fs::create_dir_all(bin)?;
    std::os::unix::fs::symlink(tart, bin.join("tart"))?;
    for name in PROGRAMS {
        let program = Path::new("/usr/bin").join(name);
        if program.exists() {
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
    }
    Ok(())
}
