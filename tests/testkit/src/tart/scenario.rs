//! What a Mac is like and what goes wrong on it: read from files in `TART_HOME` by every command of the stand-in, so that
//! it holds for commands over SSH too, and can be changed while VMs run.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::lock::FolderLock;

/// How long things take on a Mac, and which of Tart's versions is installed there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// The keys of `tart list --format json`.
    pub list_format: ListFormat,
    /// What `clone` does with a name that is taken.
    pub overwrite: Overwrite,
    /// How long a clone of what is present takes, under the lock of `TART_HOME`.
    #[serde(with = "millis")]
    pub clone: Duration,
    /// From the start of `run` until the guest is up, has its address and its guest agent answers.
    #[serde(with = "millis")]
    pub boot: Duration,
    /// The same for a VM that was suspended.
    #[serde(with = "millis")]
    pub resume: Duration,
    /// How long `suspend` takes after its command has returned.
    #[serde(with = "millis")]
    pub suspend: Duration,
    /// How long `list` takes.
    #[serde(with = "millis")]
    pub list: Duration,
    /// How long the disk of an image takes to be pulled.
    #[serde(with = "millis")]
    pub pull: Duration,
    /// For how long `exec` tries to reach a guest agent. Tart's own: 30 s.
    #[serde(with = "millis")]
    pub exec_patience: Duration,
    /// How many macOS guests may run on the host. Apple's own: 2.
    pub vm_limit: usize,
    /// The folder with what all `TART_HOME`s of one host share: who runs, and who has which address. Default: one in this
    /// `TART_HOME`.
    pub host: Option<PathBuf>,
    /// How many addresses the host's DHCP server has. Apple's own: 253.
    pub addresses: usize,
    /// How long an address stays with its MAC. Apple's own: a day.
    #[serde(with = "millis")]
    pub lease: Duration,
    /// The size of the volume that the cache of images fills, in gigabytes.
    pub disk_gb: u64,
}

impl Default for Scenario {
    /// Tart 2.35.0 on a Mac whose VMs boot at once.
    fn default() -> Self {
        Self {
            list_format: ListFormat::Accessed,
            overwrite: Overwrite::Silent,
            clone: Duration::ZERO,
            boot: Duration::ZERO,
            resume: Duration::ZERO,
            suspend: Duration::ZERO,
            list: Duration::ZERO,
            pull: Duration::ZERO,
            exec_patience: Duration::from_secs(30),
            vm_limit: 2,
            host: None,
            addresses: 253,
            lease: Duration::from_secs(86_400),
            disk_gb: 1000,
        }
    }
}

/// The keys of `tart list --format json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListFormat {
    /// Since February 2026: with `Accessed`.
    Accessed,
    /// Before: with `SizeOnDisk`.
    SizeOnDisk,
}

/// What `clone` does with a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overwrite {
    /// 2.35.0: replaces the VM, running or not.
    Silent,
    /// Later sources: replaces a VM that does not run.
    Stopped,
    /// The latest sources: refuses without `--overwrite`, exit code 64.
    Asked,
}

/// Something that goes wrong on request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    command: String,
    vm: Option<String>,
    times: Option<u32>,
    effect: Effect,
}

impl Fault {
    /// A fault of every such command, until it is cleared.
    pub fn of(command: impl Into<String>, effect: Effect) -> Self {
        Self { command: command.into(), vm: None, times: None, effect }
    }

    /// Only of those that name this VM or image.
    #[must_use]
    pub fn on(mut self, vm: impl Into<String>) -> Self {
        self.vm = Some(vm.into());
        self
    }

    /// So many times, then no more.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    fn takes(&self, command: &str, names: &[&str]) -> bool {
        self.command == command && self.vm.as_deref().is_none_or(|vm| names.contains(&vm))
    }
}

/// What a [`Fault`] does to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Fails before it has done anything.
    Refused {
        /// The exit code.
        code: u8,
        /// What is printed on standard error.
        text: String,
    },
    /// Does all its work, then fails: a `clone` that exits 1 with the VM present.
    FailsAfter {
        /// The exit code.
        code: u8,
        /// What is printed on standard error.
        text: String,
    },
    /// `clone`, `pull`: leaves what it has so far in `tmp` and exits 1.
    HalfWay {
        /// What is printed on standard error.
        text: String,
    },
    /// Does nothing until it is killed.
    Hangs,
    /// Takes longer by so many milliseconds.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// `run`: ends by itself, as after a crash of the guest (0) or of Tart (another code).
    Dies {
        /// Milliseconds after its start.
        ms: u64,
        /// The exit code.
        code: u8,
    },
    /// `run`: leaves an interrupt unanswered, so that `stop` has to kill it.
    Deaf,
    /// `run`: this VM's guest agent never answers, though the guest is up.
    NoAgent,
    /// `run`: this VM's guest agent answers so many milliseconds after the guest is up.
    LateAgent {
        /// Milliseconds.
        ms: u64,
    },
}

/// The folder in `TART_HOME` with what the stand-in alone knows.
#[derive(Debug, Clone)]
pub(super) struct Sim {
    root: PathBuf,
}

impl Sim {
    pub fn of(tart_home: &Path) -> Self {
        Self { root: tart_home.join(".sim") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the folder.
    pub fn create(&self) -> io::Result<()> {
        std::fs::create_dir_all(&self.root)
    }

    /// The scenario, or Tart on an idle Mac where there is none.
    pub fn scenario(&self) -> io::Result<Scenario> {
        Ok(read(&self.path("scenario.json"))?.unwrap_or_default())
    }

    pub fn set_scenario(&self, scenario: &Scenario) -> io::Result<()> {
        write(&self.path("scenario.json"), scenario)
    }

    pub fn add_fault(&self, fault: Fault) -> io::Result<()> {
        self.change_faults(|faults| faults.push(fault))
    }

    pub fn clear_faults(&self) -> io::Result<()> {
        self.change_faults(Vec::clear)
    }

    /// The folder with what all `TART_HOME`s of this host share.
    pub fn host(&self, scenario: &Scenario) -> io::Result<PathBuf> {
        let path = scenario.host.clone().unwrap_or_else(|| self.path("host"));
        std::fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Takes the effects that a command has to suffer, and counts them.
    pub fn suffer(&self, command: &str, names: &[&str]) -> io::Result<Vec<Effect>> {
        if !self.path("faults.json").exists() {
            return Ok(Vec::new());
        }
        self.change_faults(|faults| {
            let mut effects = Vec::new();
            for fault in faults.iter_mut().filter(|fault| fault.takes(command, names)) {
                effects.push(fault.effect.clone());
                fault.times = fault.times.map(|times| times - 1);
            }
            faults.retain(|fault| fault.times != Some(0));
            effects
        })
    }

    fn change_faults<R>(&self, change: impl FnOnce(&mut Vec<Fault>) -> R) -> io::Result<R> {
        let _lock = self.lock("faults")?;
        let path = self.path("faults.json");
        let mut faults = read(&path)?.unwrap_or_default();
        let result = change(&mut faults);
        write(&path, &faults)?;
        Ok(result)
    }

    /// A lock of that name, among all commands of this `TART_HOME`.
    pub fn lock(&self, name: &str) -> io::Result<FolderLock> {
        self.create()?;
        let path = self.path(&format!("{name}.lock"));
        std::fs::OpenOptions::new().append(true).create(true).open(&path)?;
        FolderLock::wait(&path)
    }
}

/// Reads a file that may not be there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file that is read by others at any moment: whole, or not at all.
pub(super) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&new, serde_json::to_vec_pretty(value)?)?;
    std::fs::rename(new, path)
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}
