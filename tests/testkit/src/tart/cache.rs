//! The cache of images: pulls, links from tags to digests, what is collected and what is pruned.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::failure::Failure;
use super::home::{Home, gone_or};
use super::image::ImageName;
use super::lock::FolderLock;
use super::registry::Registry;
use super::scenario::{Effect, Scenario};
use super::vm::VmDir;

/// What Tart adds to an image's size for its other files.
const OTHER_FILES: u64 = 128 << 20;

/// The cache of one `TART_HOME`.
pub(super) struct Cache<'a> {
    home: &'a Home,
    root: PathBuf,
}

/// An entry of the cache.
pub(super) struct Cached {
    /// As `tart list` shows it.
    pub name: String,
    pub vm: VmDir,
    pub tag: bool,
}

impl<'a> Cache<'a> {
    pub fn of(home: &'a Home) -> Self {
        Self { home, root: home.images() }
    }

    pub fn vm(&self, name: &ImageName) -> VmDir {
        VmDir::new(name.path_in(&self.root))
    }

    /// All tags and digests, by name.
    pub fn list(&self) -> io::Result<Vec<Cached>> {
        let mut found = Vec::new();
        self.walk(&self.root, &mut found)?;
        found.retain(|entry| entry.vm.initialized());
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    fn walk(&self, folder: &Path, found: &mut Vec<Cached>) -> io::Result<()> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            let last = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let tag = path.is_symlink();
            if tag || last.starts_with("sha256:") {
                let folder = folder.strip_prefix(&self.root).unwrap_or(folder).to_string_lossy();
                let separator = if tag { ':' } else { '@' };
                let name = format!("{}{separator}{last}", folder.replace("%3A", ":"));
                found.push(Cached { name, vm: VmDir::new(path), tag });
            } else if path.is_dir() {
                self.walk(&path, found)?;
            }
        }
        Ok(())
    }

    /// Pulls an image, as far as it is not there, and links its tag to it.
    pub fn pull(&self, name: &ImageName, scenario: &Scenario, effects: &[Effect]) -> Result<(), Failure> {
        println!("pulling manifest...");
        let (digest, content) = Registry::of(&self.home.sim).find(name)?;
        let by_digest = name.with_digest(&digest);
        if self.vm(&by_digest).initialized() && self.linked(name, &by_digest) {
            println!("{by_digest} image is already cached and linked!");
            return Ok(());
        }
        let host = name.host_path_in(&self.root);
        fs::create_dir_all(&host)?;
        let _lock = match FolderLock::try_take(&host)? {
            Some(lock) => lock,
            None => {
                println!("waiting for lock...");
                FolderLock::wait(&host)?
            }
        };
        if self.vm(&by_digest).initialized() {
            println!("{by_digest} image is already cached! creating a symlink...");
        } else {
            self.fetch(name, &content, &by_digest, scenario, effects)?;
        }
        if name.is_digest() {
            fs::write(self.vm(name).path().join(".explicitly-pulled"), [])?;
        } else {
            let tag = name.path_in(&self.root);
            gone_or(fs::remove_file(&tag))?;
            symlink(by_digest.path_in(&self.root), tag)?;
            self.collect()?;
        }
        self.vm(name).open(&name.to_string())
    }

    fn linked(&self, name: &ImageName, to: &ImageName) -> bool {
        name == to
            || fs::read_link(name.path_in(&self.root)).is_ok_and(|target| target == to.path_in(&self.root))
    }

    fn fetch(
        &self,
        name: &ImageName,
        content: &VmDir,
        to: &ImageName,
        scenario: &Scenario,
        effects: &[Effect],
    ) -> Result<(), Failure> {
        // Always the same for a name, so that what a pull left is taken up or collected.
        let folder =
            name.to_string().bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let (tmp, _lock) = self.home.temporary_named(&format!("{folder:032x}"))?;
        if self.vm(name).initialized() {
            // The image before is the first to go if the disk is short.
            self.vm(name).set_accessed(Timestamp::UNIX_EPOCH)?;
        }
        let size = content.allocated()?;
        self.reclaim(content.size()? + OTHER_FILES, None, scenario)?;
        println!("pulling disk ({:.1} GB compressed)...", size as f64 / 1e9);
        let cut = effects.iter().find_map(|effect| match effect {
            Effect::HalfWay { text } => Some(text),
            _ => None,
        });
        for percent in (0..=100).step_by(10) {
            println!("{percent}%");
            if percent == 50 {
                fs::write(tmp.disk_path(), [])?;
                if let Some(text) = cut {
                    return Err(Failure::planted(1, text));
                }
            }
            std::thread::sleep(scenario.pull / 11);
        }
        if self.free(scenario)? < size {
            return Err(Failure::disk_full("disk.img"));
        }
        println!("pulling NVRAM...");
        content.copy_to(&tmp, false)?;
        tmp.set_accessed(Timestamp::now())?;
        if let Some(folder) = to.path_in(&self.root).parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::rename(tmp.path(), to.path_in(&self.root))?)
    }

    /// Removes links that lead nowhere, and images that no tag leads to and nobody pulled by their digest.
    pub fn collect(&self) -> io::Result<()> {
        let mut found = Vec::new();
        self.walk(&self.root, &mut found)?;
        let mut links: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for entry in &found {
            let path = entry.vm.path().to_owned();
            if !entry.tag {
                links.entry(path).or_default();
            } else if path.exists() {
                *links.entry(fs::read_link(path)?).or_default() += 1;
            } else {
                gone_or(fs::remove_file(path))?;
            }
        }
        for (path, count) in links {
            if count == 0 && !path.join(".explicitly-pulled").exists() {
                gone_or(fs::remove_dir_all(path))?;
            }
        }
        Ok(())
    }

    /// Removes one tag or image.
    pub fn delete(&self, name: &ImageName) -> Result<(), Failure> {
        let path = name.path_in(&self.root);
        let removed = if path.is_symlink() { fs::remove_file(path) } else { fs::remove_dir_all(path) };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::missing(&name.to_string())),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(self.collect()?),
        }
    }

    /// The images that may be pruned, those that were used last before the others.
    fn by_use(&self) -> io::Result<Vec<(Timestamp, VmDir)>> {
        by_use(self.list()?.into_iter().filter(|entry| !entry.tag).map(|entry| entry.vm))
    }

    /// Removes the images that were used longest ago, until so many bytes are free: unless that is switched off, or would
    /// not do. The one that is being cloned stays.
    pub fn reclaim(&self, needed: u64, keep: Option<&VmDir>, scenario: &Scenario) -> io::Result<()> {
        let free = self.free(scenario)?;
        if std::env::var_os("TART_NO_AUTO_PRUNE").is_some() || needed < free {
            return Ok(());
        }
        let wanted = needed - free;
        let keep = keep.map(|vm| fs::canonicalize(vm.path())).transpose()?;
        let images = self.by_use()?;
        let mut total = 0;
        for (_, vm) in &images {
            total += vm.allocated()?;
        }
        if total < wanted {
            return Ok(());
        }
        let mut won = 0;
        for (_, vm) in images.into_iter().rev() {
            if won >= wanted {
                break;
            }
            if keep.as_deref() != Some(vm.path()) {
                won += vm.allocated()?;
                vm.remove()?;
            }
        }
        self.collect()
    }

    /// Removes the images that were not used since then.
    pub fn prune_older_than(&self, time: Timestamp) -> io::Result<()> {
        prune_older_than(&self.by_use()?, time)?;
        self.collect()
    }

    /// Removes the images that were used longest ago, until the others fit into so many bytes.
    pub fn prune_to(&self, budget: u64) -> io::Result<()> {
        prune_to(&self.by_use()?, budget)?;
        self.collect()
    }

    fn free(&self, scenario: &Scenario) -> io::Result<u64> {
        let mut taken = 0;
        for (_, vm) in self.by_use()? {
            taken += vm.allocated()?;
        }
        Ok((scenario.disk_gb * 1_000_000_000).saturating_sub(taken))
    }
}

/// VMs with the time of their last use, the last first.
pub(super) fn by_use(vms: impl Iterator<Item = VmDir>) -> io::Result<Vec<(Timestamp, VmDir)>> {
    let mut found = vms.map(|vm| Ok((vm.accessed()?, vm))).collect::<io::Result<Vec<_>>>()?;
    found.sort_by_key(|(accessed, _)| std::cmp::Reverse(*accessed));
    Ok(found)
}

/// Removes those that were not used since then.
pub(super) fn prune_older_than(vms: &[(Timestamp, VmDir)], time: Timestamp) -> io::Result<()> {
    vms.iter().filter(|(accessed, _)| *accessed <= time).try_for_each(|(_, vm)| vm.remove())
}

/// Removes those that do not fit, counted from the one that was used last.
pub(super) fn prune_to(vms: &[(Timestamp, VmDir)], budget: u64) -> io::Result<()> {
    let mut left = budget;
    for (_, vm) in vms {
        match left.checked_sub(vm.allocated()?) {
            Some(rest) => left = rest,
            None => vm.remove()?,
        }
    }
    Ok(())
}
