//! What every test stands on: an engine, a cluster id of its own, and the wake-ups that came.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use harness::eventually;
use paddock::api::{DockerAccess, PullPolicy};
use paddock::backend::docker::{DockerBackend, DockerTemplate, Engines, HostSpec, Images, Limits, Login};
use paddock::backend::{Availability, Backend, Error, HostState, NewRunner, Requeuer, Reservation};
use paddock::runner::{Identity, Instance, InstanceState, JitConfiguration, runner_name};

/// The image that `make image` makes: a busybox.
pub const IMAGE: &str = "paddock.test/runner:1";
/// The image that `make image` makes of the machine's Docker engine.
pub const ENGINE_IMAGE: &str = "paddock.test/engine:1";
/// The host's name in every template.
pub const HOST: &str = "local";
/// What no output may show.
pub const SECRET: &str = "planted-secret";
/// How long to wait for what must come. Generous: other tests run beside.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test's own cluster on an engine. Its containers are removed at the end, however the test ends.
pub struct Stage {
    pub cluster: String,
    pub endpoint: String,
    pub docker: Docker,
    pub engines: Engines,
    woken: Arc<Mutex<HashMap<String, usize>>>,
}

impl Stage {
    /// On the machine's engine.
    pub async fn new(name: &str) -> Self {
        let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        Stage::at(name, &host).await
    }

    /// On an engine of the test's own.
    pub async fn at(name: &str, endpoint: &str) -> Self {
        LazyLock::force(&LOG);
        let docker = connect(endpoint).await;
        let run = std::env::var("PADDOCK_TEST_ID").unwrap_or_else(|_| format!("test-{}", std::process::id()));
        let cluster = format!("{run}-{name}");
        let woken = Arc::<Mutex<HashMap<String, usize>>>::default();
        let engines = Engines::new(cluster.clone(), counting(&woken));
        Stage { cluster, endpoint: endpoint.to_owned(), docker, engines, woken }
    }

    /// A second controller of the same cluster, that knows nothing yet.
    pub fn fresh_engines(&self) -> Engines {
        Engines::new(self.cluster.clone(), counting(&self.woken))
    }

    /// How often a scale set was woken.
    pub fn woken(&self, scale_set: &str) -> usize {
        self.woken.lock().unwrap().get(scale_set).copied().unwrap_or_default()
    }

    /// Runs a shell script on this engine.
    pub fn template(&self, script: &str) -> DockerTemplate {
        DockerTemplate {
            images: Images {
                runner: IMAGE.to_owned(),
                engine: ENGINE_IMAGE.to_owned(),
                platform: None,
                policy: PullPolicy::IfNotPresent,
                credentials: None,
            },
            command: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            user: None,
            env: Vec::new(),
            limits: Limits::default(),
            network: Some("none".to_owned()),
            docker_access: DockerAccess::None,
            shared_volume: None,
            housekeeping: None,
            hosts: vec![HostSpec {
                name: HOST.to_owned(),
                endpoint: self.endpoint.clone(),
                max_runners: None,
                login: Login::None,
            }],
        }
    }

    /// A scale set's backend.
    pub fn backend(&self, scale_set: &str, template: DockerTemplate) -> DockerBackend {
        DockerBackend::new("rack", self.identity(scale_set), template, &self.engines)
    }

    pub fn identity(&self, scale_set: &str) -> Identity {
        Identity {
            cluster: self.cluster.clone(),
            scale_set_uid: scale_set.to_owned(),
            scale_set: format!("ci/{scale_set}"),
        }
    }

    /// Makes a container past Paddock, with these labels. It is never started.
    pub async fn foreign(&self, name: &str, labels: &[(&str, &str)]) -> String {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.docker.create_container(Some(options), body).await.unwrap().id
    }

    /// Whether the engine has a container.
    pub async fn exists(&self, id: &str) -> bool {
        self.docker.inspect_container(id, None::<InspectContainerOptions>).await.is_ok()
    }

    /// How many containers of this cluster the engine has.
    pub async fn count(&self) -> usize {
        labelled(&self.docker, &self.cluster).await.len()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let (endpoint, cluster) = (self.endpoint.clone(), self.cluster.clone());
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let Ok(docker) = Docker::connect_with_unix(&endpoint, 60, API_DEFAULT_VERSION) else {
                    return;
                };
                for id in labelled(&docker, &cluster).await {
                    remove(&docker, &id).await;
                }
            });
        });
        let _ = cleaner.join();
    }
}

/// Removes a container past Paddock.
pub async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let _ = docker.remove_container(id, Some(options)).await;
}

/// A client of an engine.
pub async fn connect(endpoint: &str) -> Docker {
    let answer = async {
        let docker = Docker::connect_with_unix(endpoint, 60, API_DEFAULT_VERSION)?;
        docker.negotiate_version().await
    };
    answer
        .await
        .unwrap_or_else(|error| panic!("no Docker engine answers at {endpoint} ({error}): run `make docker`"))
}

fn counting(woken: &Arc<Mutex<HashMap<String, usize>>>) -> Requeuer {
    let woken = Arc::clone(woken);
    Requeuer::new(move |scale_set| *woken.lock().unwrap().entry(scale_set.to_owned()).or_default() += 1)
}

async fn labelled(docker: &Docker, cluster: &str) -> Vec<String> {
    let filters = HashMap::from([("label", vec![format!("{}={cluster}", Identity::CLUSTER)])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let listing = docker.list_containers(Some(options)).await.unwrap_or_default();
    listing.into_iter().filter_map(|container| container.id).collect()
}

/// Waits until `look` sees what it looks for.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    eventually(what, PATIENCE, async || look()).await
}

/// The only host, as the backend shows it.
pub fn host(backend: &DockerBackend) -> HostState {
    let mut hosts = backend.hosts();
    assert_eq!(hosts.len(), 1);
    hosts.remove(0)
}

/// Waits until the engine was listed.
pub async fn connected(backend: &DockerBackend) {
    until("the engine is connected", || backend.instances()[0].current.then_some(())).await;
}

/// Prepares the host and waits until that ended, one way or the other.
pub async fn prepared(backend: &DockerBackend) -> HostState {
    connected(backend).await;
    until("the host is prepared", || {
        let host = host(backend);
        match host.availability {
            Availability::Unprepared => {
                backend.prepare(HOST);
                None
            }
            Availability::Preparing { .. } => None,
            _ => Some(host),
        }
    })
    .await
}

/// A JIT configuration that is recognised wherever it turns up.
pub fn jit() -> JitConfiguration {
    JitConfiguration::new(format!("{SECRET}-jit"))
}

/// Takes a slot and starts a runner in it.
pub async fn start(backend: &DockerBackend) -> Result<Instance, Error> {
    let slot = backend.reserve(HOST).expect("a free slot");
    start_in(slot, &runner_name("linux")).await
}

/// Starts a runner in a slot, both steps.
pub async fn start_in(mut slot: Box<dyn Reservation>, name: &str) -> Result<Instance, Error> {
    slot.ready().await?;
    slot.start(&NewRunner { name, jit: &jit() }).await
}

/// Prepares the host, which must succeed, and starts a runner, which must too.
pub async fn started(backend: &DockerBackend) -> Instance {
    let host = prepared(backend).await;
    assert_eq!(host.availability, Availability::Ready, "{}", host.message);
    start(backend).await.unwrap()
}

/// The instance as the backend shows it now.
pub fn shown(backend: &DockerBackend, id: &str) -> Option<Instance> {
    let mut listings = backend.instances();
    assert_eq!(listings.len(), 1);
    listings.remove(0).instances.into_iter().find(|instance| instance.id == id)
}

/// How the instance ended, once that is shown.
pub fn exit(backend: &DockerBackend, id: &str) -> Option<paddock::runner::Exit> {
    match shown(backend, id)?.state {
        InstanceState::Exited(exit) => Some(exit),
        _ => None,
    }
}

/// All that all tests of this process made Paddock log, at every level.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let log = Arc::<Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || Writer(Arc::clone(&writer)))
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    log
});

/// What was logged so far.
pub fn log() -> String {
    String::from_utf8_lossy(&LOG.lock().unwrap()).into_owned()
}

struct Writer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
