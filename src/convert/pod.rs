//! The template of ARC's pods, as far as a container on a Docker host has its fields.

use super::error::ConvertError;
use super::manifest::secret_note;
use super::table::Table;
use crate::api::{
    Docker, DockerAccess, EnvVar, EnvVarSource, JIT_CONFIG_ENV, PullPolicy, SecretKeyRef, SecretRef,
    VERSION_EXIT_CODE_ENV,
};

/// The container that is the runner.
const RUNNER: &str = "runner";
/// The container that is the private engine, and the one that prepares its folder.
const ENGINE: [&str; 2] = ["dind", "init-dind-externals"];
/// What the chart tells a runner of that engine.
const OF_ENGINE: [&str; 2] = ["DOCKER_HOST", "RUNNER_WAIT_FOR_DOCKER_IN_SECONDS"];

const REASONS: [(&str, &str); 9] = [
    ("affinity", "has no counterpart: docker.hosts says where runners are"),
    ("nodeSelector", "has no counterpart: docker.hosts says where runners are"),
    ("requests", "has no counterpart: nothing is reserved on a Docker host; limits are"),
    ("restartPolicy", "has no counterpart: a runner takes one job and is not started again"),
    ("serviceAccountName", "has no counterpart: a runner has no account in Kubernetes"),
    ("tolerations", "has no counterpart: docker.hosts says where runners are"),
    ("topologySpreadConstraints", "has no counterpart: docker.hosts says where runners are"),
    ("volumeMounts", "has no counterpart: sharedVolume is the one volume of a scale set"),
    ("volumes", "has no counterpart: sharedVolume is the one volume of a scale set"),
];

/// Words in the name of a variable whose value is taken for a secret.
const SECRET_WORDS: [&str; 6] = ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "CREDENTIAL", "PRIVATE"];
/// What the values of GitHub's tokens and of keys in PEM begin with.
const SECRET_VALUES: [&str; 6] = ["ghp_", "gho_", "ghs_", "ghu_", "github_pat_", "-----BEGIN"];

/// The runner's container of the template. Variables that look secret become keys of the Secret `env_secret`.
pub(super) fn docker(
    table: &mut Table,
    env_secret: &str,
    namespace: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<Docker, ConvertError> {
    let mut template = table.table("template")?;
    let mut spec = template.table("spec")?;
    let mut docker = Docker::default();
    let mut runner = None;
    for list in ["containers", "initContainers"] {
        for (i, mut container) in spec.tables(list)?.into_iter().enumerate() {
            let name = container.text("name")?.unwrap_or_default();
            if list == "containers" && name == RUNNER {
                runner = Some(container);
            } else if name == ENGINE[0] {
                docker.docker_access = DockerAccess::Sidecar;
                docker.sidecar_image = container.text("image")?.unwrap_or(docker.sidecar_image);
                notes.extend(container.leftovers(&REASONS));
            } else if !ENGINE.contains(&name.as_str()) {
                notes.push(spec.note(
                    &format!("{list}[{i}]"),
                    format!("{name}: has no counterpart: a runner is one container"),
                ));
            }
        }
    }
    let mut security = spec.table("securityContext")?;
    docker.user = user(&mut security)?;
    let mut secrets = spec.tables("imagePullSecrets")?.into_iter();
    if let Some(mut secret) = secrets.next() {
        docker.image_pull_secret_ref = secret.text("name")?.map(|name| SecretRef { name });
    }
    if secrets.next().is_some() {
        notes.push(spec.note(
            "imagePullSecrets",
            "the first is taken: put the logins of all registries into one Secret",
        ));
    }
    for rest in [security, spec, template] {
        notes.extend(rest.leftovers(&REASONS));
    }
    if let Some(mut runner) = runner {
        container(&mut runner, &mut docker, notes)?;
        environment(&mut runner, &mut docker, env_secret, namespace, notes)?;
        notes.extend(runner.leftovers(&REASONS));
    }
    Ok(docker)
}

fn container(table: &mut Table, docker: &mut Docker, notes: &mut Vec<String>) -> Result<(), ConvertError> {
    docker.image = table.text("image")?.unwrap_or(std::mem::take(&mut docker.image));
    docker.pull_policy = match table.text("imagePullPolicy")?.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        Some("Never") => PullPolicy::Never,
        Some(_) => return Err(table.error("imagePullPolicy", "write Always, IfNotPresent or Never")),
        // The kubelet's own default.
        None if is_latest(&docker.image) => PullPolicy::Always,
        None => PullPolicy::IfNotPresent,
    };
    let command = [table.texts("command")?, table.texts("args")?].concat();
    if !command.is_empty() {
        docker.command = command;
    }
    let mut resources = table.table("resources")?;
    let mut limits = resources.table("limits")?;
    docker.resources.cpu = limits.quantity("cpu")?;
    docker.resources.memory = limits.quantity("memory")?;
    let mut security = table.table("securityContext")?;
    docker.user = user(&mut security)?.or(docker.user.take());
    docker.no_new_privileges =
        security.flag("allowPrivilegeEscalation")?.map(|may| !may).filter(|is_off| *is_off);
    for rest in [limits, resources, security] {
        notes.extend(rest.leftovers(&REASONS));
    }
    Ok(())
}

/// Whether an image has no tag, or the tag `latest`.
fn is_latest(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

fn user(security: &mut Table) -> Result<Option<String>, ConvertError> {
    let group = security.number("runAsGroup")?;
    let user = security.number("runAsUser")?;
    Ok(user.map(|user| group.map_or(user.to_string(), |group| format!("{user}:{group}"))))
}

fn environment(
    runner: &mut Table,
    docker: &mut Docker,
    env_secret: &str,
    namespace: Option<&str>,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    for mut variable in runner.tables("env")? {
        let name = variable.required_text("name", "write the variable's name")?;
        if [JIT_CONFIG_ENV, VERSION_EXIT_CODE_ENV].contains(&name.as_str()) {
            notes.push(variable.note("name", format!("{name}: the controller sets it")));
            continue;
        }
        if docker.docker_access == DockerAccess::Sidecar && OF_ENGINE.contains(&name.as_str()) {
            notes.push(variable.note("name", format!("{name}: dockerAccess sets what the runner needs")));
            continue;
        }
        let value = variable.text("value")?;
        let mut source = variable.table("valueFrom")?;
        let mut key = source.table("secretKeyRef")?;
        let from_secret = match (key.text("name")?, key.text("key")?) {
            (Some(name), Some(key)) => Some(SecretKeyRef { name, key }),
            _ if value.as_deref().is_some_and(|value| looks_secret(&name, value)) => {
                let literal = format!("--from-literal={name}=VALUE");
                notes.push(variable.note(
                    "value",
                    format!("{name} looks secret; {}", secret_note(namespace, env_secret, &literal)),
                ));
                Some(SecretKeyRef { name: env_secret.into(), key: name.clone() })
            }
            _ => None,
        };
        let is_given = value.is_some() || from_secret.is_some();
        let rest: Vec<String> =
            [key, source, variable].into_iter().flat_map(|rest| rest.leftovers(&[])).collect();
        // What comes from elsewhere than a Secret has its note, and no empty variable in its place.
        if is_given || rest.is_empty() {
            let value = value.filter(|_| from_secret.is_none());
            let value_from = from_secret.map(|secret_key_ref| EnvVarSource { secret_key_ref });
            docker.env.push(EnvVar { name, value, value_from });
        }
        notes.extend(rest);
    }
    Ok(())
}

fn looks_secret(name: &str, value: &str) -> bool {
    let name = name.to_uppercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
        || SECRET_VALUES.iter().any(|start| value.starts_with(start))
}
