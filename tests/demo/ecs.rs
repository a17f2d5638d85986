//! The demo over Amazon ECS: five jobs in five tasks on a simulated account, one Spot interruption, and what status and events
//! say of it. `run-ecs` brings up the parts.

mod stage;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use paddock::api::{RunnerScaleSet, RunnerScaleSetStatus};
use serde_json::{Value, json};
use stage::{Result, Stage};
use testkit::ecs::{ClusterSpec, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY, Delays, Lag, SimEcs, Status};

/// The name in `deploy/samples/ecs-fargate.yaml`.
const SCALE_SET: &str = "fargate";
/// How long each job takes, in seconds.
const JOBS: [u64; 5] = [20, 21, 22, 23, 24];
/// How long any part of the demo may take. An end is seen within half a minute.
const DEADLINE: Duration = Duration::from_secs(120);

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::new().await?;
    let ecs = account().await?;
    let began = Timestamp::now();
    let tell =
        |what: &str| println!("{:7.2}  ── {what}", Timestamp::now().duration_since(began).as_secs_f64());
    apply(&stage, &ecs).await?;
    let mut last = String::new();
    tell("kubectl apply: waits until the scale set is registered at GitHub and listening");
    let mut until = Until { stage: &stage, began, last: &mut last };
    until.is("Ready", |s| s.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True")).await?;

    for (number, seconds) in (1..).zip(JOBS) {
        stage.github.queue(1, SCALE_SET, &format!("build {number}"), Some(seconds)).await?;
    }
    tell(&format!("{} jobs are queued at GitHub, of {JOBS:?} s", JOBS.len()));
    until.is("five busy runners", |s| s.busy_runners == 5).await?;
    ecs.wait_until(DEADLINE, |s| s.tasks_in(Status::Running) == 5).await?;
    let spot = ecs.look(|s| s.tasks().find(|task| task.is_spot()).map(|task| task.id.clone()));
    let spot = spot.ok_or("no task is on Spot")?;
    tell(&format!("AWS takes back the Spot capacity of task {spot}"));
    ecs.interrupt_spot(&spot)?;
    until
        .is("the interruption told", |s| s.recent_failures.iter().any(|f| f.reason == "SpotInterruption"))
        .await?;
    for note in events(&stage, "RunnerFailed").await? {
        tell(&format!("kubectl get events: {note}"));
    }
    until.is("all jobs done and cleared away", |s| s.current_runners == 0).await?;

    tell(&format!("kubectl delete rss {SCALE_SET}"));
    // Ten minutes of silence later: GitHub gives up the runner that was interrupted.
    stage.github.give_up_all().await?;
    stage.scale_sets().delete(SCALE_SET, &DeleteParams::default()).await?;
    let gone = async {
        while stage.scale_sets().get_opt(SCALE_SET).await?.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Result::Ok(())
    };
    tokio::time::timeout(DEADLINE, gone).await.map_err(|_| "the scale set is not gone")??;
    let left = stage.github.state().await?;
    let providers = ecs.look(|s| {
        let mut providers = BTreeMap::<String, usize>::new();
        s.tasks()
            .for_each(|task| *providers.entry(task.provider.clone().unwrap_or_default()).or_default() += 1);
        providers
    });
    let tasks =
        ecs.look(|s| s.tasks().filter(|task| task.status != Status::Stopped && !task.stop_wanted).count());
    println!("\nTasks by capacity provider: {providers:?}");
    let (scale_sets, runners) = (left.scale_sets.len(), left.runners.len());
    println!("Left at GitHub: {scale_sets} scale sets, {runners} runners. Left on ECS: {tasks} tasks.");
    if scale_sets + runners + tasks == 0 { Ok(()) } else { Err("something is left".into()) }
}

/// An account with a cluster on Fargate, whose tasks are processes.
async fn account() -> Result<SimEcs> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(|examples| examples.parent()).ok_or("no folder")?;
    let account = SimEcs::builder()
        .cluster(ClusterSpec::new("runners"))
        .delays(Delays::each(Duration::from_millis(700)))
        .lag(Lag::both(Duration::from_secs(1)))
        .runner(folder.join("fake-runner"));
    Ok(account.start().await?)
}

/// Applies the sample, with what is other here than at GitHub and AWS.
async fn apply(stage: &Stage, ecs: &SimEcs) -> Result<()> {
    let params = PatchParams::apply("demo").force();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "aws"},
        "stringData": {"aws_access_key_id": DEFAULT_ACCESS_KEY, "aws_secret_access_key": DEFAULT_SECRET_KEY},
    });
    let secrets: Api<Secret> = Api::namespaced(stage.kube.clone(), &stage.namespace);
    secrets.patch("aws", &params, &Patch::Apply(secret)).await?;
    let mut sample: Value = serde_saphyr::from_str(include_str!("../../deploy/samples/ecs-fargate.yaml"))?;
    let spec = &mut sample["spec"];
    spec["github"]["url"] = format!("{}/acme", stage.github.url).into();
    spec["github"]["allowInsecure"] = true.into();
    spec["backends"][0]["ecs"]["endpointUrl"] = ecs.url().into();
    stage.scale_sets().patch(SCALE_SET, &params, &Patch::Apply(sample)).await?;
    Ok(())
}

/// The notes of the events of that reason.
async fn events(stage: &Stage, reason: &str) -> Result<Vec<String>> {
    let events: Api<Event> = Api::namespaced(stage.kube.clone(), &stage.namespace);
    let found = async {
        loop {
            let events = events.list(&ListParams::default()).await?.items;
            let notes: Vec<String> = events
                .into_iter()
                .filter(|e| e.reason.as_deref() == Some(reason))
                .filter_map(|e| e.note)
                .collect();
            if !notes.is_empty() {
                return Result::Ok(notes);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.map_err(|_| "there is no such event")?
}

/// Follows the status of the scale set, and prints it as it changes.
struct Until<'a> {
    stage: &'a Stage,
    began: Timestamp,
    last: &'a mut String,
}

impl Until<'_> {
    async fn is(&mut self, what: &str, so: impl Fn(&RunnerScaleSetStatus) -> bool) -> Result<()> {
        let name = watcher::Config::default().fields(&format!("metadata.name={SCALE_SET}"));
        let mut objects = watcher(self.stage.scale_sets(), name).boxed();
        let follow = async {
            while let Some(event) = objects.next().await {
                if let watcher::Event::Apply(object) | watcher::Event::InitApply(object) = event? {
                    self.print(&object);
                    if object.status.as_ref().is_some_and(&so) {
                        return Ok(());
                    }
                }
            }
            Err("the news ended".into())
        };
        tokio::time::timeout(DEADLINE, follow).await.map_err(|_| format!("not {what} in time"))?
    }

    fn print(&mut self, object: &RunnerScaleSet) {
        let Some(status) = &object.status else { return };
        let (pending, idle, busy) = (status.pending_runners, status.idle_runners, status.busy_runners);
        let failure = status.recent_failures.first();
        let failure = failure.map(|f| format!("  {}: {}", f.reason, f.message)).unwrap_or_default();
        let line = format!("pending {pending}  idle {idle}  busy {busy}{failure}");
        if line != *self.last {
            println!("{:7.2}  {line}", Timestamp::now().duration_since(self.began).as_secs_f64());
            *self.last = line;
        }
    }
}
