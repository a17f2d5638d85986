//! The demo of a fleet of Macs: three of the tests' stand-ins behind a real sshd each, a warm pool of one, eight jobs. Prints
//! what each Mac runs whenever that changes, and sums up.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::stage::{Result, Stage};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use paddock::api::{RunnerScaleSet, RunnerScaleSetStatus};
use serde_json::{Value, json};
use testkit::tart::{IMAGE, Mac};

/// The name in `deploy/samples/tart.yaml`.
const SCALE_SET: &str = "macos";
const MACS: usize = 3;
/// How long each job takes, in seconds.
const JOBS: [u64; 8] = [3, 4, 5, 6, 3, 4, 5, 6];
/// How long any part of the demo may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// What a public image of macOS takes is some ten times longer.
const CLONE: Duration = Duration::from_millis(300);
const BOOT: Duration = Duration::from_secs(3);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::new().await?;
    let mut macs = Vec::new();
    for _ in 0..MACS {
        macs.push(mac().await?);
    }
    let mut live =
        Live { began: Timestamp::now(), macs: &macs, stage: &stage, shown: String::new(), most: 0 };
    apply(&stage, &macs).await?;
    live.tell(&format!(
        "kubectl apply: {MACS} Macs, a warm pool of 1; a clone takes {CLONE:?}, a boot {BOOT:?}"
    ));
    println!("      s  WARM  PENDING  IDLE  BUSY   VMs on each Mac");
    let up = live.until("one is warm", |status, _| warm(status) == 1).await?;
    let first = up.iter().flatten().next().cloned().unwrap_or_default();

    for (number, seconds) in (1..).zip(JOBS) {
        stage.github.queue(1, SCALE_SET, &format!("build {number}"), Some(seconds)).await?;
    }
    live.tell(&format!("{} jobs are queued at GitHub, of {JOBS:?} s", JOBS.len()));
    let mut runs_in = BTreeMap::new();
    let over = |status: &RunnerScaleSetStatus, done: usize| {
        for runner in &status.runners {
            if let (Some(vm), Some(host)) = (&runner.instance_id, &runner.host) {
                runs_in.insert(runner.name.clone(), (vm.clone(), host.clone()));
            }
        }
        done == JOBS.len() && status.current_runners == 0 && warm(status) == 1
    };
    live.until("all jobs are done, and one is warm again", over).await?;
    live.tell(&format!("kubectl delete rss {SCALE_SET}"));
    stage.scale_sets().delete(SCALE_SET, &DeleteParams::default()).await?;
    live.until_gone().await?;

    let jobs = stage.github.state().await?.jobs;
    println!("\n{:<9} {:<16} {:<6} {:<26} {:>6} {:>6}", "JOB", "RUNNER", "MAC", "VM", "BEGUN", "DONE");
    let mut began = Vec::new();
    for job in &jobs {
        let runner = job.runner.as_ref().map_or("", |runner| &runner.name);
        let (vm, host) = runs_in.get(runner).cloned().unwrap_or_default();
        let seconds =
            |at: Option<Timestamp>| at.map_or(f64::NAN, |at| at.duration_since(job.queued_at).as_secs_f64());
        let note = if vm == first { " (warm)" } else { "" };
        let (begun, done) = (seconds(job.started_at), seconds(job.finished_at));
        println!("{:<9} {runner:<16} {host:<6} {:<26} {begun:>6.2} {done:>6.2}", job.name, vm.clone() + note);
        began.push((begun, vm));
    }
    began.sort_by(|a, b| a.0.total_cmp(&b.0));
    let warm_first = began.first().is_some_and(|(_, vm)| *vm == first);
    let left: usize = macs.iter().map(|mac| mac.vms().map_or(0, |vms| vms.len())).sum();
    println!("\nthe most VMs on one Mac     {}", live.most);
    println!("the warm one was taken first {warm_first}");
    println!("VMs left                     {left}");
    match live.most <= 2 && warm_first && left == 0 {
        true => Ok(()),
        false => Err("that is not as it should be".into()),
    }
}

async fn mac() -> Result<Mac> {
    let beside = std::env::current_exe()?;
    let folder = beside.ancestors().find(|folder| folder.join("tart").exists()).unwrap_or(Path::new("."));
    let program = |name: &str| -> PathBuf { folder.join(name) };
    let builder = Mac::builder().tart(program("tart")).runner(program("fake-runner"));
    Ok(builder.scenario(|s| (s.clone, s.boot) = (CLONE, BOOT)).start().await?)
}

async fn apply(stage: &Stage, macs: &[Mac]) -> Result<()> {
    let params = PatchParams::apply("demo").force();
    let secrets: Api<Secret> = Api::namespaced(stage.kube.clone(), &stage.namespace);
    let mut hosts = Vec::new();
    for (number, mac) in (1..).zip(macs) {
        let name = format!("mac-{number}");
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"ssh-privatekey": mac.private_key()?, "known_hosts": mac.known_hosts()?},
        });
        secrets.patch(&name, &params, &Patch::Apply(secret)).await?;
        hosts.push(json!({"name": name, "endpoint": mac.endpoint(), "sshSecretRef": {"name": name}}));
    }
    let mut object: Value = serde_saphyr::from_str(include_str!("../../deploy/samples/tart.yaml"))?;
    object["spec"]["github"]["url"] = format!("{}/acme", stage.github.url).into();
    object["spec"]["github"]["allowInsecure"] = true.into();
    object["spec"]["maxRunners"] = 8.into();
    let tart = &mut object["spec"]["backends"][0]["tart"];
    tart["image"] = IMAGE.into();
    tart["hosts"] = hosts.into();
    stage.scale_sets().patch(SCALE_SET, &params, &Patch::Apply(object)).await?;
    Ok(())
}

fn warm(status: &RunnerScaleSetStatus) -> i32 {
    status.backends.first().and_then(|backend| backend.warm).unwrap_or_default()
}

/// What happens, printed when it changes.
struct Live<'a> {
    began: Timestamp,
    macs: &'a [Mac],
    stage: &'a Stage,
    shown: String,
    most: usize,
}

impl Live<'_> {
    fn tell(&self, what: &str) {
        self.print(&format!("── {what}"));
    }

    fn print(&self, line: &str) {
        println!("{:7.2}  {line}", Timestamp::now().duration_since(self.began).as_secs_f64());
    }

    /// The VMs that run on each Mac. A configuration that is being written cannot be read: then as many as before.
    fn running(&mut self) -> Vec<Vec<String>> {
        let running: Vec<Vec<String>> =
            self.macs.iter().map(|mac| mac.running().unwrap_or_default()).collect();
        self.most = running.iter().map(Vec::len).chain([self.most]).max().unwrap_or_default();
        running
    }

    async fn object(&self) -> Result<Option<RunnerScaleSet>> {
        Ok(self.stage.scale_sets().get_opt(SCALE_SET).await?)
    }

    async fn until(
        &mut self,
        what: &str,
        mut reached: impl FnMut(&RunnerScaleSetStatus, usize) -> bool,
    ) -> Result<Vec<Vec<String>>> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let running = self.running();
            let status = self.object().await?.and_then(|object| object.status).unwrap_or_default();
            let counts: Vec<String> = running.iter().map(|vms| vms.len().to_string()).collect();
            let line = format!(
                "{:<5} {:<8} {:<5} {:<6} {}",
                warm(&status),
                status.pending_runners,
                status.idle_runners,
                status.busy_runners,
                counts.join("  ")
            );
            if line != self.shown {
                self.print(&line);
                self.shown = line;
            }
            let jobs = self.stage.github.state().await?.jobs;
            let done = jobs.iter().filter(|job| job.status == "completed").count();
            if reached(&status, done) {
                return Ok(running);
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("not within {} s: {what}", DEADLINE.as_secs()).into());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_gone(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while self.object().await?.is_some() {
            if tokio::time::Instant::now() > deadline {
                return Err("the scale set does not go".into());
            }
            tokio::time::sleep(LOOK).await;
        }
        self.print(&format!("{SCALE_SET} is gone"));
        Ok(())
    }
}
