//! What `tests/with-controller` has brought up, for the programs that it runs: the simulated GitHub by its control API, the
//! Docker engine, and the API server as its administrator.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::{env, iter};

use bollard::models::EventMessage;
use bollard::query_parameters::{EventsOptionsBuilder, ListContainersOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};
use futures::{Stream, StreamExt, future, stream};
use jiff::Timestamp;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use paddock::api::RunnerScaleSet;
use paddock::runner::Identity;
use serde::Deserialize;
use serde_json::{Value, json};

/// Whatever goes wrong ends the program.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Seconds that a call of the engine may take.
const ENGINE_TIMEOUT: u64 = 120;

/// The parts.
pub struct Stage {
    /// The simulated GitHub.
    pub github: GitHub,
    /// The Docker engine.
    pub docker: Docker,
    /// Those that run beside it, if the program has started any.
    pub others: Vec<Docker>,
    /// The API server.
    pub kube: Client,
    /// The namespace that the controller watches.
    pub namespace: String,
    /// The controller's `--cluster-id`.
    pub cluster: String,
}

impl Stage {
    /// The parts that the environment names.
    pub async fn new() -> Result<Stage> {
        // Two libraries bring TLS, and neither may choose for the other.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(variable("PADDOCK_TEST_KUBECONFIG")?)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let docker = Docker::connect_with_unix("/var/run/docker.sock", ENGINE_TIMEOUT, API_DEFAULT_VERSION)?;
        Ok(Stage {
            github: GitHub {
                http: reqwest::Client::builder().no_proxy().build()?,
                url: variable("PADDOCK_TEST_GITHUB")?,
            },
            docker: docker.negotiate_version().await?,
            others: Vec::new(),
            kube: Client::try_from(config)?,
            namespace: variable("PADDOCK_TEST_NAMESPACE")?,
            cluster: variable("PADDOCK_TEST_ID")?,
        })
    }

    /// The scale sets of the namespace.
    pub fn scale_sets(&self) -> Api<RunnerScaleSet> {
        Api::namespaced(self.kube.clone(), &self.namespace)
    }

    /// All engines.
    pub fn engines(&self) -> impl Iterator<Item = &Docker> {
        iter::once(&self.docker).chain(&self.others)
    }

    /// What becomes of containers with this value of the label `paddock.dev/cluster`, from now on.
    pub fn containers(&self, cluster: &str) -> impl Stream<Item = Result<ContainerEvent>> + Unpin + use<> {
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("label", vec![format!("{}={cluster}", Identity::CLUSTER)]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&Timestamp::now().as_second().to_string())
            .filters(&filters)
            .build();
        let events = self.engines().map(|engine| engine.events(Some(options.clone())).boxed());
        stream::select_all(events)
            .filter_map(async |event| match event {
                Ok(event) => ContainerEvent::read(event).map(Ok),
                Err(error) => Some(Err(error.into())),
            })
            .boxed()
    }

    /// How many containers of the controller there are, ended ones too.
    pub async fn count_containers(&self) -> Result<usize> {
        let label = format!("{}={}", Identity::CLUSTER, self.cluster);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let lists = self.engines().map(|engine| engine.list_containers(Some(options.clone())));
        Ok(future::try_join_all(lists).await?.iter().map(Vec::len).sum())
    }
}

/// An environment variable of `tests/with-controller`.
pub fn variable(name: &str) -> Result<String> {
    env::var(name).map_err(|_| format!("{name} is not set: run this by tests/with-controller").into())
}

/// Something became of a container.
pub struct ContainerEvent {
    /// `create`, `start`, `die`, `destroy`, …
    pub what: String,
    /// The container's name, which is its runner's.
    pub name: String,
    /// When, by the engine.
    pub at: Timestamp,
}

impl ContainerEvent {
    fn read(event: EventMessage) -> Option<ContainerEvent> {
        Some(ContainerEvent {
            what: event.action?,
            name: event.actor?.attributes?.remove("name")?,
            at: Timestamp::from_nanosecond(event.time_nano?.into()).ok()?,
        })
    }
}

/// The simulated GitHub, by its control API.
pub struct GitHub {
    http: reqwest::Client,
    /// Its base.
    pub url: String,
}

/// What the simulated GitHub holds.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Its scale sets.
    pub scale_sets: Vec<Value>,
    /// The runners registered.
    pub runners: Vec<Value>,
    /// All jobs ever queued.
    pub jobs: Vec<Job>,
    /// Polls that wait for a message.
    pub polls_held: usize,
}

/// A job, as the simulated GitHub tells of it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Job {
    /// Its number.
    pub id: i64,
    /// What people see.
    pub name: String,
    /// `queued`, `assigned`, `running` or `completed`.
    pub status: String,
    /// The runner that has or had it.
    pub runner: Option<RunnerName>,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// When a runner took it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

/// A runner, named by a job.
#[derive(Clone, Deserialize)]
pub struct RunnerName {
    /// Its name.
    pub name: String,
}

impl GitHub {
    /// The address that it listens on.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.url.trim_start_matches("http://").parse()?)
    }

    /// Queues jobs of one kind for a scale set; without a duration they last until they are canceled.
    pub async fn queue(&self, count: usize, scale_set: &str, name: &str, seconds: Option<u64>) -> Result<()> {
        let job = json!({
            "repository": "acme/app", "labels": [scale_set], "name": name, "durationMs": seconds.map(|s| s * 1000),
        });
        self.post(&format!("jobs?count={count}"), &job).await
    }

    /// Cancels all jobs that are not over.
    pub async fn cancel_all(&self) -> Result<()> {
        let jobs = self.state().await?.jobs;
        for job in jobs.iter().filter(|job| job.status != "completed") {
            self.post(&format!("jobs/{}/cancel", job.id), &Value::Null).await?;
        }
        Ok(())
    }

    /// Fails all jobs that run, as GitHub does with those of a runner that is silent for ten minutes.
    pub async fn give_up_all(&self) -> Result<()> {
        let jobs = self.state().await?.jobs;
        for job in jobs.iter().filter(|job| job.status == "running") {
            self.post(&format!("jobs/{}/finish?result=failed", job.id), &Value::Null).await?;
        }
        Ok(())
    }

    /// What it holds.
    pub async fn state(&self) -> Result<State> {
        let answer = self.http.get(self.control("state")).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<()> {
        let answer = self.http.post(self.control(path)).json(body).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    fn control(&self, path: &str) -> String {
        format!("{}/_control/{path}", self.url)
    }
}
