//! A managed task definition as ECS takes it.

use aws_sdk_ecs::operation::register_task_definition::builders::RegisterTaskDefinitionFluentBuilder as Registration;
use aws_sdk_ecs::types::{
    Compatibility, ContainerCondition, ContainerDefinition, ContainerDependency, CpuArchitecture,
    EphemeralStorage, HealthCheck, KeyValuePair, LogConfiguration, LogDriver, MountPoint, NetworkMode,
    OsFamily, RuntimePlatform, Volume,
};

use super::template::{LOG_PREFIX, Rendered};
use crate::api;
use crate::backend::private_engine::{self, CHECK, SHARED};

/// The private engine's image.
const SIDECAR_IMAGE: &str = "docker:dind";
/// The private engine's container.
const SIDECAR: &str = "docker";

/// Fills in the request that registers a definition.
pub(super) fn register(
    request: Registration,
    wanted: &Rendered,
    container: &str,
    region: &str,
) -> Registration {
    let mut request = request
        .cpu(wanted.cpu.to_string())
        .memory(wanted.memory.to_string())
        .network_mode(network_mode(wanted.network_mode))
        .runtime_platform(platform(wanted))
        .set_execution_role_arn(wanted.execution_role_arn.clone())
        .set_task_role_arn(wanted.task_role_arn.clone())
        .set_requires_compatibilities(wanted.compatibility.map(|name| vec![Compatibility::from(name)]))
        .container_definitions(runner(wanted, container, region));
    if let Some(size) = wanted.ephemeral_storage_gib {
        request = request.ephemeral_storage(EphemeralStorage::builder().size_in_gib(size).build());
    }
    if wanted.sidecar {
        request = request.container_definitions(sidecar(wanted, region));
        for (name, _) in SHARED {
            request = request.volumes(Volume::builder().name(name).build());
        }
    }
    request
}

fn runner(wanted: &Rendered, name: &str, region: &str) -> ContainerDefinition {
    let mut container = ContainerDefinition::builder().name(name).image(&wanted.image).essential(true);
    // GitHub's image has a shell as its command. On Windows it is whoever made the image that knows.
    if wanted.operating_system == "LINUX" {
        container = container.command("/home/runner/run.sh");
    }
    for (name, value) in &wanted.env {
        container = container.environment(KeyValuePair::builder().name(name).value(value).build());
    }
    if wanted.sidecar {
        let healthy =
            ContainerDependency::builder().container_name(SIDECAR).condition(ContainerCondition::Healthy);
        // Both were given.
        container = container.set_depends_on(healthy.build().ok().map(|healthy| vec![healthy]));
        container = container.set_mount_points(Some(mounts()));
    }
    container.set_log_configuration(log(wanted, region)).build()
}

/// The private engine.
fn sidecar(wanted: &Rendered, region: &str) -> ContainerDefinition {
    let check = ["CMD"].into_iter().chain(CHECK).map(str::to_owned).collect();
    let check =
        HealthCheck::builder().set_command(Some(check)).interval(5).timeout(5).retries(10).build().ok();
    ContainerDefinition::builder()
        .name(SIDECAR)
        .image(SIDECAR_IMAGE)
        .essential(true)
        .privileged(true)
        .set_command(Some(private_engine::command()))
        .set_health_check(check)
        .set_mount_points(Some(mounts()))
        .set_log_configuration(log(wanted, region))
        .build()
}

fn mounts() -> Vec<MountPoint> {
    SHARED.map(|(name, path)| MountPoint::builder().source_volume(name).container_path(path).build()).into()
}

fn log(wanted: &Rendered, region: &str) -> Option<LogConfiguration> {
    let group = wanted.log_group.as_ref()?;
    LogConfiguration::builder()
        .log_driver(LogDriver::Awslogs)
        .options("awslogs-group", group)
        .options("awslogs-region", region)
        .options("awslogs-stream-prefix", LOG_PREFIX)
        .build()
        .ok()
}

fn platform(wanted: &Rendered) -> RuntimePlatform {
    let architecture = match wanted.architecture {
        api::Architecture::X86_64 => CpuArchitecture::X8664,
        api::Architecture::Arm64 => CpuArchitecture::Arm64,
    };
    RuntimePlatform::builder()
        .cpu_architecture(architecture)
        .operating_system_family(OsFamily::from(wanted.operating_system.as_str()))
        .build()
}

fn network_mode(mode: api::NetworkMode) -> NetworkMode {
    match mode {
        api::NetworkMode::Awsvpc => NetworkMode::Awsvpc,
        api::NetworkMode::Bridge => NetworkMode::Bridge,
        api::NetworkMode::Host => NetworkMode::Host,
        api::NetworkMode::None => NetworkMode::None,
    }
}
