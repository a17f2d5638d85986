//! A runner that is about to be started, and what each of its containers may use.

use std::collections::HashMap;
use std::sync::Arc;

use bollard::models::{HostConfig, HostConfigLogConfig, Mount, RestartPolicy, RestartPolicyNameEnum};

use super::template::{DockerTemplate, MOST_PIDS};
use crate::runner::JitConfiguration;

/// How much of a container's output its host keeps.
const LOG_SIZE: &str = "10m";

/// A runner about to be started.
pub(super) struct Launch {
    pub(super) runner: String,
    pub(super) jit: JitConfiguration,
    pub(super) template: Arc<DockerTemplate>,
    pub(super) labels: HashMap<String, String>,
    /// The volume that it shares with the runners of its scale set.
    pub(super) volume: Option<Mount>,
    /// The network of its scale set, if it is to be on that.
    pub(super) network: Option<String>,
}

/// What a container of a runner may use, and that it ends for good.
pub(super) fn limits(template: &DockerTemplate) -> HostConfig {
    let bytes = template.limits.memory_bytes.map(clamped);
    let log_options = [("max-size", LOG_SIZE), ("max-file", "1")];
    HostConfig {
        nano_cpus: template.limits.cpu_millis.map(|millis| clamped(millis.saturating_mul(1_000_000))),
        memory: bytes,
        // Memory and swap together: none of the latter.
        memory_swap: bytes,
        pids_limit: Some(template.limits.pids.unwrap_or(MOST_PIDS).into()),
        // Its exit code is read before it is removed, and a runner never runs twice.
        auto_remove: Some(false),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(log_options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        }),
        ..HostConfig::default()
    }
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
