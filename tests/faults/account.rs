//! The account that every test ends in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use harness::{Lab, PATIENCE, eventually, is};
use testkit::github::{JobId, JobResult, JobStatus, RunnerId, SimGithub, State};
use tokio::task::JoinHandle;

use crate::load::{MAX_RUNNERS, soaking};

/// GitHub's list of runners is looked at every five minutes, and what is found is believed at the second look.
const SWEPT_WITHIN: Duration = Duration::from_secs(15 * 60);

/// All is still by then at the latest: a container that stays although its job is over is removed five minutes after, and
/// its removal has a minute and another.
const STILL_WITHIN: Duration = Duration::from_secs(7 * 60);

/// What GitHub sees from now on that a look at the end would not show.
pub struct Witness {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The runners that were ever registered, by name.
    registered: BTreeMap<String, BTreeSet<RunnerId>>,
    /// The most that were connected at once.
    most_connected: usize,
}

impl Witness {
    /// Watches from now on.
    pub fn of(github: &SimGithub) -> Witness {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (github, noted) = (github.clone(), seen.clone());
        let task = tokio::spawn(async move {
            let never = github.wait_until(Duration::MAX / 4, |state| {
                noted.lock().unwrap().note(state);
                false
            });
            never.await.unwrap();
        });
        Witness { seen, task }
    }

    /// No name was registered twice, and never were more runners at work than there may be.
    fn assert_well(&self) {
        let seen = self.seen.lock().unwrap();
        let twice: Vec<_> = seen.registered.iter().filter(|(_, ids)| ids.len() > 1).collect();
        assert!(twice.is_empty(), "registered twice: {twice:?}");
        assert!(seen.most_connected <= MAX_RUNNERS, "{} runners were connected at once", seen.most_connected);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Seen {
    fn note(&mut self, state: &State) {
        for runner in state.runners() {
            self.registered.entry(runner.name.clone()).or_default().insert(runner.id);
        }
        let connected = state.runners().filter(|r| r.connected).count();
        self.most_connected = self.most_connected.max(connected);
    }
}

/// Waits until all jobs are over and all is still, and checks that nothing was lost, killed, done twice or left behind;
/// then deletes the set and checks that nothing at all remains. `engines` are those that the set uses. Answers the jobs
/// that failed, each of which had its runner die under it.
pub async fn settle(
    lab: &Lab,
    github: &SimGithub,
    witness: &Witness,
    engines: &[&Docker],
    crashes: usize,
) -> Vec<JobId> {
    jobs_end(github).await;
    let set = lab
        .until_within(STILL_WITHIN, "linux", "all is still", |set| {
            let status = set.status.as_ref().unwrap();
            let met = is(set, "Ready", "True", None) && is(set, "DemandMet", "True", None);
            met && status.current_runners == 0 && status.runners.is_empty()
        })
        .await;
    let failed = assert_jobs(github);
    let told = &set.status.as_ref().unwrap().recent_failures;
    println!(
        "recent failures: {:?}",
        told.iter().map(|f| format!("{}: {}", f.reason, f.message)).collect::<Vec<_>>()
    );
    assert!(!failed.is_empty() || told.iter().all(|f| f.reason != "JobLost"), "no job was lost: {told:#?}");
    witness.assert_well();
    nothing_on(engines, lab).await;
    registrations_go(github, crashes).await;

    lab.delete("linux").await;
    lab.until_gone("linux", PATIENCE).await;
    nothing_on(engines, lab).await;
    let (runners, sets) = github.look(|s| (s.runners().count(), s.scale_sets().count()));
    assert_eq!((runners, sets), (0, 0), "runners and scale sets left at GitHub");
    failed
}

/// Waits for as long as jobs come to their end, however many there are, and longer than a lost session stands in the way.
async fn jobs_end(github: &SimGithub) {
    let left = |s: &State| s.jobs().filter(|j| j.status != JobStatus::Completed).count();
    let mut before = github.look(left);
    while before > 0 {
        github.wait_until(2 * PATIENCE, |s| left(s) < before).await.unwrap();
        before = github.look(left);
    }
}

/// Each job ran once, on a runner of its own. Answers those that did not succeed.
fn assert_jobs(github: &SimGithub) -> Vec<JobId> {
    github.look(|s| {
        let mut runners = BTreeSet::new();
        let mut failed = Vec::new();
        for job in s.jobs() {
            assert_eq!(job.attempts, 1, "job {} was assigned more than once", job.id);
            let runner = job.runner.as_ref().expect("it had a runner");
            assert!(runners.insert(runner.name.clone()), "{} had two jobs", runner.name);
            if job.result != Some(JobResult::Succeeded) {
                failed.push(job.id);
            }
        }
        failed
    })
}

/// What the events of the machine's own engine tell: no name was used twice, never were there more containers than
/// there may be, and none was ended from outside while it had a job.
pub fn assert_timeline(lab: &Lab, github: &SimGithub) {
    let (mut names, mut there) = (BTreeSet::new(), BTreeSet::new());
    let with_job: BTreeSet<String> =
        github.look(|s| s.jobs().filter_map(|j| Some(j.runner.as_ref()?.name.clone())).collect());
    for event in lab.timeline.events() {
        match event.action.as_str() {
            "create" => {
                assert!(names.insert(event.runner.clone()), "{} was made twice", event.runner);
                there.insert(event.runner);
                assert!(there.len() <= MAX_RUNNERS, "{there:?} at once");
            }
            "die" => {
                let killed = with_job.contains(&event.runner) && event.exit_code != Some(0);
                assert!(!killed, "{} was killed: {:?}", event.runner, event.exit_code);
                there.remove(&event.runner);
            }
            "destroy" => {
                there.remove(&event.runner);
            }
            _ => {}
        }
    }
    println!("{} containers for {} jobs", names.len(), with_job.len());
}

/// This test's containers on an engine, running or not.
pub async fn containers_on(docker: &Docker, lab: &Lab) -> Vec<String> {
    let label = format!("paddock.dev/cluster={}", lab.cluster);
    let filters = [("label", vec![label])].into();
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = docker.list_containers(Some(options)).await.unwrap();
    containers.into_iter().filter_map(|container| container.id).collect()
}

async fn nothing_on(engines: &[&Docker], lab: &Lab) {
    for docker in engines {
        eventually("no container is left", PATIENCE, async || {
            containers_on(docker, lab).await.is_empty().then_some(())
        })
        .await;
    }
}

/// Registrations without a runner go: at once, but for those that a crash between minting and creating left. Each crash
/// may leave what was being started; the sweep of GitHub's list finds it, for which only a soak has the time.
async fn registrations_go(github: &SimGithub, crashes: usize) {
    if crashes == 0 || soaking() {
        let within = if crashes == 0 { PATIENCE } else { SWEPT_WITHIN };
        return github.wait_until(within, |s| s.runners().count() == 0).await.unwrap();
    }
    let (left, connected) =
        github.look(|s| (s.runners().count(), s.runners().filter(|r| r.connected).count()));
    println!("{left} registrations are left to the sweep");
    assert_eq!(connected, 0, "a runner is left");
    assert!(left <= crashes, "{left} registrations are left after {crashes} crashes");
}
