//! The second half of the demo: waits for the sample scale set, queues jobs, prints what happens to the fleet as it happens,
//! deletes the set, looks at what is left, and sums up. `play` is its first half.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use futures::{Stream, StreamExt};
use harness::stage::{ContainerEvent, Job, Result, Stage};
use jiff::Timestamp;
use kube::api::DeleteParams;
use kube::runtime::watcher::{self, Event, watcher};
use paddock::api::{RunnerPhase, RunnerScaleSet, RunnerScaleSetStatus};

/// The name in `deploy/samples/docker.yaml`.
const SCALE_SET: &str = "linux";
/// How long each job takes, in seconds.
const JOBS: [u64; 5] = [3, 4, 5, 6, 7];
/// How long any part of the demo may take.
const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::new().await?;
    let mut live = Live::begin(&stage);
    live.tell("kubectl apply: waits until the scale set is registered at GitHub and listening");
    println!("      s  {}", Row::HEADER);
    live.until("Ready", |seen| seen.row.ready == "True").await?;

    for (number, seconds) in (1..).zip(JOBS) {
        let name = format!("build {number}");
        stage.github.queue(1, SCALE_SET, &name, Some(seconds)).await?;
    }
    live.tell(format!("{} jobs are queued at GitHub, of {JOBS:?} s", JOBS.len()));
    live.until("all jobs done and cleared away", Seen::is_over).await?;

    live.tell(format!("kubectl delete rss {SCALE_SET}"));
    let deleted_at = Timestamp::now();
    stage.scale_sets().delete(SCALE_SET, &DeleteParams::default()).await?;
    live.until("deleted", |seen| seen.deleted_at.is_some()).await?;

    let seen = live.seen;
    let left = stage.github.state().await?;
    let containers = stage.count_containers().await?;
    let (scale_sets, runners) = (left.scale_sets.len(), left.runners.len());
    println!(
        "\nLeft at GitHub: {scale_sets} scale sets, {runners} runners. Left in Docker: {containers} containers.\n"
    );
    seen.sum_up(&left.jobs, deleted_at);
    match scale_sets + runners + containers {
        0 => Ok(()),
        _ => Err("something is left".into()),
    }
}

/// What happens, printed and noted as it does.
struct Live<'a> {
    news: Box<dyn Stream<Item = Result<News>> + Unpin + 'a>,
    seen: Seen,
}

enum News {
    ScaleSet(Box<Event<RunnerScaleSet>>),
    Container(ContainerEvent),
}

impl<'a> Live<'a> {
    fn begin(stage: &'a Stage) -> Live<'a> {
        let name = watcher::Config::default().fields(&format!("metadata.name={SCALE_SET}"));
        let objects =
            watcher(stage.scale_sets(), name).map(|event| Ok(News::ScaleSet(Box::new(event?)))).boxed();
        let containers = stage.containers(&stage.cluster).map(|event| Ok(News::Container(event?)));
        Live { news: Box::new(futures::stream::select(objects, containers)), seen: Seen::new() }
    }

    fn tell(&self, what: impl Display) {
        self.seen.print(format!("── {what}"));
    }

    /// Follows the news until the state is reached.
    async fn until(&mut self, what: &str, reached: impl Fn(&Seen) -> bool) -> Result<()> {
        let follow = async {
            while !reached(&self.seen) {
                match self.news.next().await.ok_or("the news ended")?? {
                    News::ScaleSet(event) => self.seen.scale_set(*event),
                    News::Container(event) => self.seen.container(event),
                }
            }
            Ok(())
        };
        let late = |_| format!("not {what} within {} s", DEADLINE.as_secs());
        tokio::time::timeout(DEADLINE, follow).await.map_err(late)?
    }
}

/// What was seen so far.
struct Seen {
    began: Timestamp,
    row: Row,
    updates: u32,
    deleted_at: Option<Timestamp>,
    phases: BTreeMap<String, RunnerPhase>,
    containers: BTreeMap<String, ContainerLife>,
}

/// When a container was started, ended, and was removed.
#[derive(Default)]
struct ContainerLife {
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    removed: Option<Timestamp>,
}

impl Seen {
    fn new() -> Seen {
        Seen {
            began: Timestamp::now(),
            row: Row::default(),
            updates: 0,
            deleted_at: None,
            phases: BTreeMap::new(),
            containers: BTreeMap::new(),
        }
    }

    fn print(&self, line: impl Display) {
        println!("{:7.2}  {line}", seconds(self.began, Timestamp::now()));
    }

    fn is_over(&self) -> bool {
        let removed = self.containers.values().filter(|life| life.removed.is_some());
        removed.count() == JOBS.len() && self.phases.is_empty() && self.row.current == 0
    }

    fn scale_set(&mut self, event: Event<RunnerScaleSet>) {
        match event {
            Event::Apply(object) | Event::InitApply(object) => {
                self.updates += 1;
                let status = object.status.unwrap_or_default();
                self.row(Row::new(&status));
                self.runners(&status);
            }
            Event::Delete(_) => {
                self.deleted_at = Some(Timestamp::now());
                self.print(format!("{SCALE_SET} is gone"));
            }
            Event::Init | Event::InitDone => {}
        }
    }

    fn row(&mut self, row: Row) {
        if self.row != row || self.updates == 1 {
            self.print(row.to_string());
            self.row = row;
        }
    }

    fn runners(&mut self, status: &RunnerScaleSetStatus) {
        let mut phases = BTreeMap::new();
        for runner in &status.runners {
            if self.phases.get(&runner.name) != Some(&runner.phase) {
                let job = runner.job.as_ref().map(|job| &job.display_name);
                let job = job.map(|job| format!(" with {job}")).unwrap_or_default();
                self.print(format!("  {}  {}{job}", runner.name, runner.phase));
            }
            phases.insert(runner.name.clone(), runner.phase);
        }
        self.phases = phases;
    }

    fn container(&mut self, event: ContainerEvent) {
        let life = self.containers.entry(event.name.clone()).or_default();
        let (time, what) = match event.what.as_str() {
            "start" => (&mut life.started, "started"),
            "die" => (&mut life.ended, "ended"),
            "destroy" => (&mut life.removed, "removed"),
            _ => return,
        };
        *time = Some(event.at);
        self.print(format!("  {}  container {what}", event.name));
    }

    fn sum_up(&self, jobs: &[Job], deleted_at: Timestamp) {
        println!("Seconds from a job's queueing until");
        println!("{:<9} {:<16} {:>10} {:>8} {:>8} {:>10}", "", "", "container", "job", "job", "container");
        println!(
            "{:<9} {:<16} {:>10} {:>8} {:>8} {:>10}",
            "JOB", "RUNNER", "STARTED", "BEGUN", "DONE", "REMOVED"
        );
        let mut whole: f64 = 0.0;
        for job in jobs {
            let runner = job.runner.as_ref().map_or("", |runner| &runner.name);
            let life = self.containers.get(runner);
            let times = [
                life.and_then(|life| life.started),
                job.started_at,
                job.finished_at,
                life.and_then(|life| life.removed),
            ];
            let [started, begun, done, removed] =
                times.map(|time| time.map_or(f64::NAN, |time| seconds(job.queued_at, time)));
            println!("{:<9} {runner:<16} {started:>10.2} {begun:>8.2} {done:>8.2} {removed:>10.2}", job.name);
            whole = whole.max(removed);
        }
        let clearing = self.containers.values().filter_map(|life| Some(seconds(life.ended?, life.removed?)));
        println!("\nfirst job queued to last container removed  {whole:6.2} s");
        println!("a container's end to its removal, at most   {:6.2} s", clearing.fold(0.0, f64::max));
        let deletion = self.deleted_at.map_or(f64::NAN, |gone| seconds(deleted_at, gone));
        println!("delete of the scale set to its end          {deletion:6.2} s");
        println!("changes of the object in all                {:6}", self.updates);
    }
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// A line of `kubectl get rss`.
#[derive(Default, PartialEq)]
struct Row {
    desired: i32,
    current: i32,
    pending: i32,
    idle: i32,
    busy: i32,
    ready: String,
}

impl Row {
    const HEADER: &str = "NAME    DESIRED  CURRENT  PENDING  IDLE  BUSY  READY";

    fn new(status: &RunnerScaleSetStatus) -> Row {
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        Row {
            desired: status.desired_runners,
            current: status.current_runners,
            pending: status.pending_runners,
            idle: status.idle_runners,
            busy: status.busy_runners,
            ready: ready.map(|condition| condition.status.clone()).unwrap_or_default(),
        }
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { desired, current, pending, idle, busy, ready } = self;
        write!(f, "{SCALE_SET:<7} {desired:<8} {current:<8} {pending:<8} {idle:<5} {busy:<5} {ready}")
    }
}
