//! Tasks that run the runner stand-in as a process, and take jobs from the simulated GitHub.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::ecs::{Delays, Lag, SimEcs, Status, StopCode, Task};
use testkit::github::{JobResult, JobSpec, JobStatus, SimGithub};

use crate::PATIENCE;
use crate::client::Wire;

/// The program `fake-runner`, built if it is not.
async fn fake_runner() -> PathBuf {
    let mut cargo = tokio::process::Command::new(env!("CARGO"));
    let built = cargo.args(["build", "--quiet", "--package", "fake-runner"]).status().await.expect("cargo");
    assert!(built.success());
    let test = std::env::current_exe().expect("this program");
    test.parent().and_then(|deps| deps.parent()).expect("the build's folder").join("fake-runner")
}

async fn start() -> (SimGithub, SimEcs, Wire) {
    let builder = SimGithub::builder().long_poll(Duration::from_secs(2)).silence(Duration::from_millis(500));
    let github = builder.start().await.expect("started");
    github.create_scale_set("acme", "fleet").expect("created");
    let builder =
        SimEcs::builder().delays(Delays::each(Duration::from_millis(20))).lag(Lag::both(Duration::ZERO));
    let builder = builder.stop_timeout(Duration::from_millis(500)).runner(fake_runner().await);
    let ecs = builder.start().await.expect("started");
    let wire = Wire::new(&ecs);
    wire.register("awsvpc").await;
    (github, ecs, wire)
}

fn overrides(jit: &str, further: &[(&str, &str)]) -> Value {
    let mut environment = vec![json!({ "name": "ACTIONS_RUNNER_INPUT_JITCONFIG", "value": jit })];
    environment.extend(further.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    json!({ "containerOverrides": [{ "name": "runner", "environment": environment }] })
}

/// Runs a task whose runner is registered under this name.
async fn run_runner(github: &SimGithub, wire: &Wire, name: &str, strategy: Option<&str>) -> String {
    let jit = github.mint_jit("fleet", name).expect("minted");
    let mut members =
        json!({ "overrides": overrides(&jit, &[("PADDOCK_RUNNER", name)]), "clientToken": name });
    if let Some(provider) = strategy {
        members["capacityProviderStrategy"] = json!([{ "capacityProvider": provider, "weight": 1 }]);
    }
    wire.run(members).await
}

async fn stopped(ecs: &SimEcs, arn: &str) -> Task {
    let find = |s: &testkit::ecs::State| s.task(arn).filter(|task| task.status == Status::Stopped).cloned();
    ecs.wait_for(PATIENCE, find).await.expect("it stops")
}

#[tokio::test]
async fn five_jobs_run_in_five_tasks_and_their_exit_codes_are_the_containers() {
    let (github, ecs, wire) = start().await;
    let mut arns = Vec::new();
    for number in 0..5 {
        arns.push(run_runner(&github, &wire, &format!("runner-{number}"), None).await);
    }
    for number in 0..5 {
        let result = if number == 0 { JobResult::Succeeded } else { JobResult::Failed };
        let job = JobSpec::new("acme/app", ["fleet"]).exit_code(number).result(result);
        github.queue_job(job.lasting(Duration::from_millis(100)));
    }
    github.assign_jobs("fleet", 5).expect("the set");
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 5).await.expect("five jobs");
    let mut codes = Vec::new();
    for arn in &arns {
        let task = stopped(&ecs, arn).await;
        assert_eq!(task.stop_code, Some(StopCode::EssentialContainerExited));
        codes.push(task.containers[0].exit_code.expect("an exit code"));
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn stop_task_terminates_the_process() {
    let (github, ecs, wire) = start().await;
    let arn = run_runner(&github, &wire, "runner", None).await;
    github
        .wait_until(PATIENCE, |s| s.runner("runner").is_some_and(|r| r.connected))
        .await
        .expect("connected");
    wire.call("StopTask", json!({ "task": arn, "reason": "scaled down" })).await;
    let task = stopped(&ecs, &arn).await;
    assert_eq!(task.containers[0].exit_code, Some(143));
    github.wait_until(PATIENCE, |s| s.runner("runner").is_none_or(|r| !r.connected)).await.expect("gone");
}

#[tokio::test]
async fn a_spot_interruption_in_mid_job_fails_the_job() {
    let (github, ecs, wire) = start().await;
    let arn = run_runner(&github, &wire, "runner", Some("FARGATE_SPOT")).await;
    github.queue_job(JobSpec::new("acme/app", ["fleet"]));
    github.assign_jobs("fleet", 1).expect("the set");
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.expect("it runs");
    ecs.wait_until(PATIENCE, |s| s.tasks_in(Status::Running) == 1).await.expect("ECS says so, too");
    ecs.interrupt_spot(&arn).expect("on Spot");
    let task = stopped(&ecs, &arn).await;
    assert_eq!((task.stop_code, task.containers[0].exit_code), (Some(StopCode::SpotInterruption), Some(143)));
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 1).await.expect("the job is over");
    assert!(github.look(|s| s.jobs().all(|job| job.result == Some(JobResult::Failed))));
}

#[tokio::test]
async fn a_task_without_a_jit_configuration_ends_as_its_program_does() {
    let (_github, ecs, wire) = start().await;
    let arn = wire.run(json!({})).await;
    let task = stopped(&ecs, &arn).await;
    assert_eq!((task.containers[0].exit_code, task.times.started.is_some()), (Some(1), true));
}

#[tokio::test]
async fn the_processes_end_with_the_simulation() {
    let (github, ecs, wire) = start().await;
    run_runner(&github, &wire, "runner", None).await;
    github
        .wait_until(PATIENCE, |s| s.runner("runner").is_some_and(|r| r.connected))
        .await
        .expect("connected");
    drop((ecs, wire));
    github.wait_until(PATIENCE, |s| s.runner("runner").is_none_or(|r| !r.connected)).await.expect("gone");
}
