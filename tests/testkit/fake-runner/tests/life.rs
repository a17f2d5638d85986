//! The program against the simulated GitHub.

#![allow(clippy::expect_used)]

use std::process::{Output, Stdio};
use std::time::Duration;

use testkit::github::{JobId, JobResult, JobSpec, JobStatus, SimGithub, SimGithubBuilder};
use tokio::process::{Child, Command};

/// Long enough for a busy machine; nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);

async fn github(builder: SimGithubBuilder) -> SimGithub {
    let github = builder.long_poll(Duration::from_secs(2)).start().await.expect("started");
    github.create_scale_set("acme", "fleet").expect("created");
    github
}

fn runner(jit: &str, settings: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fake-runner"));
    command.env("ACTIONS_RUNNER_INPUT_JITCONFIG", jit).envs(settings.iter().copied()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawned")
}

async fn end(runner: Child) -> (Option<i32>, String) {
    let output: Output =
        tokio::time::timeout(PATIENCE, runner.wait_with_output()).await.expect("in time").expect("an end");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn assign(github: &SimGithub, job: JobSpec) -> JobId {
    let id = github.queue_job(job);
    github.assign_jobs("fleet", 1).expect("the set");
    id
}

fn job() -> JobSpec {
    JobSpec::new("acme/app", ["fleet"])
}

async fn running(github: &SimGithub) {
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Running) == 1).await.expect("running");
}

#[tokio::test]
async fn it_takes_one_job_and_exits_as_told() {
    let github = github(SimGithub::builder()).await;
    let jit = github.mint_jit("fleet", "r").expect("minted");
    let process = runner(&jit, &[]);
    github.wait_until(PATIENCE, |s| s.runner("r").is_some_and(|r| r.connected)).await.expect("connected");
    let failing = job().lasting(Duration::from_millis(200)).exit_code(7).result(JobResult::Failed);
    let id = assign(&github, failing);
    let (code, output) = end(process).await;
    assert_eq!(code, Some(7));
    for line in
        ["Connected to GitHub", "Listening for Jobs", "Running job: build", "completed with result: failed"]
    {
        assert!(output.contains(line), "{output}");
    }
    let job = github.look(|s| s.job(id).cloned()).expect("the job");
    let took = job.finished_at.expect("over").duration_since(job.started_at.expect("begun"));
    assert_eq!((job.result, job.runner.map(|r| r.name)), (Some(JobResult::Failed), Some("r".to_owned())));
    assert!(took.as_millis() >= 200, "{took}");
    assert_eq!(github.look(|s| s.runners().count()), 0);
}

#[tokio::test]
async fn a_job_can_be_canceled_and_finished_from_outside() {
    let github = github(SimGithub::builder()).await;
    for cancel in [true, false] {
        let process = runner(&github.mint_jit("fleet", "r").expect("minted"), &[]);
        let id = assign(&github, job());
        running(&github).await;
        if cancel {
            github.cancel_job(id).expect("running");
        } else {
            github.finish_job(id, JobResult::Succeeded).expect("running");
        }
        assert_eq!(end(process).await.0, Some(0));
        let expected = if cancel { JobResult::Canceled } else { JobResult::Succeeded };
        assert_eq!(github.look(|s| s.job(id).and_then(|j| j.result)), Some(expected));
    }
}

#[tokio::test]
async fn a_runner_that_is_killed_fails_its_job() {
    let github = github(SimGithub::builder().silence(Duration::from_secs(1))).await;
    let mut process = runner(&github.mint_jit("fleet", "r").expect("minted"), &[]);
    let id = assign(&github, job());
    running(&github).await;
    process.kill().await.expect("killed");
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 1).await.expect("noticed");
    assert_eq!(github.look(|s| s.job(id).and_then(|j| j.result)), Some(JobResult::Failed));
}

#[tokio::test]
async fn an_idle_runner_whose_registration_is_removed_ends() {
    let github = github(SimGithub::builder()).await;
    let process = runner(&github.mint_jit("fleet", "r").expect("minted"), &[("FAKE_RUNNER_ALLOC_MB", "8")]);
    github.wait_until(PATIENCE, |s| s.runner("r").is_some_and(|r| r.connected)).await.expect("connected");
    github.remove_runner("r").expect("registered");
    let (code, output) = end(process).await;
    assert_eq!(code, Some(0));
    assert!(output.contains("The runner registration has been deleted from the server."), "{output}");
}

#[tokio::test]
async fn it_does_what_its_environment_says() {
    let github = github(SimGithub::builder()).await;
    assert_eq!(end(runner("", &[])).await.0, Some(1));
    assert_eq!(end(runner("nonsense", &[])).await.0, Some(1));
    let jit = github.mint_jit("fleet", "r").expect("minted");
    assert_eq!(end(runner(&jit, &[("FAKE_RUNNER_EXIT", "7")])).await.0, Some(7));
    let connected_at = |name: &str| github.look(|s| s.runner(name).and_then(|r| r.connected_at));
    assert_eq!(connected_at("r"), None, "it never connected");

    let mut silent = runner(&jit, &[("FAKE_RUNNER_NEVER_CONNECT", "1")]);
    let late = github.mint_jit("fleet", "late").expect("minted");
    let process = runner(&late, &[("FAKE_RUNNER_BOOT_MS", "100"), ("FAKE_RUNNER_LINGER_MS", "100")]);
    assign(&github, job().lasting(Duration::ZERO));
    assert_eq!(end(process).await.0, Some(0));
    assert_eq!(connected_at("r"), None, "it stays up and never connects");
    assert_eq!(silent.try_wait().expect("its state"), None);
}
