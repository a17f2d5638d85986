//! The figures of a controller at work, within `tests/with-controller`: how fast a burst of jobs and a lost spare are
//! answered, what is written to the API server, how much memory it takes. Prints a table, and writes it to the file named.

use std::fs;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::{StreamExt, TryStreamExt, future, stream as streams};
use harness::stage::{ContainerEvent, Result, Stage, variable};
use harness::{Engine, found_every};
use jiff::Timestamp;
use kube::api::{DeleteParams, GetParams, ListParams, PartialObjectMeta, PostParams, Request};
use paddock::api::RunnerScaleSet;
use paddock::runner::Identity;
use serde_json::{Value, json};

/// The scale set that the jobs are for.
const SCALE_SET: &str = "bench";
/// A burst of jobs on the machine's own engine, and one on three engines.
const BURST: Burst = Burst { scale_set: SCALE_SET, jobs: 30, rounds: 11, concurrency: [4, 8], goal: 1.15 };
const FLEET: Burst = Burst { scale_set: "fleet", jobs: 60, rounds: 11, concurrency: [6, 12], goal: 1.05 };
/// How long each of them would take, in seconds, were it not cancelled once all runners are up.
const BURST_JOB: u64 = 60;
/// How often a job that comes alone is measured.
const LONE: usize = 15;
/// How often a spare is killed.
const KILLS: usize = 20;
/// Idle scale sets whose memory is measured.
const SETS: usize = 100;
/// The longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(180);
/// Asking costs what is measured.
const ASKED_EVERY: Duration = Duration::from_millis(100);
/// Status is written at most this long after the last change, with a margin.
const WRITTEN: Duration = Duration::from_secs(4);
/// Between two measurements of time.
const PAUSE: Duration = Duration::from_secs(1);

/// A burst that is measured against the same containers made through the Docker API alone.
struct Burst {
    scale_set: &'static str,
    jobs: usize,
    /// How often it is measured, and the same by the Docker API alone at each concurrency.
    rounds: usize,
    /// Containers made at once through the Docker API alone, over all engines; the best counts.
    concurrency: [usize; 2],
    /// The ratio of the two that is wanted at most.
    goal: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut stage = Stage::new().await?;
    let mut figures = Figures::default();
    memory(&stage, &mut figures).await?;
    writes(&stage, &mut figures).await?;
    lone(&stage, &mut figures).await?;
    bursts(&stage, &BURST, &mut figures).await?;
    spares(&stage, &mut figures).await?;
    fleet(&mut stage, &mut figures).await?;
    figures.note("memory, the most at any time", "MiB", controller_memory("VmHWM")?, None);
    let size = fs::metadata(format!("/proc/{}/exe", variable("PADDOCK_TEST_CONTROLLER")?))?.len();
    figures.note("size of the binary", "MiB", mebibytes(size), None);
    figures.print();
    let file = std::env::args().nth(1).ok_or("usage: bench FILE")?;
    Ok(fs::write(file, serde_json::to_string_pretty(&figures.list)?)?)
}

/// Resident memory with one scale set, which stays for the rest, and with many.
async fn memory(stage: &Stage, figures: &mut Figures) -> Result<()> {
    create(stage, SCALE_SET, 0, json!({})).await?;
    polling(stage, 1).await?;
    figures.note("memory with 1 idle set", "MiB", controller_memory("VmRSS")?, None);
    let others: Vec<String> = (1..SETS).map(|n| format!("idle-{n}")).collect();
    for name in &others {
        create(stage, name, 0, json!({})).await?;
    }
    polling(stage, SETS).await?;
    let label = format!("memory with {SETS} idle sets");
    figures.note(&label, "MiB", controller_memory("VmRSS")?, None);
    for name in &others {
        stage.scale_sets().delete(name, &DeleteParams::default()).await?;
    }
    until("the idle sets are deleted", async || {
        Ok(stage.scale_sets().list(&ListParams::default()).await?.items.len() == 1)
    })
    .await
}

/// Writes to the API server for one job, and for many at once.
async fn writes(stage: &Stage, figures: &mut Figures) -> Result<()> {
    for (jobs, seconds, label, goal) in
        [(1, 5, "API writes for an isolated job", 5.0), (50, 15, "API writes for a burst of 50", 25.0)]
    {
        quiet(stage, WRITTEN).await?;
        let before = count_writes(stage).await?;
        stage.github.queue(jobs, SCALE_SET, "write", Some(seconds)).await?;
        until("the jobs are over", async || {
            let state = stage.github.state().await?;
            Ok(state.jobs.iter().all(|job| job.status == "completed"))
        })
        .await?;
        quiet(stage, WRITTEN).await?;
        figures.note(label, "", count_writes(stage).await? - before, Some(goal));
    }
    Ok(())
}

/// A job that comes alone, from its queueing to its container's start.
async fn lone(stage: &Stage, figures: &mut Figures) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..LONE {
        times.push(burst(stage, SCALE_SET, 1).await?);
    }
    let label = format!("1 job, from queueing to its container's start, p50 of {LONE}");
    figures.note(&label, "s", median(&mut times), None);
    Ok(())
}

/// A burst of jobs, from their queueing to the last container's start; against the same containers made through the
/// Docker API alone. Taken in turns, so that both meet the same weather.
async fn bursts(stage: &Stage, measured: &Burst, figures: &mut Figures) -> Result<()> {
    let Burst { scale_set, jobs, rounds, concurrency, goal } = *measured;
    let template = template(stage).await?;
    let mut ours = Vec::new();
    let mut alone = concurrency.map(|_| Vec::new());
    for round in 0..rounds {
        for turn in 0..=concurrency.len() {
            match (round + turn) % (concurrency.len() + 1) {
                0 => ours.push(burst(stage, scale_set, jobs).await?),
                n => alone[n - 1].push(docker_alone(stage, &template, jobs, concurrency[n - 1]).await?),
            }
        }
        let last = |all: &[f64]| all.last().copied().unwrap_or(f64::NAN);
        let alone: Vec<String> = alone.iter().map(|all| format!("{:.2}", last(all))).collect();
        eprintln!("   round {}: {:.2} s; Docker alone {} s", round + 1, last(&ours), alone.join(" and "));
    }
    let mut best = (f64::INFINITY, f64::INFINITY);
    for (times, concurrency) in alone.iter_mut().zip(concurrency) {
        let label = format!("{jobs} containers by Docker alone, {concurrency} at once, p50 of {rounds}");
        let median = median(times);
        figures.note(&label, "s", median, None);
        best = (best.0.min(median), best.1.min(times[0]));
    }
    let median = median(&mut ours);
    let engines = stage.engines().count();
    let label = format!("{jobs} jobs, engines {engines}: from queueing to the last start, p50 of {rounds}");
    figures.note(&label, "s", median, None);
    figures.note("ratio of the two", "", median / best.0, Some(goal));
    figures.note("ratio of the fastest of each", "", ours[0] / best.1, None);
    Ok(())
}

async fn burst(stage: &Stage, scale_set: &str, count: usize) -> Result<f64> {
    quiet(stage, PAUSE).await?;
    let began = Timestamp::now();
    let started = stage.containers(&stage.cluster);
    stage.github.queue(count, scale_set, "burst", Some(BURST_JOB)).await?;
    let last = nth(started, "start", began, count).await?;
    stage.github.cancel_all().await?;
    Ok(seconds(began, last.at))
}

/// The create options of a container that the controller made, so that those made alone are the same in all but whose they
/// are: they carry another cluster's id, and do not connect to GitHub.
async fn template(stage: &Stage) -> Result<ContainerCreateBody> {
    quiet(stage, PAUSE).await?;
    let began = Timestamp::now();
    let started = stage.containers(&stage.cluster);
    stage.github.queue(1, SCALE_SET, "template", Some(BURST_JOB)).await?;
    let runner = nth(started, "start", began, 1).await?.name;
    let found = stage.docker.inspect_container(&runner, None::<InspectContainerOptions>).await?;
    stage.github.cancel_all().await?;
    let mut config = found.config.ok_or("a container without a configuration")?;
    let labels = config.labels.get_or_insert_default();
    labels.insert(Identity::CLUSTER.to_owned(), alone_cluster(stage));
    config.env.get_or_insert_default().push("FAKE_RUNNER_NEVER_CONNECT=1".to_owned());
    Ok(ContainerCreateBody {
        image: config.image,
        entrypoint: config.entrypoint,
        cmd: config.cmd,
        user: config.user,
        env: config.env,
        labels: config.labels,
        host_config: found.host_config,
        ..ContainerCreateBody::default()
    })
}

/// Removed with the run, as it begins with its id.
fn alone_cluster(stage: &Stage) -> String {
    format!("{}-alone", stage.cluster)
}

async fn docker_alone(
    stage: &Stage,
    template: &ContainerCreateBody,
    count: usize,
    concurrency: usize,
) -> Result<f64> {
    quiet(stage, PAUSE).await?;
    let began = Timestamp::now();
    let started = stage.containers(&alone_cluster(stage));
    let engines: Vec<&Docker> = stage.engines().collect();
    let launch = |number: usize| {
        let engine = engines[number % engines.len()];
        async move {
            let name = format!("{}-{number}", alone_cluster(stage));
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            engine.create_container(Some(options), template.clone()).await?;
            engine.start_container(&name, None::<StartContainerOptions>).await?;
            Ok((name, engine))
        }
    };
    let launches = streams::iter((0..count).map(launch)).buffer_unordered(concurrency);
    let (last, made) =
        future::try_join(nth(started, "start", began, count), launches.try_collect::<Vec<_>>()).await?;
    for (name, engine) in made {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        engine.remove_container(&name, Some(options)).await?;
    }
    Ok(seconds(began, last.at))
}

/// A burst over the machine's own engine and two more, by a scale set of its own. Its runners do not connect to GitHub, as the
/// containers made alone do not: the way from an engine with a network of its own would be measured.
async fn fleet(stage: &mut Stage, figures: &mut Figures) -> Result<()> {
    stage.scale_sets().delete("spare", &DeleteParams::default()).await?;
    quiet(stage, WRITTEN).await?;
    let github = stage.github.address()?;
    let engines = [Engine::start("bench-1", github).await, Engine::start("bench-2", github).await];
    let mut hosts = vec![json!({"name": "own", "endpoint": "unix:///var/run/docker.sock"})];
    for (number, engine) in engines.iter().enumerate() {
        hosts.push(json!({"name": format!("more-{number}"), "endpoint": engine.endpoint()}));
        stage.others.push(engine.docker.clone());
    }
    let env = json!([{"name": "FAKE_RUNNER_NEVER_CONNECT", "value": "1"}]);
    create(stage, FLEET.scale_set, 0, json!({"hosts": hosts, "env": env})).await?;
    polling(stage, 2).await?;
    bursts(stage, &FLEET, figures).await
}

/// An idle spare that dies: from its end to the start of the next.
async fn spares(stage: &Stage, figures: &mut Figures) -> Result<()> {
    quiet(stage, PAUSE).await?;
    create(stage, "spare", 1, json!({})).await?;
    let mut times = Vec::new();
    for _ in 0..KILLS {
        let spare = connected_spare(stage).await?;
        let began = Timestamp::now();
        let ended = nth(stage.containers(&stage.cluster), "die", began, 1);
        let started = nth(stage.containers(&stage.cluster), "start", began, 1);
        let kill = async { Ok(stage.docker.kill_container(&spare, None::<KillContainerOptions>).await?) };
        let (ended, started, ()) = future::try_join3(ended, started, kill).await?;
        times.push(seconds(ended.at, started.at));
    }
    let label = format!("a spare's end to the next one's start, p50 of {KILLS}");
    figures.note(&label, "s", median(&mut times), Some(0.5));
    let slowest = times.iter().copied().fold(0.0, f64::max);
    figures.note("the slowest of them", "s", slowest, None);
    Ok(())
}

/// The one runner, once it waits for a job.
async fn connected_spare(stage: &Stage) -> Result<String> {
    let mut name = None;
    until("one spare waits for a job", async || {
        let runners = stage.github.state().await?.runners;
        let mut connected = runners.iter().filter(|runner| runner["connected"] == true);
        name = connected.next().and_then(|runner| runner["name"].as_str()).map(str::to_owned);
        Ok(runners.len() == 1 && name.is_some())
    })
    .await?;
    name.ok_or_else(|| "no spare".into())
}

/// Creates a scale set, with further fields of its backend. Runners that are left from one round go before the next.
async fn create(stage: &Stage, name: &str, min_runners: u32, further: Value) -> Result<()> {
    let mut docker = json!({
        "image": "paddock.test/runner:1", "network": "host", "housekeeping": {"diskGuard": {"enabled": false}},
    });
    docker.as_object_mut().ok_or("an object")?.extend(further.as_object().cloned().unwrap_or_default());
    let object: RunnerScaleSet = serde_json::from_value(json!({
        "apiVersion": "paddock.dev/v1alpha1", "kind": "RunnerScaleSet", "metadata": {"name": name},
        "spec": {
            "github": {
                "url": format!("{}/acme", stage.github.url), "allowInsecure": true,
                "credentialsSecretRef": {"name": "github"},
            },
            "minRunners": min_runners, "maxRunners": 60, "scaleDown": {"delay": "0s"},
            "backends": [{"name": "docker", "docker": docker}],
        },
    }))?;
    stage.scale_sets().create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Waits until so many scale sets are ready and wait for messages.
async fn polling(stage: &Stage, count: usize) -> Result<()> {
    until("all sets are listening", async || {
        Ok(stage.github.state().await?.polls_held == count && count_ready(stage).await? == count)
    })
    .await
}

async fn count_ready(stage: &Stage) -> Result<usize> {
    let sets = stage.scale_sets().list(&ListParams::default()).await?;
    let statuses = sets.items.into_iter().filter_map(|set| set.status);
    let mut ready = statuses.map(|status| status.conditions);
    let is_ready = |conditions: &Vec<_>| {
        let mut conditions = conditions.iter();
        conditions.any(|c: &k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition| {
            c.type_ == "Ready" && c.status == "True"
        })
    };
    Ok(ready.by_ref().filter(is_ready).count())
}

/// Waits until for so long no container has been there and no scale set has changed.
async fn quiet(stage: &Stage, long: Duration) -> Result<()> {
    let mut last = (String::new(), Instant::now());
    until("all is quiet", async || {
        let sets = stage.scale_sets().list_metadata(&ListParams::default()).await?;
        let version = |set: &PartialObjectMeta<_>| set.metadata.resource_version.clone().unwrap_or_default();
        let versions: String = sets.items.iter().map(version).collect();
        if versions != last.0 || stage.count_containers().await? > 0 {
            last = (versions, Instant::now());
        }
        Ok(last.1.elapsed() > long)
    })
    .await
}

/// Writes to scale sets and events, by the API server's own count. (It writes leases for itself.)
async fn count_writes(stage: &Stage) -> Result<f64> {
    let request = Request::new("").get("metrics", &GetParams::default())?;
    let metrics = stage.kube.request_text(request).await?;
    let has = |line: &str, label: &str, values: &[&str]| {
        values.iter().any(|value| line.contains(&format!("{label}=\"{value}\"")))
    };
    let counted = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{")
            && has(line, "group", &["paddock.dev", "events.k8s.io"])
            && has(line, "verb", &["POST", "PUT", "PATCH", "APPLY", "DELETE"])
    });
    let values = counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

/// Asks again and again.
async fn until(what: &str, mut reached: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    // What is found is the state, or what keeps it from being asked for.
    let find = async || reached().await.map(|so| so.then_some(())).transpose();
    found_every(ASKED_EVERY, DEADLINE, find)
        .await
        .unwrap_or_else(|| Err(format!("not so in {} s: {what}", DEADLINE.as_secs()).into()))
}

/// The nth event of that kind since then.
async fn nth(
    events: impl futures::Stream<Item = Result<ContainerEvent>> + Unpin,
    what: &str,
    since: Timestamp,
    n: usize,
) -> Result<ContainerEvent> {
    let wanted = events.try_filter(|event| future::ready(event.what == what && event.at >= since));
    let mut wanted = wanted.skip(n - 1);
    let event = tokio::time::timeout(DEADLINE, wanted.next()).await;
    let late = |_| format!("not {n} containers {what} within {} s", DEADLINE.as_secs());
    event.map_err(late)?.ok_or("the engine's events ended")?
}

/// A line of the controller's `/proc/PID/status`, in MiB.
fn controller_memory(field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", variable("PADDOCK_TEST_CONTROLLER")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(mebibytes(kibibytes.ok_or("the controller has ended")? * 1024))
}

fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// Sorts the times, too.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0
}

/// What was measured.
#[derive(Default)]
struct Figures {
    list: Vec<Value>,
}

impl Figures {
    fn note(&mut self, name: &str, unit: &str, value: f64, goal: Option<f64>) {
        eprintln!("   {name}: {value:.2} {unit}");
        self.list.push(json!({"name": name, "unit": unit, "value": value, "goal": goal}));
    }

    fn print(&self) {
        println!("\n{:<66} {:>8} {:<4} {:>6}", "FIGURE", "VALUE", "", "GOAL");
        for figure in &self.list {
            let (value, goal) = (figure["value"].as_f64(), figure["goal"].as_f64());
            let missed = goal.zip(value).is_some_and(|(goal, value)| value > goal);
            println!(
                "{:<66} {:>8.2} {:<4} {:>6} {}",
                figure["name"].as_str().unwrap_or_default(),
                value.unwrap_or(f64::NAN),
                figure["unit"].as_str().unwrap_or_default(),
                goal.map(|goal| format!("≤{goal}")).unwrap_or_default(),
                if missed { "MISSED" } else { "" },
            );
        }
    }
}
