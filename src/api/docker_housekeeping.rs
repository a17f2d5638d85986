//! What is cleaned up on Docker hosts.

use super::{Duration, FreeSpace, Quantity};
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is cleaned up on Docker hosts, and how often. Where scale sets that share a host disagree, the mildest counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DockerHousekeeping {
    /// The builders that jobs left behind.
    pub buildx: BuildxHousekeeping,
    /// Dangling images.
    pub images: ImageHousekeeping,
    /// The engine's own build cache.
    pub build_cache: BuildCacheHousekeeping,
    /// What is done when the engine's disk fills up.
    pub disk_guard: DiskGuard,
    /// How often each host is cleaned up. Default: 6h.
    #[schemars(extend("x-kubernetes-validations" = [
        Rule::new("duration(self) > duration('0s')").message("housekeeping.interval must be longer than 0s"),
    ]))]
    pub interval: Duration,
}

impl Default for DockerHousekeeping {
    fn default() -> Self {
        Self {
            buildx: BuildxHousekeeping::default(),
            images: ImageHousekeeping::default(),
            build_cache: BuildCacheHousekeeping::default(),
            disk_guard: DiskGuard::default(),
            interval: Duration::hours(6),
        }
    }
}

/// Whether and when builders left behind are removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct BuildxHousekeeping {
    /// Whether idle buildx builders that jobs left behind are removed, with their state. Default: true.
    pub enabled: bool,
    /// How old such a builder must be. Default: 24h.
    pub max_age: Duration,
}

impl Default for BuildxHousekeeping {
    fn default() -> Self {
        Self { enabled: true, max_age: Duration::hours(24) }
    }
}

/// Whether images are cleaned up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct ImageHousekeeping {
    /// Whether dangling images are removed: those without a name that no container uses. Default: true.
    pub enabled: bool,
}

impl Default for ImageHousekeeping {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Whether and to what size the engine's build cache is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct BuildCacheHousekeeping {
    /// Whether build cache over the budget is removed. Default: true.
    pub enabled: bool,
    /// How much build cache the engine keeps: what was used least recently goes first. Default: 50Gi.
    pub budget: Quantity,
}

impl Default for BuildCacheHousekeeping {
    fn default() -> Self {
        Self { enabled: true, budget: Quantity("50Gi".into()) }
    }
}

/// What is done when the disk with the engine's data fills up: what housekeeping may remove goes at once, cheapest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct DiskGuard {
    /// Whether the disk is watched. Default: true.
    pub enabled: bool,
    /// Below this much free space something is removed: a quantity, or a percentage of the disk. Default: 10%.
    pub min_free: FreeSpace,
    /// Until this much is free: a quantity, or a percentage of the disk. Default: 20%.
    pub target_free: FreeSpace,
}

impl Default for DiskGuard {
    fn default() -> Self {
        Self { enabled: true, min_free: FreeSpace("10%".into()), target_free: FreeSpace("20%".into()) }
    }
}
