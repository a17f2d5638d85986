//! One VM: from its clone to its end, with a runner in it.

use std::process::Stdio;
use std::time::Duration;

use testkit::github::{JobId, JobResult, JobSpec, JobStatus, SimGithub};
use testkit::tart::{Mac, VmState};
use tokio::io::AsyncWriteExt;

use super::support::*;

/// Writes to a program in a guest and gives its exit code and output.
async fn exec_with_input(mac: &Mac, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = mac.command("tart");
    command.args(["exec", "-i"]).args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("spawned");
    let mut pipe = process.stdin.take().expect("its input");
    pipe.write_all(input.as_bytes()).await.expect("written");
    drop(pipe);
    parts(
        &tokio::time::timeout(PATIENCE, process.wait_with_output()).await.expect("in time").expect("an end"),
    )
}

#[tokio::test]
async fn a_runner_in_a_vm_takes_a_job_and_the_vm_is_stopped_and_deleted() {
    let github = SimGithub::builder().long_poll(Duration::from_secs(2)).start().await.expect("started");
    github.create_scale_set("acme", "macs").expect("created");
    let mac = local(builder()).await;
    let process = up(&mac, "vm").await;
    let write = "umask 077; cat >/private/tmp/jit";
    assert_eq!(
        exec_with_input(&mac, &["vm", "sh", "-c", write], &github.mint_jit("macs", "r").expect("minted"))
            .await
            .0,
        Some(0)
    );
    let script = "jit=$(cat /private/tmp/jit); rm /private/tmp/jit
        ACTIONS_RUNNER_INPUT_JITCONFIG=$jit nohup /Users/admin/actions-runner/run.sh </dev/null >runner.log 2>&1 &";
    tart(&mac, &["exec", "vm", "sh", "-c", &format!("cd; {script}")]).await;
    github.wait_until(PATIENCE, |s| s.runner("r").is_some_and(|r| r.connected)).await.expect("connected");
    let job: JobId = github.queue_job(JobSpec::new("acme/app", ["macs"]).lasting(Duration::from_millis(50)));
    github.assign_jobs("macs", 1).expect("the set");
    github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 1).await.expect("done");
    assert_eq!(github.look(|s| s.job(job).and_then(|j| j.result)), Some(JobResult::Succeeded));
    assert!(
        tart(&mac, &["exec", "vm", "cat", "/Users/admin/runner.log"]).await.contains("Running job: build")
    );

    tart(&mac, &["stop", "vm"]).await;
    assert_eq!(end(process).await, Some(0));
    assert_eq!(mac.vms().expect("the VMs")[0].state, VmState::Stopped);
    tart(&mac, &["delete", "vm"]).await;
    assert_eq!(mac.vms().expect("the VMs"), []);
}
