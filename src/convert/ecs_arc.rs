//! ecs-arc's TOML: runners one by one, and templates that are multiplied out.

use std::collections::{BTreeMap, BTreeSet};

use super::error::ConvertError;
use super::manifest::{Manifest, Manifests, backend, github, secret_note};
use super::table::Table;
use crate::api::{
    Architecture, Backend, CapacityProvider, Ecs, EcsDockerAccess, LaunchType, ManagedTaskDefinition,
    NetworkMode,
};

/// What ecs-arc takes from `[defaults]`, but the labels, which are added.
const INHERITED: [&str; 11] = [
    "capacity_provider",
    "compatibility",
    "dind_image",
    "enable_dind",
    "max_runners",
    "max_runtime",
    "min_runners",
    "network_mode",
    "runner_image",
    "security_groups",
    "subnets",
];
/// The dimensions of a template in the order of a family's name, and what an exclusion calls each.
const DIMENSIONS: [(&str, &str); 3] =
    [("sizes", "size"), ("architectures", "architecture"), ("features", "feature")];
/// The image that ecs-arc has where nothing says another.
const IMAGE: &str = "ghcr.io/niranjan94/ecs-arc-runner:latest";

/// What `[defaults]` has no say in.
const OF_RUNNERS: [&str; 4] = ["architecture", "cpu", "memory", "os"];

/// The Secret with the credentials of the App, which all scale sets share.
const SECRET: &str = "github";
const APP: &str = "--from-literal=github_app_id=CLIENT_ID --from-literal=github_app_installation_id=ID \
                   --from-file=github_app_private_key=KEY.pem";

const REASONS: [(&str, &str); 4] = [
    ("capacity_provider", "is not read: ECS Anywhere has none"),
    ("dind_image", "has no counterpart: the private engine is docker:dind"),
    ("security_groups", "is not read: tasks without an interface of their own have none"),
    ("subnets", "is not read: tasks without an interface of their own have none"),
];

/// What ecs-arc has from its environment. What is not set becomes a word to be replaced.
struct Surroundings {
    url: String,
    prefix: Option<String>,
    cluster: String,
    region: String,
    execution_role: Option<String>,
    task_role: Option<String>,
    log_group: Option<String>,
    notes: Vec<String>,
}

impl Surroundings {
    fn read(environment: impl Fn(&str) -> Option<String>) -> Surroundings {
        let mut notes = Vec::new();
        let mut get = |variable: &str, without: &str| {
            let value = environment(variable).filter(|value| !value.is_empty());
            if value.is_none() && !without.is_empty() {
                notes.push(format!("{variable} is not set: {without}"));
            }
            value
        };
        let organisation = get("GITHUB_ORG", "replace ORGANISATION in spec.github.url");
        let cluster = get("ECS_CLUSTER", "replace CLUSTER in ecs.cluster");
        let default_region = get("AWS_DEFAULT_REGION", "");
        let without = if default_region.is_some() { "" } else { "replace aws-region-1 in ecs.region" };
        let region = get("AWS_REGION", without).or(default_region);
        Surroundings {
            url: format!("https://github.com/{}", organisation.unwrap_or("ORGANISATION".into())),
            prefix: get("SCALESET_NAME_PREFIX", ""),
            cluster: cluster.unwrap_or("CLUSTER".into()),
            region: region.unwrap_or("aws-region-1".into()),
            execution_role: get(
                "RUNNER_EXECUTION_ROLE_ARN",
                "write it in managedTaskDefinition.executionRoleArn",
            ),
            task_role: get("RUNNER_TASK_ROLE_ARN", "write it in managedTaskDefinition.taskRoleArn"),
            log_group: get("RUNNER_LOG_GROUP", "write it in managedTaskDefinition.logGroup"),
            notes,
        }
    }
}

pub(super) fn convert(
    text: &str,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Manifests, ConvertError> {
    let surroundings = Surroundings::read(environment);
    let mut file = Table::from_toml(text)?;
    let mut defaults = file.table("defaults")?;
    let inherited = defaults.split(&INHERITED);
    let labels = defaults.texts("extra_labels")?;

    let mut manifests = Manifests { notes: surroundings.notes.clone(), ..Manifests::default() };
    manifests.notes.extend([
        "max_runtime counted from the creation of the task; timeouts.job counts from the job's start".to_owned(),
        "managedTaskDefinition registers in families of its own (<namespace>-<name>-ecs): those of ecs-arc stay as they are"
            .to_owned(),
        format!("the App's credentials: {}", secret_note(None, SECRET, APP)),
    ]);
    let mut runners: Vec<Runner> = Vec::new();
    for mut table in file.tables("runner")? {
        let family = table.required_text("family", "write what the task definition's family is called")?;
        let labels = table.texts("extra_labels")?;
        runners.push(Runner { table, family, labels, dimensions: Vec::new() });
    }
    for template in file.tables("template")? {
        runners.extend(expand(template, &mut manifests.notes)?);
    }
    manifests.notes.extend(
        defaults
            .leftovers(&OF_RUNNERS.map(|key| (key, "is not read, as in ecs-arc: it is a runner's own")))
            .into_iter()
            .chain(file.leftovers(&[])),
    );
    if runners.is_empty() {
        return Err(ConvertError::Nothing(
            "there is no runner: write at least one [[runner]] or [[template]]",
        ));
    }
    let mut families = BTreeSet::new();
    for mut runner in runners {
        runner.table.inherit(&inherited);
        runner.labels.splice(0..0, labels.iter().cloned());
        let manifest = scale_set(&manifests, &surroundings, runner, &mut families)?;
        manifests.manifests.push(manifest);
    }
    Ok(manifests)
}

/// A runner of the file, or of a template.
struct Runner {
    table: Table,
    family: String,
    /// The labels that it is given.
    labels: Vec<String>,
    /// The names that it has in the dimensions of a template, which are labels too.
    dimensions: Vec<String>,
}

/// Multiplies a template out, without what it excludes.
fn expand(mut template: Table, notes: &mut Vec<String>) -> Result<Vec<Runner>, ConvertError> {
    let prefix = template.required_text("family_prefix", "write what the names of its runners begin with")?;
    let mut exclude = template.table("exclude")?;
    let mut excluded = Vec::new();
    for mut combination in exclude.tables("combinations")? {
        let names: Vec<Option<String>> =
            DIMENSIONS.iter().map(|(_, name)| combination.text(name)).collect::<Result<_, _>>()?;
        notes.extend(combination.leftovers(&[]));
        excluded.push(names);
    }
    let mut dimensions = Vec::new();
    for (key, _) in DIMENSIONS {
        dimensions.push(template.tables_by_name(key)?);
    }
    if dimensions.iter().all(Vec::is_empty) {
        return Err(template.error("sizes", "missing: a template has sizes, architectures or features"));
    }
    let origin = template.within(&prefix);
    notes.extend(exclude.leftovers(&[]).into_iter().chain(template.leftovers(&[])));

    // One choice for each dimension: none where the template does not have it.
    let mut combinations: Vec<Vec<Option<&(String, Table)>>> = vec![Vec::new()];
    for dimension in &dimensions {
        let choices: Vec<_> =
            if dimension.is_empty() { vec![None] } else { dimension.iter().map(Some).collect() };
        let with = |before: Vec<_>| {
            choices.iter().map(move |choice| [&before[..], &[*choice]].concat()).collect::<Vec<_>>()
        };
        combinations = combinations.into_iter().flat_map(with).collect();
    }
    combinations.retain(|combination| !excluded.iter().any(|names| is_excluded(combination, names)));
    combinations.into_iter().map(|combination| combined(&origin, &prefix, &combination)).collect()
}

/// An exclusion names some of the dimensions and means every choice of the others.
fn is_excluded(combination: &[Option<&(String, Table)>], names: &[Option<String>]) -> bool {
    combination.iter().zip(names).all(|(choice, name)| match (choice, name) {
        (Some((choice, _)), Some(name)) => choice == name,
        _ => true,
    })
}

/// The runner that a combination makes: of what two dimensions give, the later one's holds, but of labels both.
fn combined(
    origin: &Table,
    prefix: &str,
    combination: &[Option<&(String, Table)>],
) -> Result<Runner, ConvertError> {
    let chosen: Vec<&(String, Table)> = combination.iter().copied().flatten().collect();
    let dimensions: Vec<String> = chosen.iter().map(|(name, _)| name.clone()).collect();
    let family = format!("{prefix}-{}", dimensions.join("-"));
    let mut table = origin.within(&dimensions.join("-"));
    let mut labels = Vec::new();
    for (_, given) in chosen {
        let mut given = given.clone();
        labels.extend(given.texts("extra_labels")?);
        table.override_with(&given);
    }
    Ok(Runner { table, family, labels, dimensions })
}

fn scale_set(
    manifests: &Manifests,
    surroundings: &Surroundings,
    runner: Runner,
    families: &mut BTreeSet<String>,
) -> Result<Manifest, ConvertError> {
    let Runner { mut table, family, labels: given, dimensions } = runner;
    if !families.insert(family.clone()) {
        return Err(
            table.error("family", format!("{family} is there twice: give each runner a family of its own"))
        );
    }
    let name = surroundings.prefix.iter().cloned().chain([family]).collect::<Vec<_>>().join("-");
    let name = manifests.name(&table, "family", name, None)?;
    let compatibility = table.text("compatibility")?.unwrap_or("FARGATE".into());
    let mut definition = managed_task_definition(&mut table, surroundings)?;
    let mut notes = Vec::new();
    match (table.flag("enable_dind")?, compatibility.as_str()) {
        (Some(true), "FARGATE") => {
            notes.push(
                table.note("enable_dind", "is off, as in ecs-arc: Fargate runs no privileged container"),
            );
        }
        (Some(true), _) => definition.docker_access = EcsDockerAccess::Sidecar,
        _ => {}
    }
    let labels = [dimensions, given, derived_labels(&table, &definition, &compatibility)].concat();
    table.value("architecture");

    let ecs = ecs(&mut table, surroundings, &compatibility, definition)?;
    let backend = Backend { ecs: Some(ecs), ..backend("ecs") };
    let mut manifest = Manifest::new(&name, github(surroundings.url.clone(), SECRET), backend);
    manifest.read_bounds(&mut table, "min_runners", "max_runners")?;
    if manifest.set.spec.min_runners > 0 {
        notes.push(
            table.note(
                "min_runners",
                "counted the busy runners in; minRunners are idle ones on top of the jobs",
            ),
        );
    }
    manifest.set_labels(labels);
    if let Some(job) = table.duration("max_runtime")? {
        manifest.set.spec.timeouts.job = job;
    }
    notes.extend(table.leftovers(&REASONS));
    manifest.notes = notes;
    Ok(manifest)
}

fn managed_task_definition(
    table: &mut Table,
    surroundings: &Surroundings,
) -> Result<ManagedTaskDefinition, ConvertError> {
    let mut size = |key: &str, unit: &str| {
        let size = table.number_above_zero(key)?;
        size.ok_or_else(|| table.error(key, format!("missing: write the {unit} of a task")))
    };
    let (cpu, memory) = (size("cpu", "CPU units")?, size("memory", "MiB")?);
    Ok(ManagedTaskDefinition {
        cpu,
        memory,
        image: table.text("runner_image")?.unwrap_or(IMAGE.into()),
        operating_system: table.text("os")?.unwrap_or("LINUX".into()),
        architecture: match table.peek("architecture") {
            None | Some("X86_64") => Architecture::X86_64,
            Some("ARM64") => Architecture::Arm64,
            Some(_) => return Err(table.error("architecture", "write X86_64 or ARM64")),
        },
        network_mode: match table.text("network_mode")?.as_deref() {
            None | Some("awsvpc") => None,
            Some("bridge") => Some(NetworkMode::Bridge),
            Some("host") => Some(NetworkMode::Host),
            Some("none") => Some(NetworkMode::None),
            Some(_) => return Err(table.error("network_mode", "write awsvpc, bridge, host or none")),
        },
        execution_role_arn: surroundings.execution_role.clone(),
        task_role_arn: surroundings.task_role.clone(),
        log_group: surroundings.log_group.clone(),
        ..ManagedTaskDefinition::default()
    })
}

/// The labels that ecs-arc derives from what a runner has.
fn derived_labels(table: &Table, definition: &ManagedTaskDefinition, compatibility: &str) -> Vec<String> {
    let architecture = match (table.peek("architecture"), definition.architecture) {
        (None, _) => None,
        (_, Architecture::X86_64) => Some("x64".to_owned()),
        (_, Architecture::Arm64) => Some("arm64".to_owned()),
    };
    let docker = match definition.docker_access {
        EcsDockerAccess::Sidecar => "docker",
        EcsDockerAccess::None => "no-docker",
    };
    let whole = |size: i32, unit: &str| (size % 1024 == 0).then(|| format!("{}{unit}", size / 1024));
    let sure = [definition.operating_system.to_lowercase(), docker.to_owned(), compatibility.to_lowercase()];
    let sizes = [whole(definition.cpu, "cpu"), whole(definition.memory, "gb")];
    architecture.into_iter().chain(sure).chain(sizes.into_iter().flatten()).collect()
}

fn ecs(
    table: &mut Table,
    surroundings: &Surroundings,
    compatibility: &str,
    mut definition: ManagedTaskDefinition,
) -> Result<Ecs, ConvertError> {
    let mut ecs = Ecs {
        region: surroundings.region.clone(),
        cluster: surroundings.cluster.clone(),
        endpoint_url: String::new(),
        credentials_secret_ref: None,
        assume_role_arn: String::new(),
        task_definition: None,
        managed_task_definition: None,
        container_name: "runner".into(),
        launch_type: None,
        capacity_providers: Vec::new(),
        subnets: Vec::new(),
        security_groups: Vec::new(),
        assign_public_ip: false,
        platform_version: None,
        tags: BTreeMap::new(),
        rerun_interrupted: false,
    };
    if compatibility == "EXTERNAL" {
        // ecs-arc has it so too, whatever the file says.
        definition.network_mode = None;
        ecs.launch_type = Some(LaunchType::External);
    } else if let Some(name) = table.text("capacity_provider")? {
        ecs.capacity_providers = vec![CapacityProvider { name, weight: 1, base: 0 }];
    } else {
        ecs.launch_type = Some(match compatibility {
            "FARGATE" => LaunchType::Fargate,
            "EC2" => LaunchType::Ec2,
            _ => {
                return Err(
                    table.error("compatibility", "write FARGATE, EC2 or EXTERNAL, or a capacity_provider")
                );
            }
        });
    }
    if ecs.launch_type != Some(LaunchType::External) && definition.network_mode.is_none() {
        ecs.subnets = table.texts("subnets")?;
        ecs.security_groups = table.texts("security_groups")?;
        if ecs.subnets.is_empty() {
            return Err(table
                .error("subnets", "missing: write them here or in [defaults], as network_mode is awsvpc"));
        }
    }
    ecs.managed_task_definition = Some(definition);
    Ok(ecs)
}
