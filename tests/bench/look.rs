//! What one look at a scale set costs: what its backends show is taken into the ledger, and the plan is made. Run by
//! `cargo bench --bench look`.
//!
//! The engines are stand-ins that answer a listing and nothing else: this measures what the controller makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::{Json, Router, routing::get};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use harness::eventually;
use jiff::Timestamp;
use paddock::api::{DockerAccess, PullPolicy};
use paddock::api::{RunnerScaleSet, RunnerScaleSetSpec};
use paddock::backend::docker::{DockerBackend, DockerTemplate, Engines, HostSpec, Images, Limits, Login};
use paddock::backend::{Backend, Requeuer};
use paddock::plan::{self, BackendView, Input, Plan, Policy, StartGate};
use paddock::runner::{Identity, Ledger, Observation, Statistics};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::runtime::Runtime;

const CLUSTER: &str = "bench";
/// The scale set that is looked at.
const OURS: &str = "uid-ours";
/// The containers of others belong to sets of this size.
const SET_SIZE: usize = 10;

fn container(number: usize, uid: &str, host: usize) -> Value {
    let id = format!("{host:04}{number:060}");
    json!({
        "Id": id, "Created": 1_790_000_000, "State": "running",
        "Labels": {
            Identity::CLUSTER: CLUSTER, Identity::SCALE_SET_UID: uid, Identity::SCALE_SET: format!("ci/{uid}"),
            Identity::RUNNER: format!("{uid}-{host:02}{number:06}"), Identity::TEMPLATE_HASH: "t", Identity::BACKEND: "rack",
        },
    })
}

/// An engine on this socket that shows these containers and never tells of an event.
async fn serve_engine(socket: &Path, containers: Vec<Value>) {
    let listing = Arc::new(Value::Array(containers));
    let app = Router::new()
        .route("/{version}/version", get(async || Json(json!({"ApiVersion": "1.41", "Version": "20.10"}))))
        .route("/version", get(async || Json(json!({"ApiVersion": "1.41", "Version": "20.10"}))))
        .route("/info", get(async || Json(json!({}))))
        .route("/events", get(std::future::pending::<()>))
        .route("/containers/json", get(async move || Json(listing.as_ref().clone())))
        .route("/images/{*name}", get(async || Json(json!({"Id": "sha256:1"}))));
    let listener = UnixListener::bind(socket).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
}

/// One scale set on hosts where others are too.
struct Bench {
    backend: DockerBackend,
    policy: Policy,
    ledger: Ledger,
    now: Timestamp,
    _engines: Engines,
    _folder: tempdir::Folder,
}

mod tempdir {
    use std::path::PathBuf;

    /// A folder that goes with this.
    pub struct Folder(pub PathBuf);

    impl Folder {
        pub fn new() -> Folder {
            let folder = std::env::temp_dir().join(format!(
                "paddock-look-{}-{}",
                std::process::id(),
                rand::random::<u32>()
            ));
            std::fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

impl Bench {
    /// `ours` runners of the set, and `others` containers of other sets, spread over `hosts` engines.
    async fn new(hosts: usize, ours: usize, others: usize) -> Bench {
        let folder = tempdir::Folder::new();
        let mut specs = Vec::new();
        for host in 0..hosts {
            let socket = folder.0.join(format!("{host}.sock"));
            let own = (0..ours).filter(|n| n % hosts == host).map(|n| container(n, OURS, host));
            let foreign = (0..others).filter(|n| n % hosts == host);
            let foreign = foreign.map(|n| container(n, &format!("uid-{}", n / SET_SIZE), host));
            serve_engine(&socket, own.chain(foreign).collect()).await;
            specs.push(HostSpec {
                name: format!("rack-{host}"),
                endpoint: format!("unix://{}", socket.display()),
                max_runners: Some(100_000),
                login: Login::None,
            });
        }
        let engines = Engines::new(CLUSTER, Requeuer::new(|_| {}));
        let identity = Identity {
            cluster: CLUSTER.to_owned(),
            scale_set_uid: OURS.to_owned(),
            scale_set: format!("ci/{OURS}"),
        };
        let template = DockerTemplate {
            images: Images {
                runner: "runner:1".to_owned(),
                engine: String::new(),
                platform: None,
                policy: PullPolicy::Never,
                credentials: None,
            },
            command: Vec::new(),
            user: None,
            env: Vec::new(),
            limits: Limits::default(),
            network: None,
            docker_access: DockerAccess::None,
            shared_volume: None,
            housekeeping: None,
            hosts: specs,
        };
        let backend = DockerBackend::new("rack", identity, template, &engines);
        eventually("the engines are listed", Duration::from_secs(60), async || {
            let listings = backend.instances();
            let shown: usize = listings.iter().map(|listing| listing.instances.len()).sum();
            (shown >= ours && listings.iter().all(|listing| listing.listed_at.is_some())).then_some(())
        })
        .await;
        let spec: RunnerScaleSetSpec = serde_json::from_value(json!({
            "github": {"url": "https://github.com/acme", "credentialsSecretRef": {"name": "github"}},
            "maxRunners": 100_000, "backends": [{"name": "rack", "docker": {}}],
        }))
        .unwrap();
        let policy = Policy::from_spec(&RunnerScaleSet::new("linux", spec).spec).unwrap();
        let now = Timestamp::now();
        let mut ledger = Ledger::new();
        let assigned = u32::try_from(ours).unwrap();
        ledger.count(Statistics { assigned, running: assigned, ..Statistics::default() }, now);
        Bench { backend, policy, ledger, now, _engines: engines, _folder: folder }
    }

    fn look(&mut self) -> Plan {
        let observations: Vec<Observation> =
            self.backend.instances().into_iter().map(|listing| listing.observed("rack")).collect();
        self.ledger.observe(&observations, self.now);
        let mut backends = vec![BackendView {
            name: "rack".to_owned(),
            max_runners: None,
            template_hash: self.backend.template_hash().to_owned(),
            hosts: self.backend.hosts(),
        }];
        plan::set_aside(&mut backends, self.ledger.failures(), self.now);
        let input = Input {
            policy: &self.policy,
            ledger: &self.ledger,
            backends: &backends,
            start_gate: StartGate::Open,
            now: self.now,
        };
        let plan = plan::plan(&input);
        self.ledger.mark_surplus(&plan.surplus, self.now);
        plan
    }
}

fn look(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("look");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for others in [100, 1_000, 10_000] {
        let mut bench = runtime.block_on(Bench::new(10, 10, others));
        let id = BenchmarkId::new("10 runners, others on the hosts", others);
        group.bench_function(id, |b| b.iter(|| black_box(bench.look())));
    }
    for ours in [100, 1_000, 5_000, 10_000] {
        let mut bench = runtime.block_on(Bench::new(10, ours, 0));
        let id = BenchmarkId::new("runners of the set", ours);
        group.bench_function(id, |b| b.iter(|| black_box(bench.look())));
    }
    group.finish();
}

criterion_group!(benches, look);
criterion_main!(benches);
