//! The registry from which a Mac pulls: folders beside its `TART_HOME` in place of a server.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::config::{Os, VmConfig};
use super::failure::Failure;
use super::image::ImageName;
use super::scenario::{Sim, read, write};
use super::vm::VmDir;

/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Image {
    /// The guest's system.
    pub os: Os,
    /// CPUs of a clone.
    pub cpu: u32,
    /// Memory of a clone, in megabytes.
    pub memory_mb: u64,
    /// The size of the disk, in gigabytes.
    pub disk_gb: u64,
    /// How much of the volume the disk takes, in gigabytes.
    pub allocated_gb: u64,
    /// Files on the guest's disk, by their paths below `/Users`: contents, and whether they are programs.
    pub files: BTreeMap<String, (Vec<u8>, bool)>,
    /// Whether `tart login` has to come before a pull.
    pub private: bool,
}

impl Default for Image {
    /// As large as the public ones: 4 CPUs, 8 GB of memory, 25 GB of a disk of 50.
    fn default() -> Self {
        Self {
            os: Os::Darwin,
            cpu: 4,
            memory_mb: 8192,
            disk_gb: 50,
            allocated_gb: 25,
            files: BTreeMap::new(),
            private: false,
        }
    }
}

/// What the registry has under one name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    digest: String,
    private: bool,
}

/// The registry of one `TART_HOME`.
#[derive(Debug, Clone)]
pub(super) struct Registry {
    sim: Sim,
}

impl Registry {
    pub fn of(sim: &Sim) -> Self {
        Self { sim: sim.clone() }
    }

    /// Puts an image under a name, in place of the one before. Gives its digest, which is another each time.
    pub fn push(&self, name: &str, image: &Image) -> Result<String, Failure> {
        let name = ImageName::require(name)?;
        let id = uuid::Uuid::new_v4();
        let hex: String =
            digest(&SHA256, id.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = format!("sha256:{hex}");
        let content = self.content(&digest);
        let config = VmConfig::new(image.os, image.cpu, image.memory_mb);
        content.create(&config, image.disk_gb, image.allocated_gb)?;
        let users = content.guest_path().join("disk").join("Users");
        std::fs::create_dir_all(users.join("admin"))?;
        for (path, (text, program)) in &image.files {
            write_file(users.join(path), text, *program)?;
        }
        let entry = Entry { digest: digest.clone(), private: image.private };
        let _lock = self.sim.lock("registry")?;
        let mut names = self.names()?;
        names.insert(name.with_digest(&digest).to_string(), entry.clone());
        names.insert(name.to_string(), entry);
        write(&self.sim.path("registry.json"), &names)?;
        Ok(digest)
    }

    /// Takes a name away.
    pub fn remove(&self, name: &str) -> Result<(), Failure> {
        let name = ImageName::require(name)?.to_string();
        let _lock = self.sim.lock("registry")?;
        let mut names = self.names()?;
        names.remove(&name);
        Ok(write(&self.sim.path("registry.json"), &names)?)
    }

    /// The digest and the content of an image.
    pub fn find(&self, name: &ImageName) -> Result<(String, VmDir), Failure> {
        let entry = self.names()?.remove(&name.to_string()).ok_or_else(|| {
            refused(404, r#"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\",\"message\":\"manifest unknown\"}]}"#)
        })?;
        if entry.private && !self.logins()?.contains(&name.host) {
            let details =
                r#"{\"errors\":[{\"code\":\"UNAUTHORIZED\",\"message\":\"authentication required\"}]}"#;
            return Err(refused(401, details));
        }
        Ok((entry.digest.clone(), self.content(&entry.digest)))
    }

    /// Notes that `tart login` succeeded.
    pub fn log_in(&self, host: &str) -> io::Result<()> {
        let _lock = self.sim.lock("logins")?;
        let mut hosts = self.logins()?;
        hosts.push(host.to_owned());
        write(&self.sim.path("logins.json"), &hosts)
    }

    fn logins(&self) -> io::Result<Vec<String>> {
        Ok(read(&self.sim.path("logins.json"))?.unwrap_or_default())
    }

    fn names(&self) -> io::Result<BTreeMap<String, Entry>> {
        Ok(read(&self.sim.path("registry.json"))?.unwrap_or_default())
    }

    fn content(&self, digest: &str) -> VmDir {
        VmDir::new(self.sim.path("registry").join(digest))
    }
}

fn refused(code: u16, details: &str) -> Failure {
    Failure::foreign(format!(
        "UnexpectedHTTPStatusCode(when: \"pulling manifest\", code: {code}, details: \"{details}\")"
    ))
}

fn write_file(path: PathBuf, text: &[u8], program: bool) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(&path, text)?;
    let mode = if program { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}
