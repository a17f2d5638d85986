//! runscaler's `config.toml`: one scale set at the top, or several in `[[scaleset]]` that inherit from there.

use super::error::ConvertError;
use super::manifest::{Manifest, Manifests, backend, github, read_url, secret_note};
use super::table::Table;
use crate::api::{
    Backend, Docker, DockerAccess, DockerHost, Duration, Quantity, SharedVolume, Tart, TartHost,
};

/// What is of the process and of no scale set.
const GLOBAL: [&str; 9] = [
    "concurrent",
    "disk",
    "drain-timeout",
    "dry-run",
    "health-address",
    "health-port",
    "log-file",
    "log-format",
    "log-level",
];
/// What a `[[scaleset]]` does not inherit.
const OWN: [&str; 5] = ["labels", "min-runners", "name", "token", "url"];

const REASONS: [(&str, &str); 22] = [
    ("build-cache-budget", "is not read: write housekeeping.buildCache.budget, which is 50Gi by default"),
    ("build-cache-max-age", "has no counterpart: housekeeping.buildCache has a budget"),
    ("cache", "has no counterpart: sharedVolume is the one volume of a scale set"),
    ("cache-volumes", "has no counterpart: sharedVolume is the one volume of a scale set"),
    (
        "concurrent",
        "has no counterpart: maxRunners, hosts[].maxRunners and the operator's policy bound what runs",
    ),
    (
        "disable-update",
        "has no counterpart: the scale set decides, and a runner that GitHub finds too old is told in Ready",
    ),
    ("disk", "is not read: write housekeeping.diskGuard of each backend, which is on by default"),
    ("docker", "is not read, as the backend is tart"),
    (
        "drain-timeout",
        "has no counterpart: a controller that stops leaves runners running; timeouts.drain is for the deletion of a set",
    ),
    ("dry-run", "has no counterpart: kubectl apply --dry-run=server"),
    ("health-address", "is a flag of the controller: --listen"),
    ("health-port", "is a flag of the controller: --listen"),
    ("log-file", "has no counterpart: the controller logs to its standard error"),
    ("log-format", "is a flag of the controller: --log-format"),
    ("log-level", "is a flag of the controller: --log-level"),
    ("prune-interval", "has no counterpart: housekeeping.interval is one for all"),
    ("prune-ttl", "has no counterpart: dangling images go whatever their age"),
    ("runner-image", "is not read, as tart.image is given"),
    ("shared-volume-cleanup-interval", "has no counterpart: housekeeping.interval is one for all"),
    (
        "shared-volume-name",
        "has no counterpart: the volume's name carries namespace and set, so that no other set has it",
    ),
    ("shared-volume-ttl", "is not read, as shared-volume-max-age is given"),
    ("tart", "is not read, as the backend is docker"),
];

pub(super) fn convert(text: &str) -> Result<Manifests, ConvertError> {
    let mut file = Table::from_toml(text)?;
    let mut sets = file.tables("scaleset")?;
    for table in sets.iter_mut().chain([&mut file]) {
        table.rename("provider", "backend");
    }
    let mut manifests = Manifests { notes: file.split(&GLOBAL).leftovers(&REASONS), ..Manifests::default() };
    if sets.is_empty() {
        sets.push(file);
    } else {
        let unread = "is not read where there are [[scaleset]]";
        manifests.notes.extend(file.split(&OWN).leftovers(&OWN.map(|key| (key, unread))));
        sets.iter_mut().for_each(|set| set.inherit(&file));
    }
    for set in sets {
        let manifest = scale_set(&manifests, set)?;
        manifests.manifests.push(manifest);
    }
    Ok(manifests)
}

fn scale_set(manifests: &Manifests, mut table: Table) -> Result<Manifest, ConvertError> {
    let name = table.required_text("name", "write what runs-on names")?;
    let name = manifests.name(&table, "name", name, None)?;
    let secret = format!("{}-github", name.object);
    let mut github = github(read_url(&mut table, "url")?, &secret);
    github.runner_group = table.text("runner-group")?.unwrap_or(github.runner_group);

    let mut notes = vec![token(&mut table, &secret)?];
    let backend = match table.text("backend")?.as_deref() {
        None | Some("docker") => docker(&mut table, &mut notes)?,
        Some("tart") => tart(&mut table, &mut notes)?,
        Some(_) => return Err(table.error("backend", "write docker or tart")),
    };
    let mut manifest = Manifest::new(&name, github, backend);
    manifest.read_bounds(&mut table, "min-runners", "max-runners")?;
    manifest.set_labels(table.texts("labels")?);
    limit_warm_pool(&mut manifest, &mut notes);
    notes.extend(table.leftovers(&REASONS));
    manifest.notes = notes;
    Ok(manifest)
}

/// The note on how the token becomes a Secret. The token itself goes nowhere.
fn token(table: &mut Table, secret: &str) -> Result<String, ConvertError> {
    let token = table.text("token")?;
    let variable = token.as_deref().and_then(|token| token.strip_prefix("env:"));
    let value = variable.map_or("TOKEN".to_owned(), |variable| format!("\"${variable}\""));
    Ok(table.note("token", secret_note(None, secret, &format!("--from-literal=github_token={value}"))))
}

fn docker(set: &mut Table, notes: &mut Vec<String>) -> Result<Backend, ConvertError> {
    let mut table = set.table("docker")?;
    let mut docker = Docker::default();
    docker.image = set.text("runner-image")?.unwrap_or(docker.image);
    docker.platform = table.text("platform")?;
    docker.network = table.text("network")?.unwrap_or(docker.network);
    docker.resources.cpu = table.number_above_zero("cpu")?.map(|cores| Quantity(cores.to_string()));
    docker.resources.memory = megabytes(&mut table, "memory")?;
    match table.number("pids-limit")? {
        Some(0) => notes
            .push(table.note("pids-limit", "0 was no limit; resources.pids is 8192 unless you write more")),
        limit => docker.resources.pids = limit,
    }
    if table.flag("dind")?.unwrap_or(true) {
        docker.docker_access = DockerAccess::HostSocket;
        notes.push(table.note(
            "dind",
            "jobs have full control of the host by its socket (dockerAccess: HostSocket), which \
                                       the operator's policy must permit: hostSocket",
        ));
    }
    if let Some(socket) = table.text("socket")? {
        if !socket.starts_with('/') {
            return Err(table.error("socket", "write the absolute path of the engine's socket"));
        }
        docker.hosts = vec![DockerHost { endpoint: format!("unix://{socket}"), ..DockerHost::local() }];
    }
    docker.shared_volume = shared_volume(&mut table)?;
    let housekeeping = &mut docker.housekeeping;
    housekeeping.buildx.enabled = table.flag("buildx-cleanup")?.unwrap_or(housekeeping.buildx.enabled);
    if let Some(age) = table.duration("buildx-cleanup-ttl")? {
        housekeeping.buildx.max_age = age;
    }
    if let Some(interval) = table.duration("buildx-cleanup-interval")? {
        housekeeping.interval = interval;
    }
    if let Some(enabled) = table.flag("prune")? {
        housekeeping.images.enabled = enabled;
        housekeeping.build_cache.enabled = enabled;
    }
    notes.extend(table.leftovers(&REASONS));
    Ok(Backend { docker: Some(docker), ..backend("docker") })
}

fn shared_volume(table: &mut Table) -> Result<Option<SharedVolume>, ConvertError> {
    let Some(mount_path) = table.text("shared-volume")? else { return Ok(None) };
    table.rename("shared-volume-ttl", "shared-volume-max-age");
    let ttl = table.duration("shared-volume-max-age")?;
    Ok(Some(SharedVolume { mount_path, ttl: ttl.unwrap_or(Duration::seconds(0)), read_only: false }))
}

fn tart(set: &mut Table, notes: &mut Vec<String>) -> Result<Backend, ConvertError> {
    let mut table = set.table("tart")?;
    // Older files have the virtual machine's image here, beside the containers' one that all sets inherit.
    let image = match table.text("image")? {
        Some(image) => image,
        None => set.required_text("runner-image", "write the image of the virtual machine")?,
    };
    // What is left out has the defaults of the type.
    let mut tart: Tart = serde_json::from_value(serde_json::json!({"image": image}))?;
    tart.runner_dir = table.text("runner-dir")?.unwrap_or(tart.runner_dir);
    tart.cpu = table.number_above_zero("cpu")?;
    tart.memory = megabytes(&mut table, "memory")?;
    tart.warm_pool.size = table.number("pool-size")?.unwrap_or(0);
    if let Some(tart_home) = table.text("home")? {
        tart.hosts = vec![TartHost { tart_home, ..TartHost::local() }];
    }
    let housekeeping = &mut tart.housekeeping;
    housekeeping.cache.enabled = table.flag("cache-cleanup")?.unwrap_or(housekeeping.cache.enabled);
    if let Some(age) = table.duration("cache-max-age")? {
        housekeeping.cache.max_age = age;
    }
    for key in ["cache-space-budget", "cache-budget"] {
        if let Some(gigabytes) = table.number_above_zero(key)? {
            housekeeping.cache.space_budget = Quantity(format!("{gigabytes}G"));
        }
    }
    if let Some(interval) = table.duration("cache-cleanup-interval")? {
        housekeeping.interval = interval;
    }
    notes.push(table.note(
        "hosts",
        "`local` is the controller's own machine. For a controller in a cluster write \
                                    ssh://user@host and its sshSecretRef: docs/tart.md",
    ));
    notes.extend(table.leftovers(&REASONS));
    Ok(Backend { tart: Some(tart), ..backend("tart") })
}

/// A warm pool larger than the set would be refused; runscaler fills it no further either.
fn limit_warm_pool(manifest: &mut Manifest, notes: &mut Vec<String>) {
    let most = manifest.set.spec.max_runners;
    for pool in manifest
        .set
        .spec
        .backends
        .iter_mut()
        .filter_map(|backend| Some(&mut backend.tart.as_mut()?.warm_pool))
    {
        if pool.size > most {
            notes.push(format!("tart.pool-size: {} is more than max-runners; lowered to {most}", pool.size));
            pool.size = most;
        }
    }
}

/// Megabytes, of which 0 says that there is no limit.
fn megabytes(table: &mut Table, key: &str) -> Result<Option<Quantity>, ConvertError> {
    Ok(table.number_above_zero(key)?.map(|megabytes| Quantity(format!("{megabytes}Mi"))))
}
