//! What a Tart backend runs, and where.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::PullPolicy;
use crate::backend::remote::SshLogin;

/// Characters of a template's hash that are kept: 64 bits tell the templates of a scale set apart.
const HASH_LENGTH: usize = 16;

/// What a Tart backend runs, and where: the spec's `tart` section with everything that it refers to resolved.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TartTemplate {
    /// The image, or the local VM, that each VM is cloned from.
    pub image: String,
    /// When the image is pulled.
    pub pull_policy: PullPolicy,
    /// CPUs of a VM. None: the image's.
    pub cpu: Option<u32>,
    /// Memory of a VM in megabytes. None: the image's.
    pub memory_mb: Option<u64>,
    /// Where the runner is installed in the guest.
    pub runner_dir: String,
    /// How many VMs are kept booted ahead of need.
    pub warm: u32,
    /// What is removed of the images that were pulled. None: nothing.
    pub prune: Option<Prune>,
    /// How often.
    pub prune_interval: Duration,
    /// The hosts it may run on.
    pub hosts: Vec<HostSpec>,
}

/// Which pulled images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prune {
    /// Those that were not used for so many days.
    pub older_than_days: u64,
    /// Those that were used least recently, until the rest fits into so many gigabytes.
    pub budget_gb: u64,
}

/// A Mac.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// Its name, unique in the backend.
    pub name: String,
    /// `local` or `ssh://…`
    pub endpoint: String,
    /// How many VMs it runs, for all scale sets together. None: whatever others state.
    pub max_vms: Option<u32>,
    /// How it is logged in to.
    pub login: Login,
    /// `TART_HOME`; empty for Tart's own default.
    pub tart_home: String,
}

/// How a host is logged in to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Login {
    /// As the spec says: with this, or without any.
    Given(Option<SshLogin>),
    /// The spec's Secret was not read: as it was last reached, if it was.
    AsBefore,
}

impl TartTemplate {
    /// Hash of all that affects the runners: not when and how the image is fetched, nor where they run or how many are
    /// kept warm. It is the same for as long as those fields are the same, over restarts and over versions that add optional
    /// fields.
    pub fn hash(&self) -> String {
        #[derive(Serialize)]
        struct Runner<'a> {
            image: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            cpu: Option<u32>,
            #[serde(skip_serializing_if = "Option::is_none")]
            memory_mb: Option<u64>,
            runner_dir: &'a str,
        }
        let runner = Runner {
            image: &self.image,
            cpu: self.cpu,
            memory_mb: self.memory_mb,
            runner_dir: &self.runner_dir,
        };
        // Strings and numbers always have a JSON form.
        let canonical = serde_json::to_vec(&runner).unwrap_or_default();
        let digest = Sha256::digest(canonical);
        let mut hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.truncate(HASH_LENGTH);
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> TartTemplate {
        TartTemplate {
            image: "ghcr.io/acme/macos:latest".to_owned(),
            pull_policy: PullPolicy::IfNotPresent,
            cpu: None,
            memory_mb: None,
            runner_dir: "/Users/admin/actions-runner".to_owned(),
            warm: 0,
            prune: None,
            prune_interval: Duration::from_secs(86_400),
            hosts: Vec::new(),
        }
    }

    #[test]
    fn the_hash_follows_what_affects_the_runner_and_nothing_else() {
        let changed = |change: fn(&mut TartTemplate)| {
            let mut template = template();
            change(&mut template);
            template.hash()
        };
        let same = template().hash();
        for change in [
            (|t| t.pull_policy = PullPolicy::Always) as fn(&mut TartTemplate),
            |t| t.warm = 3,
            |t| t.prune_interval = Duration::ZERO,
        ] {
            assert_eq!(changed(change), same);
        }
        let changes: [fn(&mut TartTemplate); 4] = [
            |t| t.image = "golden".to_owned(),
            |t| t.cpu = Some(4),
            |t| t.memory_mb = Some(8192),
            |t| t.runner_dir = "/opt/runner".to_owned(),
        ];
        let mut hashes: Vec<_> = changes.into_iter().map(changed).chain([same]).collect();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), 5);
    }
}
