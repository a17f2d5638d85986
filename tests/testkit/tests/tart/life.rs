//! One VM: from its clone to its end, with a runner in it.

use std::process::Stdio;
use std::time::Duration;

use testkit::github::{JobId, JobResult, JobSpec, JobStatus, SimGithub};
use testkit::tart::{IMAGE, Mac, VmState};
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

#[tokio::test]
async fn what_is_below_users_stays_with_its_vm_and_goes_into_its_clones() {
    let mac = local(builder()).await;
    let process = up(&mac, "a").await;
    tart(&mac, &["exec", "a", "sh", "-c", "echo kept >/Users/admin/file; echo lost >/private/tmp/file"])
        .await;
    tart(&mac, &["stop", "a"]).await;
    assert_eq!(end(process).await, Some(0));
    tart(&mac, &["clone", "a", "b"]).await;
    let _again = run(&mac, "a");
    let _clone = run(&mac, "b");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "a") && is_running(mac, "b")).await.expect("running");
    tart(&mac, &["exec", "b", "sh", "-c", "echo more >>/Users/admin/file"]).await;
    assert_eq!(tart(&mac, &["exec", "a", "cat", "/Users/admin/file"]).await, "kept\n");
    assert_eq!(tart(&mac, &["exec", "b", "cat", "/Users/admin/file"]).await, "kept\nmore\n");
    assert_eq!(refused(&mac, &["exec", "a", "cat", "/private/tmp/file"]).await.0, 1);
    let users = mac.guest_users("b").join("admin/file");
    assert_eq!(std::fs::read_to_string(users).expect("the file"), "kept\nmore\n");
    assert!(!std::path::Path::new("/Users").exists(), "the guest's files are not the host's");
}

#[tokio::test]
async fn a_suspended_clone_of_a_vm_that_runs_boots_cold_with_another_mac() {
    let mac = local(builder()).await;
    tart(&mac, &["clone", IMAGE, "a"]).await;
    let process =
        mac.command("tart").args(["run", "--no-graphics", "--suspendable", "a"]).spawn().expect("spawned");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "a")).await.expect("running");
    tart(&mac, &["suspend", "a"]).await;
    assert_eq!(end(process).await, Some(0));
    tart(&mac, &["clone", "a", "b"]).await;
    let vms = mac.vms().expect("the VMs");
    assert!(vms.iter().all(|vm| vm.state == VmState::Suspended));
    assert_eq!(vms[0].mac_address, vms[1].mac_address);
    let _first = run(&mac, "a");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "a")).await.expect("running");
    let mut second = mac.command("tart");
    let second = second.args(["run", "--no-graphics", "b"]).stdout(Stdio::piped()).spawn().expect("spawned");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "b")).await.expect("running");
    let now = mac.vms().expect("the VMs");
    assert_eq!(now[0].mac_address, vms[0].mac_address);
    assert_ne!(now[1].mac_address, vms[1].mac_address);
    tart(&mac, &["stop", "b"]).await;
    let output = second.wait_with_output().await.expect("an end");
    let (_, output, _) = parts(&output);
    assert!(
        output.contains("Resetting VM to assign a new MAC address...") && !output.contains("resuming"),
        "{output}"
    );
}

#[tokio::test]
async fn a_shut_down_from_within_and_an_exec_that_it_cuts_off() {
    let mac = local(builder()).await;
    let process = up(&mac, "vm").await;
    let mut asleep = mac.command("tart");
    let asleep = asleep.args(["exec", "vm", "sleep", "600"]).stderr(Stdio::piped()).spawn().expect("spawned");
    tart(&mac, &["exec", "vm", "sh", "-c", "until ps ax | grep -q '[s]leep 600'; do sleep 0.05; done"]).await;
    let _ = mac.tart(&["exec", "vm", "sudo", "shutdown", "-h", "now"]).await.expect("an answer");
    assert_eq!(end(process).await, Some(0));
    let (code, _, errors) = parts(&asleep.wait_with_output().await.expect("an end"));
    assert_eq!((code, errors.as_str()), (Some(1), "Error: unavailable (14): Transport became inactive\n"));
}
