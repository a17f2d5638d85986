//! Runners in tasks on a simulated ECS, each task a real process with the runner stand-in.

use std::time::Duration;

use jiff::Timestamp;
use paddock::api::RunnerScaleSet;
use paddock::api::status::{RerunState, RunnerPhase};
use serde_json::{Value, json};
use testkit::ecs::{
    ClusterSpec, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY, Delays, Effect, Fault, Lag, Operation, SimEcs,
    Status, reason,
};
use testkit::github::{DEFAULT_TOKEN, Endpoint, JobResult, JobSpec, JobStatus, SimGithub};

use harness::{Lab, Manifest, PATIENCE, condition, is, lab, phases, stand_ins};

/// A cluster is looked at every 30 s where nothing moves: what nobody tells takes so long to be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(75);
/// The simulated role.
const ROLE: &str = "arn:aws:iam::123456789012:role/runners";

/// A GitHub with JIT configurations of the real size, and an account with two clusters.
async fn world(lab: &Lab) -> (SimGithub, SimEcs) {
    lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
    // GitHub gives a runner up that is silent after ten minutes, and a test has not got them.
    let github = SimGithub::builder().silence(Duration::from_secs(2)).start().await.unwrap();
    (github, account(lab).await)
}

/// An account with two clusters, and the Secret `aws` for it.
pub async fn account(lab: &Lab) -> SimEcs {
    let keys = [("aws_access_key_id", DEFAULT_ACCESS_KEY), ("aws_secret_access_key", DEFAULT_SECRET_KEY)];
    lab.secret("aws", keys).await;
    let ecs = SimEcs::builder()
        .cluster(ClusterSpec::new("runners"))
        .cluster(ClusterSpec::new("reserve"))
        .role(ROLE)
        .delays(Delays::each(Duration::from_millis(100)))
        .lag(Lag::both(Duration::from_millis(200)))
        .stop_timeout(Duration::from_secs(1))
        .runner(stand_ins::fake_runner().await);
    ecs.start().await.unwrap()
}

/// A backend in a cluster of the account.
pub fn backend(name: &str, cluster: &str, ecs: &SimEcs, changes: Value) -> Value {
    let mut block = json!({
        "region": ecs.region(), "cluster": cluster, "endpointUrl": ecs.url(), "credentialsSecretRef": {"name": "aws"},
        "managedTaskDefinition": {"family": format!("{name}-runners")}, "launchType": "FARGATE", "subnets": ["subnet-1"],
    });
    for (name, value) in changes.as_object().unwrap() {
        block[name] = value.clone();
    }
    block.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    json!({"name": name, "ecs": block})
}

fn manifest(github: &SimGithub, backends: Value) -> Manifest {
    let mut manifest =
        Manifest::sample(&github.config_url("acme")).spec(json!({"scaleDown": {"delay": "1s"}}));
    manifest.0["spec"]["backends"] = backends;
    manifest
}

/// The manifest with one backend.
fn one(github: &SimGithub, ecs: &SimEcs, changes: Value) -> Manifest {
    manifest(github, json!([backend("aws", "runners", ecs, changes)]))
}

#[tokio::test]
async fn five_jobs_run_in_five_tasks_and_nothing_is_left() {
    lab("ecs-five", async |lab| {
        let (github, ecs) = world(lab).await;
        let _controller = lab.start();
        let record = lab.record("linux");
        lab.apply(&one(&github, &ecs, json!({}))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let jobs = github.queue_jobs(5, &JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 5).await.unwrap();
        let set = lab.until_phases("linux", (0, 0, 5)).await;
        let status = set.status.unwrap();
        assert_eq!(
            (status.backends[0].current_runners, status.backends[0].hosts[0].name.as_str()),
            (5, "runners")
        );
        assert!(status.runners.iter().all(|r| r.phase == RunnerPhase::Busy && r.instance_id.is_some()));
        let jits = ecs.look(|s| {
            let jit = |task: &testkit::ecs::Task| {
                task.containers[0].environment["ACTIONS_RUNNER_INPUT_JITCONFIG"].clone()
            };
            s.tasks().map(jit).collect::<std::collections::BTreeSet<_>>()
        });
        assert_eq!(jits.len(), 5, "each has its own");
        assert!(jits.iter().all(|jit| jit.len() > 3000), "of the real size");

        for job in jobs {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        lab.until_within(SEEN_WITHIN, "linux", "nothing is left", |set| {
            let status = set.status.as_ref().unwrap();
            status.current_runners == 0 && status.runners.is_empty()
        })
        .await;
        assert_eq!(ecs.look(|s| (s.tasks().count(), s.tasks_in(Status::Stopped))), (5, 5));
        assert_eq!(github.look(|s| s.runners().count()), 0);
        assert_eq!(lab.get("linux").await.status.unwrap().recent_failures.len(), 0);
        record.assert_consistent(0, 10);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_set_leaves_no_task() {
    lab("ecs-deleted", async |lab| {
        let (github, ecs) = world(lab).await;
        let _controller = lab.start();
        lab.apply(&one(&github, &ecs, json!({})).spec(json!({"minRunners": 2}))).await;
        github.wait_until(PATIENCE, |s| s.runners().filter(|r| r.connected).count() == 2).await.unwrap();
        lab.until_phases("linux", (0, 2, 0)).await;
        lab.delete("linux").await;
        lab.until_gone("linux", SEEN_WITHIN).await;
        assert_eq!(ecs.look(|s| s.tasks().filter(|task| !task.stop_wanted).count()), 0);
        assert_eq!(github.look(|s| s.runners().count()), 0);
    })
    .await;
}

#[tokio::test]
async fn a_controller_that_is_killed_is_followed_by_one_that_adopts_its_tasks() {
    lab("ecs-adopted", async |lab| {
        let (github, ecs) = world(lab).await;
        let controller = lab.start();
        lab.apply(&one(&github, &ecs, json!({}))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let first = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        lab.until_phases("linux", (0, 0, 1)).await;
        // The answer to the second task is lost, and whoever asks again is kept waiting: it is killed meanwhile.
        ecs.inject(Fault::new(Operation::RunTask, Effect::LoseAnswer).times(1));
        ecs.inject(Fault::hang(Operation::RunTask, Duration::from_secs(60)).times(1));
        let second = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        ecs.wait_until(PATIENCE, |s| s.tasks().count() == 2).await.unwrap();
        controller.kill().await;
        ecs.clear_faults();

        let controller = lab.start();
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 2).await.unwrap();
        lab.until_phases("linux", (0, 0, 2)).await;
        assert_eq!(ecs.look(|s| s.tasks().count()), 2, "none was started again");
        for job in [first, second] {
            github.finish_job(job, JobResult::Succeeded).unwrap();
        }
        lab.until_within(SEEN_WITHIN, "linux", "nothing is left", |set| phases(set) == (0, 0, 0)).await;
        // One more: of what is long over nothing is told again.
        controller.kill().await;
        let _controller = lab.start();
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        lab.until_within(Duration::from_secs(20), "linux", "the next is busy", |set| {
            phases(set) == (0, 0, 1)
        })
        .await;
        let status = lab.get("linux").await.status.unwrap();
        assert!(status.recent_failures.is_empty(), "{:?}", status.recent_failures);
        assert_eq!(ecs.look(|s| s.tasks().count()), 3);
    })
    .await;
}

#[tokio::test]
async fn without_room_demand_waits_and_says_why_or_goes_to_the_next_backend() {
    lab("ecs-room", async |lab| {
        let (github, ecs) = world(lab).await;
        let _controller = lab.start();
        let alone = one(&github, &ecs, json!({}));
        lab.apply(&alone).await;
        lab.until_is("linux", "Ready", "True", None).await;
        ecs.inject(Fault::failures(Operation::RunTask, reason::MEMORY).times(2));
        let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
        let set = lab.until_is("linux", "DemandMet", "False", Some("NoCapacity")).await;
        let said = condition(&set, "DemandMet").unwrap().message.clone();
        assert!(said.contains("RESOURCE:MEMORY") && said.contains("the next try is at 2"), "{said}");
        assert!(set.status.unwrap().backends[0].backoff_until.is_some());
        // A second failure is waited for longer; a success ends it.
        github.wait_until(Duration::from_secs(90), |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        assert_eq!(ecs.requests(Operation::RunTask).len(), 3, "two that failed and one that did not");
        lab.until_is("linux", "DemandMet", "True", None).await;
        lab.until("linux", "nothing is held back", |set| {
            set.status.as_ref().is_some_and(|status| status.backends[0].backoff_until.is_none())
        })
        .await;
        github.finish_job(job, JobResult::Succeeded).unwrap();

        let backends =
            [backend("aws", "runners", &ecs, json!({})), backend("more", "reserve", &ecs, json!({}))];
        lab.apply(&manifest(&github, json!(backends))).await;
        lab.until("linux", "the second backend is there", |set| {
            set.status
                .as_ref()
                .is_some_and(|s| s.backends.len() == 2 && s.backends.iter().all(|b| b.hosts[0].ready))
        })
        .await;
        ecs.inject(Fault::failures(Operation::RunTask, reason::MEMORY).times(1));
        let asked = Timestamp::now();
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        let took = Timestamp::now().duration_since(asked);
        assert!(took.as_secs() < 10, "it does not wait for the first to have room: {took:?}");
        assert_eq!(ecs.look(|s| s.tasks().filter(|task| task.cluster == "reserve").count()), 1);
    })
    .await;
}

#[tokio::test]
async fn what_only_a_person_can_change_stalls_the_set_and_is_asked_for_once() {
    lab("ecs-stalled", async |lab| {
        let (github, ecs) = world(lab).await;
        let _controller = lab.start();
        lab.apply(&one(&github, &ecs, json!({"cluster": "nowhere"}))).await;
        let stalled = async |says: &str| {
            lab.until("linux", says, |set| {
                is(set, "Stalled", "True", Some("BackendRefused"))
                    && condition(set, "Stalled").is_some_and(|stalled| stalled.message.contains(says))
            })
            .await
        };
        stalled("ecs.cluster").await;

        lab.apply(&one(&github, &ecs, json!({}))).await;
        lab.until_is("linux", "Stalled", "False", None).await;
        ecs.deny(Operation::RunTask);
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        stalled("ecs:RunTask").await;
        let asked = ecs.requests(Operation::RunTask).len();
        let registered = github.look(|s| s.runners().count());
        lab.apply(&one(&github, &ecs, json!({})).spec(json!({"labels": ["more"]}))).await;
        lab.until("linux", "the set was looked at again", |set| {
            set.status.as_ref().is_some_and(|s| s.observed_generation == set.metadata.generation)
        })
        .await;
        assert_eq!((asked, ecs.requests(Operation::RunTask).len()), (1, 1), "once");
        assert!(registered <= 1);

        ecs.allow(Operation::RunTask);
        lab.apply(&one(&github, &ecs, json!({"platformVersion": "1.4.0"}))).await;
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        lab.until_is("linux", "Stalled", "False", None).await;
    })
    .await;
}

#[tokio::test]
async fn a_spot_interruption_is_told_with_its_job_and_replaced_on_demand() {
    lab("ecs-spot", async |lab| {
        let (github, ecs) = world(lab).await;
        let _controller = lab.start();
        let providers = json!([{"name": "FARGATE_SPOT", "weight": 100}, {"name": "FARGATE", "weight": 1}]);
        let manifest = one(&github, &ecs, json!({"launchType": null, "capacityProviders": providers}));
        lab.apply(&manifest.spec(json!({"maxRunners": 1}))).await;
        lab.until_is("linux", "Ready", "True", None).await;
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        lab.until_phases("linux", (0, 0, 1)).await;
        let interrupted =
            ecs.look(|s| s.tasks().next().map(|task| (task.id.clone(), task.is_spot())).unwrap());
        assert!(interrupted.1);
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.unwrap();
        ecs.interrupt_spot(&interrupted.0).unwrap();

        let set = lab
            .until_within(SEEN_WITHIN, "linux", "the interruption is told", |set| {
                set.status
                    .as_ref()
                    .is_some_and(|s| s.recent_failures.iter().any(|f| f.reason == "SpotInterruption"))
            })
            .await;
        let failure = set.status.unwrap().recent_failures.remove(0);
        assert!(failure.message.contains("while `build` was running"), "{}", failure.message);
        let note = lab.event("linux", "RunnerFailed").await;
        assert!(note.contains("SpotInterruption") && note.contains("build"), "{note}");
        // The listing that showed it is the last one before the failure was told.
        let replaced = ecs
            .wait_for(PATIENCE, |s| s.tasks().find(|task| task.id != interrupted.0).cloned())
            .await
            .unwrap();
        assert!(!replaced.is_spot(), "on demand");
        let requests = ecs.look(|s| s.requests().iter().map(|r| (r.operation, r.at)).collect::<Vec<_>>());
        let started =
            requests.iter().rev().find(|(operation, _)| *operation == Operation::RunTask).unwrap().1;
        let listed =
            requests.iter().rev().find(|(o, at)| *o == Operation::ListTasks && *at <= started).unwrap().1;
        let took = started.duration_since(listed);
        assert!(took.as_secs() < 5, "{took:?}");
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
    })
    .await;
}

/// The state of the only workflow run that lost jobs.
fn rerun(set: &RunnerScaleSet) -> Option<RerunState> {
    let [run] = &set.status.as_ref()?.reruns[..] else { return None };
    Some(run.state)
}

#[tokio::test]
async fn a_run_that_lost_a_job_to_an_interruption_is_run_again_once_it_is_over() {
    lab("ecs-rerun", async |lab| {
        let (github, ecs) = world(lab).await;
        let controller = lab.start();
        let spot = json!([{"name": "FARGATE_SPOT", "weight": 1}]);
        let changes = json!({"launchType": null, "capacityProviders": spot, "rerunInterrupted": true});
        lab.apply(&one(&github, &ecs, changes)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let spec = JobSpec::new("acme/app", ["linux"]).of_run(7);
        let job = github.queue_job(spec.clone());
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        let task = ecs.look(|s| s.tasks().next().unwrap().id.clone());
        let other = github.queue_job(spec);
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 2).await.unwrap();
        lab.until_phases("linux", (0, 0, 2)).await;
        ecs.interrupt_spot(&task).unwrap();

        let waits = |set: &RunnerScaleSet| {
            rerun(set) == Some(RerunState::Waiting)
                && set.status.as_ref().is_some_and(|status| status.reruns[0].message.contains("HTTP 403"))
        };
        lab.until_within(SEEN_WITHIN, "linux", "the run goes on", waits).await;
        // What is waited for outlives the controller.
        controller.kill().await;
        let _controller = lab.start();
        github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
        github.finish_job(other, JobResult::Succeeded).unwrap();
        let requested = |set: &RunnerScaleSet| rerun(set) == Some(RerunState::Requested);
        lab.until_within(SEEN_WITHIN, "linux", "it is run again", requested).await;
        let note = lab.event("linux", "RerunRequested").await;
        assert!(note.contains("run 7 of acme/app"), "{note}");
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        let again = github.look(|s| s.jobs().find(|job| job.status == JobStatus::Running).cloned().unwrap());
        assert!(again.run == 7 && again.id != job && again.id != other);
        let granted =
            github.requests(Endpoint::RerunFailedJobs).iter().filter(|r| r.status == Some(201)).count();
        assert_eq!((granted, github.look(|s| s.jobs().count())), (1, 3), "once, and the lost one alone");
    })
    .await;
}

#[tokio::test]
async fn without_the_right_a_lost_job_stays_lost_and_that_is_told_once() {
    lab("ecs-no-rerun", async |lab| {
        let (github, ecs) = world(lab).await;
        github.permit_actions(false);
        let _controller = lab.start();
        let spot = json!([{"name": "FARGATE_SPOT", "weight": 1}]);
        let changes = json!({"launchType": null, "capacityProviders": spot, "rerunInterrupted": true});
        lab.apply(&one(&github, &ecs, changes)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        github.queue_jobs(2, &JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 2).await.unwrap();
        lab.until_phases("linux", (0, 0, 2)).await;
        for task in ecs.look(|s| s.tasks().map(|task| task.id.clone()).collect::<Vec<_>>()) {
            ecs.interrupt_spot(&task).unwrap();
        }
        let refused = |set: &RunnerScaleSet| {
            let reruns = set.status.as_ref().map_or(&[][..], |status| &status.reruns);
            reruns.len() == 2 && reruns.iter().all(|run| run.state == RerunState::Refused)
        };
        lab.until_within(SEEN_WITHIN, "linux", "both are refused", refused).await;
        let note = lab.event("linux", "RerunRefused").await;
        assert!(note.contains("HTTP 403"), "{note}");
        let told =
            lab.events("linux").await.into_iter().filter(|e| e.reason.as_deref() == Some("RerunRefused"));
        assert_eq!(told.count(), 1);
        assert_eq!(github.requests(Endpoint::RerunFailedJobs).len(), 2, "each is asked for once");
        assert!(is(&lab.get("linux").await, "Ready", "True", None));
    })
    .await;
}

#[tokio::test]
async fn a_role_is_assumed_by_the_provider_chain_and_nothing_secret_is_told() {
    lab("ecs-role", async |lab| {
        let (github, ecs) = world(lab).await;
        let controller = lab.start_with(&[
            ("AWS_ENDPOINT_URL_STS", ecs.url()),
            // Only who runs the controller may say where calls with its identity go.
            ("AWS_ENDPOINT_URL_ECS", ecs.url()),
            ("AWS_ACCESS_KEY_ID", DEFAULT_ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", DEFAULT_SECRET_KEY),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        let changes = json!({"credentialsSecretRef": null, "endpointUrl": null, "assumeRoleArn": ROLE});
        lab.apply(&one(&github, &ecs, changes)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        github.queue_job(JobSpec::new("acme/app", ["linux"]));
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.unwrap();
        let key = ecs.requests(Operation::RunTask)[0].access_key.clone().unwrap();
        assert!(key.starts_with("ASIA"), "the role's own key: {key}");

        let other = "arn:aws:iam::123456789012:role/other";
        let denied = json!({"credentialsSecretRef": null, "endpointUrl": null, "assumeRoleArn": other});
        lab.apply(&one(&github, &ecs, denied)).await;
        let set = lab.until_is("linux", "Stalled", "True", Some("BackendRefused")).await;
        let jit = ecs.look(|s| {
            s.tasks()
                .next()
                .map(|t| t.containers[0].environment["ACTIONS_RUNNER_INPUT_JITCONFIG"].clone())
                .unwrap()
        });
        let events = serde_json::to_string(&lab.events("linux").await).unwrap();
        let told = format!("{}{events}{}", controller.log(), serde_json::to_string(&set.status).unwrap());
        for secret in [jit.as_str(), &jit[100..160], DEFAULT_SECRET_KEY, &key, "session-"] {
            assert!(!told.contains(secret), "{secret} is told");
        }
    })
    .await;
}
