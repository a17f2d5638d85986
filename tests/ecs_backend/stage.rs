//! What every test stands on: a simulated account, a provider that looks at it at a quick pace, and the wake-ups that came.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use paddock::backend::ecs::{EcsProvider, Timing};
use paddock::backend::{
    Availability, Backend, Error, HostState, NewRunner, Provider, References, Requeuer, ResolveError,
    Resolved,
};
use paddock::runner::{Exit, Identity, Instance, InstanceState, JitConfiguration, runner_name};
use serde_json::{Value, json};
use testkit::ecs::{DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY, Delays, Lag, SimEcs, SimEcsBuilder, Task};

/// The cluster that the simulation has.
pub const CLUSTER: &str = "default";
/// What no output may show.
pub const SECRET: &str = "planted-secret";
/// How long to wait for what must come. Generous: other tests run beside.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Ten times as quick as it is at AWS, or more.
pub const QUICK: Timing = Timing {
    moving: Duration::from_millis(100),
    resting: Duration::from_millis(300),
    settles: Duration::from_secs(3),
};

/// An account and a controller of one Kubernetes cluster.
pub struct Stage {
    pub ecs: SimEcs,
    pub provider: EcsProvider,
    woken: Arc<Mutex<HashMap<String, usize>>>,
}

/// An account in which all goes quickly.
pub fn ecs() -> SimEcsBuilder {
    SimEcs::builder()
        .delays(Delays::each(Duration::from_millis(20)))
        .lag(Lag::both(Duration::ZERO))
        .stop_timeout(Duration::from_secs(1))
}

impl Stage {
    pub async fn new() -> Stage {
        Stage::on(ecs()).await
    }

    pub async fn on(ecs: SimEcsBuilder) -> Stage {
        LazyLock::force(&LOG);
        let woken = Arc::<Mutex<HashMap<String, usize>>>::default();
        let ecs = ecs.start().await.unwrap();
        Stage { provider: provider(&woken), ecs, woken }
    }

    /// A second controller of the same Kubernetes cluster, that knows nothing yet.
    pub fn fresh_provider(&self) -> EcsProvider {
        provider(&self.woken)
    }

    /// How often a scale set was woken.
    pub fn woken(&self, scale_set: &str) -> usize {
        self.woken.lock().unwrap().get(scale_set).copied().unwrap_or_default()
    }

    /// A backend's block: Fargate, a managed task definition and the account's keys, with these changes.
    pub fn spec(&self, changes: Value) -> paddock::api::Backend {
        let mut ecs = json!({
            "region": self.ecs.region(), "cluster": CLUSTER, "endpointUrl": self.ecs.url(),
            "credentialsSecretRef": {"name": "aws"},
            "managedTaskDefinition": {"logGroup": "/runners", "executionRoleArn": "arn:aws:iam::123456789012:role/x"},
            "launchType": "FARGATE", "subnets": ["subnet-1"],
        });
        for (name, value) in changes.as_object().unwrap() {
            ecs[name] = value.clone();
        }
        let ecs = ecs.as_object_mut().unwrap();
        ecs.retain(|_, value| !value.is_null());
        serde_json::from_value(json!({"name": "aws", "ecs": ecs})).unwrap()
    }

    /// The backend of a scale set.
    pub async fn backend(&self, scale_set: &str, changes: Value) -> Arc<dyn Backend> {
        self.backend_of(&self.provider, scale_set, changes).await
    }

    /// The backend of a scale set, of one of several controllers.
    pub async fn backend_of(
        &self,
        provider: &EcsProvider,
        scale_set: &str,
        changes: Value,
    ) -> Arc<dyn Backend> {
        let resolved = resolve(provider, &self.spec(changes)).await.unwrap();
        resolved.open("aws", &["aws".to_owned()], &identity(scale_set))
    }

    /// The tasks of the account.
    pub fn tasks(&self) -> Vec<Task> {
        self.ecs.look(|state| state.tasks().cloned().collect())
    }
}

fn provider(woken: &Arc<Mutex<HashMap<String, usize>>>) -> EcsProvider {
    let woken = Arc::clone(woken);
    let count = move |scale_set: &str| *woken.lock().unwrap().entry(scale_set.to_owned()).or_default() += 1;
    EcsProvider::with_timing("cluster-1", Requeuer::new(count), QUICK)
}

/// Reads a block with the Secrets that there are.
pub async fn resolve(
    provider: &EcsProvider,
    spec: &paddock::api::Backend,
) -> Result<Arc<dyn Resolved>, ResolveError> {
    provider.resolve(spec, &Secrets).await
}

pub fn identity(scale_set: &str) -> Identity {
    Identity {
        cluster: "cluster-1".to_owned(),
        scale_set_uid: scale_set.to_owned(),
        scale_set: format!("ci/{scale_set}"),
    }
}

/// The Secrets of the namespace.
struct Secrets;

#[async_trait]
impl References for Secrets {
    async fn secret_text(&self, field: &str, secret: &str, key: &str) -> Result<String, ResolveError> {
        let value = match (secret, key) {
            ("aws" | "temporary", "aws_access_key_id") => DEFAULT_ACCESS_KEY,
            ("aws" | "temporary", "aws_secret_access_key") => DEFAULT_SECRET_KEY,
            ("unknown", "aws_access_key_id") => "AKIAUNKNOWN000000000",
            ("unknown", "aws_secret_access_key") => "planted-secret-key",
            ("unknown" | "temporary", "aws_session_token") => "planted-secret-token",
            ("app", "token") => "planted-secret-env",
            ("app", "large") => return Ok("planted-secret-env".repeat(500)),
            _ => {
                let message = format!("{field}: Secret `{secret}` has no key `{key}`");
                return Err(ResolveError::unusable("SecretMissing", message));
            }
        };
        Ok(value.to_owned())
    }
}

/// Waits until `look` sees what it looks for.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "still not so after {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The only host, as the backend shows it.
pub fn host(backend: &dyn Backend) -> HostState {
    let mut hosts = backend.hosts();
    assert_eq!(hosts.len(), 1);
    hosts.remove(0)
}

/// Waits until the cluster takes starts.
pub async fn ready(backend: &dyn Backend) {
    until("the cluster takes starts", || (host(backend).availability == Availability::Ready).then_some(()))
        .await;
}

/// A JIT configuration that is recognised wherever it turns up.
pub fn jit() -> JitConfiguration {
    JitConfiguration::new(format!("{SECRET}-jit"))
}

/// Waits until the cluster takes starts, and starts a runner, both steps.
pub async fn start(backend: &dyn Backend) -> Result<Instance, Error> {
    ready(backend).await;
    start_named(backend, &runner_name("linux")).await
}

/// Starts a runner of that name, both steps.
pub async fn start_named(backend: &dyn Backend, name: &str) -> Result<Instance, Error> {
    start_on(backend, CLUSTER, name).await
}

/// Starts a runner of that name in a cluster, both steps.
pub async fn start_on(backend: &dyn Backend, cluster: &str, name: &str) -> Result<Instance, Error> {
    let mut place = backend.reserve(cluster).expect("the cluster takes starts");
    place.ready().await?;
    place.start(&NewRunner { name, jit: &jit() }).await
}

/// What the backend shows now.
pub fn instances(backend: &dyn Backend) -> Vec<Instance> {
    let mut listings = backend.instances();
    assert_eq!(listings.len(), 1);
    listings.remove(0).instances
}

/// The instance as the backend shows it now.
pub fn shown(backend: &dyn Backend, id: &str) -> Option<Instance> {
    instances(backend).into_iter().find(|instance| instance.id == id)
}

/// Waits until an instance is shown to run.
pub async fn running(backend: &dyn Backend, id: &str) {
    until("it runs", || (shown(backend, id)?.state == InstanceState::Running).then_some(())).await;
}

/// Waits until an instance is shown to have ended.
pub async fn ended(backend: &dyn Backend, id: &str) -> Exit {
    until("its end is seen", || match shown(backend, id)?.state {
        InstanceState::Exited(exit) => Some(exit),
        _ => None,
    })
    .await
}

/// All that all tests of this process made Paddock log, at every level.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt;
    let log = Arc::<Mutex<Vec<u8>>>::default();
    let writer = Arc::clone(&log);
    // As `paddock::telemetry` has it: dependencies print what they send below `info`.
    let ceiling =
        Targets::new().with_default(tracing::Level::INFO).with_target("paddock", tracing::Level::TRACE);
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || Writer(Arc::clone(&writer)));
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(ceiling));
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
