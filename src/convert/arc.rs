//! actions-runner-controller: AutoscalingRunnerSets, and the values of the chart gha-runner-scale-set.

use super::error::ConvertError;
use super::manifest::{Manifest, Manifests, Name, backend, github, read_url, secret_note};
use super::pod;
use super::table::Table;
use crate::api::{Backend, CaBundleKind, CaBundleRef, Docker, DockerAccess, GitHub, Proxy, SecretRef};

/// What Kubernetes, Helm and ARC write into an object, which is no configuration.
const METADATA_OF_OTHERS: [&str; 8] = [
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// Whose labels and annotations stay with ARC's object.
const DOMAINS_OF_OTHERS: [&str; 5] =
    ["actions.github.com", "argoproj.io", "fluxcd.io", "helm.sh", "kubernetes.io"];

const REASONS: [(&str, &str); 15] = [
    ("autoscalingListener", "has no counterpart: there is no listener's pod"),
    ("controllerServiceAccount", "has no counterpart: the controller has its own rights"),
    ("ephemeralRunnerConfigSecretMetadata", "has no counterpart: there is no such object"),
    ("ephemeralRunnerMetadata", "has no counterpart: there is no such object"),
    ("ephemeralRunnerSetMetadata", "has no counterpart: there is no such object"),
    ("fullnameOverride", "has no counterpart: metadata.name is the object's name"),
    ("listenerConfigSecretMetadata", "has no counterpart: there is no listener's pod"),
    ("listenerMetrics", "has no counterpart: metrics are on, without labels of single jobs"),
    ("listenerRoleBindingMetadata", "has no counterpart: there is no listener's pod"),
    ("listenerRoleMetadata", "has no counterpart: there is no listener's pod"),
    ("listenerServiceAccountMetadata", "has no counterpart: there is no listener's pod"),
    ("listenerTemplate", "has no counterpart: there is no listener's pod"),
    ("resourceMeta", "has no counterpart: there are no such objects"),
    ("runnerMountPath", "has no counterpart: put the authority into the runner's image"),
    ("updateStrategy", "has no counterpart: disruption.maxUnavailable says how idle runners are replaced"),
];

pub(super) fn convert(text: &str) -> Result<Manifests, ConvertError> {
    let mut manifests = Manifests::default();
    for document in Table::from_yaml(text)? {
        read_document(&mut manifests, document)?;
    }
    if manifests.manifests.is_empty() {
        return Err(ConvertError::Nothing(
            "there is no AutoscalingRunnerSet, and no githubConfigUrl of the values of the chart gha-runner-scale-set",
        ));
    }
    Ok(manifests)
}

fn read_document(manifests: &mut Manifests, mut document: Table) -> Result<(), ConvertError> {
    let kind = document.text("kind")?;
    match kind.as_deref() {
        Some("List" | "AutoscalingRunnerSetList") => {
            for item in document.tables("items")? {
                read_document(manifests, item)?;
            }
        }
        Some("AutoscalingRunnerSet") => {
            let manifest = runner_set(manifests, document)?;
            manifests.manifests.push(manifest);
        }
        None if document.has("githubConfigUrl") => {
            let manifest = values(manifests, document)?;
            manifests.manifests.push(manifest);
        }
        other => {
            let name = document.table("metadata")?.text("name")?.unwrap_or_default();
            let kind = other.unwrap_or("a document without a kind");
            manifests
                .notes
                .push(format!("{kind} {name}: is not converted, as it is no AutoscalingRunnerSet"));
        }
    }
    Ok(())
}

fn runner_set(manifests: &Manifests, mut object: Table) -> Result<Manifest, ConvertError> {
    let mut metadata = object.table("metadata")?;
    let own_name = metadata.required_text("name", "write the object's name")?;
    let namespace = metadata.text("namespace")?;
    let mut spec = object.table("spec")?;
    let given = spec.text("runnerScaleSetName")?;
    let name = manifests.name(&spec, "runnerScaleSetName", given.unwrap_or(own_name), namespace)?;
    metadata.split(&METADATA_OF_OTHERS);
    object.split(&["apiVersion", "status"]);
    let mut manifest = scale_set(&name, spec, "runnerScaleSetLabels")?;
    copy_own_metadata(&mut metadata, &mut manifest)?;
    manifest.notes.extend(metadata.leftovers(&REASONS).into_iter().chain(object.leftovers(&[])));
    Ok(manifest)
}

fn values(manifests: &Manifests, mut values: Table) -> Result<Manifest, ConvertError> {
    let remedy = "the chart takes the release's name then; write that here";
    let name = values.required_text("runnerScaleSetName", remedy)?;
    let namespace = values.text("namespaceOverride")?;
    let name = manifests.name(&values, "runnerScaleSetName", name, namespace)?;
    let mut metadata = values.split(&["annotations", "labels"]);
    let mut manifest = scale_set(&name, values, "scaleSetLabels")?;
    copy_own_metadata(&mut metadata, &mut manifest)?;
    Ok(manifest)
}

/// Copies the labels and annotations that are the user's own.
fn copy_own_metadata(from: &mut Table, manifest: &mut Manifest) -> Result<(), ConvertError> {
    let mut own = |key| {
        let mut texts = from.texts_by_name(key)?;
        texts.retain(|name, _| {
            let domain = name.split_once('/').map_or("", |(domain, _)| domain);
            !DOMAINS_OF_OTHERS.iter().any(|other| domain.ends_with(other))
        });
        Ok::<_, ConvertError>((!texts.is_empty()).then_some(texts))
    };
    manifest.set.metadata.labels = own("labels")?;
    manifest.set.metadata.annotations = own("annotations")?;
    Ok(())
}

/// What the object's spec and the chart's values have in common, which is all but the labels' name.
fn scale_set(name: &Name, mut table: Table, labels: &str) -> Result<Manifest, ConvertError> {
    let mut notes = Vec::new();
    let url = read_url(&mut table, "githubConfigUrl")?;
    let secret = credentials(&mut table, name, &mut notes)?;
    let mut github = github(url, &secret);
    github.runner_group = table.text("runnerGroup")?.unwrap_or(github.runner_group);
    github.ca_bundle_ref = ca_bundle(&mut table, &mut notes)?;
    github.proxy = proxy(&mut table, &mut notes)?;

    let mut docker =
        pod::docker(&mut table, &format!("{}-env", name.object), name.namespace.as_deref(), &mut notes)?;
    container_mode(&mut table, &mut docker, &mut notes)?;
    notes.push(table.note(
        "template",
        "the runner was a pod and is a container on Docker hosts: write yours in docker.hosts",
    ));
    let has_limit = table.has("maxRunners");
    let mut manifest = manifest(name, github, docker);
    manifest.read_bounds(&mut table, "minRunners", "maxRunners")?;
    if !has_limit {
        let most = manifest.set.spec.max_runners;
        notes.push(
            table.note("maxRunners", format!("was not given, which is no limit in ARC; here it is {most}")),
        );
    }
    manifest.set_labels(table.texts(labels)?);
    notes.extend(table.leftovers(&REASONS));
    manifest.notes = notes;
    Ok(manifest)
}

fn manifest(name: &Name, github: GitHub, docker: Docker) -> Manifest {
    Manifest::new(name, github, Backend { docker: Some(docker), ..backend("docker") })
}

/// The name of the Secret with the credentials, whose keys are the same.
fn credentials(table: &mut Table, name: &Name, notes: &mut Vec<String>) -> Result<String, ConvertError> {
    for key in ["keyVault", "vaultConfig"] {
        if table.value(key).is_some_and(|vault| !super::table::is_empty(&vault)) {
            notes.push(
                table.note(key, "has no counterpart: bring the credentials from the vault into a Secret"),
            );
        }
    }
    if table.peek("githubConfigSecret").is_some() {
        return table.required_text("githubConfigSecret", "");
    }
    let secret = format!("{}-github", name.object);
    let mut given = table.table("githubConfigSecret")?;
    let app = given.split(&["github_app_id", "github_app_installation_id", "github_app_private_key"]);
    let literals = if app.leftovers(&[]).is_empty() {
        "--from-literal=github_token=TOKEN"
    } else {
        "--from-literal=github_app_id=ID --from-literal=github_app_installation_id=ID --from-file=github_app_private_key=KEY.pem"
    };
    given.split(&["github_token"]);
    notes.push(table.note("githubConfigSecret", secret_note(name.namespace.as_deref(), &secret, literals)));
    notes.extend(given.leftovers(&[]));
    Ok(secret)
}

fn ca_bundle(table: &mut Table, notes: &mut Vec<String>) -> Result<Option<CaBundleRef>, ConvertError> {
    let mut tls = table.table("githubServerTLS")?;
    let mut from = tls.table("certificateFrom")?;
    let mut config_map = from.table("configMapKeyRef")?;
    let bundle = match config_map.text("name")? {
        None => None,
        Some(name) => {
            let key = config_map.text("key")?.unwrap_or("ca.crt".into());
            Some(CaBundleRef { kind: CaBundleKind::ConfigMap, name, key })
        }
    };
    for rest in [config_map, from, tls] {
        notes.extend(rest.leftovers(&REASONS));
    }
    Ok(bundle)
}

fn proxy(table: &mut Table, notes: &mut Vec<String>) -> Result<Option<Proxy>, ConvertError> {
    let mut proxy = table.table("proxy")?;
    let no_proxy = proxy.texts("noProxy")?;
    let mut used = None;
    for key in ["https", "http"] {
        let mut way = proxy.table(key)?;
        let Some(url) = way.text("url")? else { continue };
        if url.contains('@') {
            return Err(way.error(
                "url",
                "a login is in it: write it into a Secret, and its name in credentialSecretRef",
            ));
        }
        let login = way.text("credentialSecretRef")?;
        notes.extend(way.leftovers(&[]));
        let way = Proxy {
            url,
            no_proxy: no_proxy.clone(),
            credentials_secret_ref: login.map(|name| SecretRef { name }),
        };
        if used.as_ref().is_some_and(|used| *used != way) {
            notes.push(proxy.note(key, "has no counterpart: there is one proxy, that for https"));
        }
        used.get_or_insert(way);
    }
    if used.is_some() {
        notes.push(table.note(
            "proxy",
            "is the controller's way to GitHub: runners get theirs by HTTPS_PROXY and the like in env",
        ));
    }
    notes.extend(proxy.leftovers(&[]));
    Ok(used)
}

/// The chart's word for what is added to the pod.
fn container_mode(
    table: &mut Table,
    docker: &mut Docker,
    notes: &mut Vec<String>,
) -> Result<(), ConvertError> {
    let mut mode = table.table("containerMode")?;
    match mode.text("type")?.as_deref() {
        None => {}
        Some("dind") => docker.docker_access = DockerAccess::Sidecar,
        Some("kubernetes" | "kubernetes-novolume") => {
            let text =
                "has no counterpart: a job's containers run by a Docker engine (dockerAccess), not as pods";
            notes.push(mode.note("type", text));
        }
        Some(_) => return Err(mode.error("type", "write dind, kubernetes or kubernetes-novolume")),
    }
    notes.extend(mode.leftovers(&[]));
    Ok(())
}
