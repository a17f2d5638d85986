//! A Mac behind a real sshd: what a client meets, and what becomes of it when sshd, the network or the Mac fails.

use std::time::Duration;

use testkit::tart::{IMAGE, Mac};

use super::support::*;

/// Starts a VM over SSH as it must be started: so that it outlives the connection.
async fn run_detached(mac: &Mac, vm: &str) {
    let line = format!(
        "tart clone {IMAGE} {vm} && {{ nohup tart run --no-graphics {vm} </dev/null >/dev/null 2>&1 & }}"
    );
    let (code, _, errors) = parts(&mac.ssh(&line).await.expect("an answer"));
    assert_eq!(code, Some(0), "{errors}");
    mac.wait_until(PATIENCE, |mac| is_running(mac, vm)).await.expect("running");
}

/// Waits until a `sleep` that was begun over another connection is there.
async fn awaited_over_ssh(mac: &Mac, seconds: &str) {
    let line = format!("until pgrep -x sleep -a | grep -q ' {seconds}$'; do sleep 0.05; done");
    assert_eq!(mac.ssh(&line).await.expect("an answer").status.code(), Some(0));
}

#[tokio::test]
async fn a_command_over_ssh_finds_tart_and_sees_the_mac_alone() {
    let mac = builder().start().await.expect("a Mac");
    run_detached(&mac, "vm").await;
    let (code, output, errors) =
        parts(&mac.ssh("tart exec -i vm sh -c 'cat; exit 7' <<<hello").await.expect("an answer"));
    assert_eq!((code, output.as_str()), (Some(7), "hello\n"), "{errors}");
    assert!(mac.endpoint().starts_with("ssh://") && mac.endpoint().ends_with(&format!(":{}", mac.port())));
    let (_, processes, _) = parts(&mac.ssh("ps ax").await.expect("an answer"));
    assert!(processes.contains("tart run --no-graphics vm"), "{processes}");
    assert!(!processes.contains("cargo"), "{processes}");
    let (code, _, _) =
        parts(&mac.ssh("setsid true || timeout 1 true || flock / true").await.expect("an answer"));
    assert_eq!(code, Some(127), "a Mac has none of these");
}

#[tokio::test]
async fn four_macs_run_at_once_and_share_nothing() {
    let starts = (0..4).map(|_| builder().start());
    let macs: Vec<Mac> = futures::future::try_join_all(starts).await.expect("four Macs");
    futures::future::join_all(macs.iter().map(|mac| run_detached(mac, "vm"))).await;
    let mut ports: Vec<u16> = macs.iter().map(Mac::port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    tart(&macs[0], &["stop", "vm"]).await;
    assert!(!is_running(&macs[0], "vm"));
    assert!(macs[1..].iter().all(|mac| is_running(mac, "vm")));
}

#[tokio::test]
async fn a_reboot_stops_every_vm_and_everything_that_was_begun() {
    let mut mac = builder().start().await.expect("a Mac");
    run_detached(&mac, "vm").await;
    mac.ssh("nohup sleep 4711 </dev/null >/dev/null 2>&1 &").await.expect("an answer");
    let port = mac.port();
    let mut session = mac.ssh_command("sleep 4712").expect("a command").spawn().expect("spawned");
    awaited_over_ssh(&mac, "4712").await;
    mac.reboot().await.expect("up again");
    assert_eq!(session.wait().await.expect("an end").code(), Some(255), "the connection is lost");
    assert_eq!((mac.running().expect("the VMs"), mac.port()), (vec![], port));
    let (code, output, errors) = parts(&mac.ssh("ps ax; tart list -q").await.expect("an answer"));
    assert_eq!(code, Some(0), "{errors}");
    assert!(output.contains("vm") && !output.contains("4711"), "{output}");
    let run =
        mac.calls().expect("the calls").into_iter().find(|call| call.command() == "run").expect("the run");
    assert_eq!(run.end, None, "it was cut off");
    let process = run_again(&mac).await;
    tart(&mac, &["stop", "vm"]).await;
    assert_eq!(end(process).await, Some(0));
}

async fn run_again(mac: &Mac) -> tokio::process::Child {
    let process = run(mac, "vm");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "vm")).await.expect("running");
    process
}

#[tokio::test]
async fn an_sshd_that_is_killed_takes_no_vm_along_and_comes_back_on_its_port() {
    let mut mac = builder().start().await.expect("a Mac");
    run_detached(&mac, "vm").await;
    let mut session = mac.ssh_command("sleep 4711").expect("a command").spawn().expect("spawned");
    awaited_over_ssh(&mac, "4711").await;
    mac.kill_sshd().await.expect("killed");
    assert_eq!(session.wait().await.expect("an end").code(), Some(255));
    assert_eq!(mac.ssh("true").await.expect("an answer").status.code(), Some(255));
    assert!(is_running(&mac, "vm"));
    mac.start_sshd().await.expect("started");
    assert_eq!(mac.ssh("tart exec vm true").await.expect("an answer").status.code(), Some(0));
}

#[tokio::test]
async fn a_frozen_sshd_answers_when_it_is_thawed() {
    let mut mac = builder().start().await.expect("a Mac");
    mac.freeze_sshd().await.expect("frozen");
    let mut session = mac.ssh_command("echo late").expect("a command").spawn().expect("spawned");
    let early = tokio::time::timeout(Duration::from_millis(300), session.wait()).await;
    assert!(early.is_err(), "no answer, and no refusal");
    mac.thaw_sshd().await.expect("thawed");
    assert_eq!(end(session).await, Some(0));
}

#[tokio::test]
async fn another_host_key_is_refused_by_who_knows_the_old_one() {
    let mut mac = builder().start().await.expect("a Mac");
    let old = mac.known_hosts().expect("the host key");
    let mut command = mac.ssh_command("true").expect("a command");
    mac.change_host_key().await.expect("changed");
    assert_ne!(mac.known_hosts().expect("the host key"), old);
    let (code, _, errors) = parts(&command.output().await.expect("an answer"));
    assert_eq!(code, Some(255));
    assert!(errors.contains("Host key verification failed"), "{errors}");
    assert_eq!(mac.ssh("true").await.expect("an answer").status.code(), Some(0));
}

#[tokio::test]
async fn a_mac_that_is_gone_leaves_nothing() {
    let mac = builder().start().await.expect("a Mac");
    run_detached(&mac, "vm").await;
    let (folder, port) = (mac.tart_home(), mac.port());
    let ours = format!("HOME={}", folder.with_file_name("").display()).trim_end_matches('/').to_owned();
    let count = || processes().iter().filter(|text| text.contains(&ours)).count();
    assert!(count() > 0, "its processes are seen from outside");
    drop(mac);
    assert_eq!(count(), 0);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

/// The command lines and environments of all processes.
fn processes() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("processes").filter_map(Result::ok);
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap_or_default();
    entries
        .map(|entry| [read(entry.path().join("cmdline")), read(entry.path().join("environ"))].concat())
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .collect()
}
