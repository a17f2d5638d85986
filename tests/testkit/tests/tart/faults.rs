//! What goes wrong on request, and what many commands at once come to.

use std::time::{Duration, Instant};

use futures::future::join_all;
use testkit::tart::{Effect, Fault, IMAGE, Overwrite, Scenario, VmState};

use super::support::*;

#[tokio::test]
async fn many_clones_at_once_are_all_whole_and_wait_for_each_other() {
    let mac = local(builder().scenario(|s| s.clone = Duration::from_millis(30))).await;
    tart(&mac, &["pull", IMAGE]).await;
    let names: Vec<String> = (0..8).map(|n| format!("vm-{n}")).collect();
    let begin = Instant::now();
    join_all(names.iter().map(async |name| {
        tart(&mac, &["clone", IMAGE, name]).await;
        tart(&mac, &["list", "--format", "json"]).await;
    }))
    .await;
    assert!(begin.elapsed() >= Duration::from_millis(8 * 30), "they wait for one lock");
    // Not beside other commands: Tart writes a configuration in place, and who reads half of one fails.
    for name in &names {
        tart(&mac, &["set", name, "--cpu", "6"]).await;
    }
    let vms = mac.vms().expect("the VMs");
    assert_eq!(vms.iter().map(|vm| &vm.name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert!(vms.iter().all(|vm| vm.cpu == 6));
    let mut macs: Vec<_> = vms.iter().map(|vm| &vm.mac_address).collect();
    macs.sort();
    macs.dedup();
    assert_eq!(macs.len(), 8, "each has a MAC of its own");
}

#[tokio::test]
async fn of_many_runs_at_once_two_come_through() {
    let mac = local(builder()).await;
    let names = ["a", "b", "c", "d"];
    for name in names {
        tart(&mac, &["clone", IMAGE, name]).await;
    }
    let runs: Vec<_> = names.iter().map(|name| run(&mac, name)).collect();
    let refused = |mac: &testkit::tart::Mac| {
        let calls = mac.calls().expect("the calls");
        calls
            .iter()
            .filter(|call| call.command() == "run" && call.end.is_some_and(|end| end.code == 1))
            .count()
    };
    mac.wait_until(PATIENCE, |mac| refused(mac) == 2).await.expect("two are refused");
    let running = mac.running().expect("the VMs");
    assert_eq!(running.len(), 2);
    for name in &running {
        tart(&mac, &["stop", name]).await;
    }
    let mut codes = join_all(runs.into_iter().map(end)).await;
    codes.sort();
    assert_eq!(codes, [Some(0), Some(0), Some(1), Some(1)]);
}

#[tokio::test]
async fn a_strangers_vm_takes_a_place_and_is_in_no_list() {
    let mac = local(builder()).await;
    let first = mac.run_strangers_vm().expect("a slot").expect("a free one");
    let second = mac.run_strangers_vm().expect("a slot");
    assert!(second.is_some() && mac.run_strangers_vm().expect("no slot").is_none());
    tart(&mac, &["clone", IMAGE, "vm"]).await;
    let (code, errors) = refused(&mac, &["run", "--no-graphics", "vm"]).await;
    assert_eq!((code, errors.trim()), (1, "The number of VMs exceeds the system limit"));
    drop(first);
    let process = run(&mac, "vm");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "vm")).await.expect("running");
    tart(&mac, &["stop", "vm"]).await;
    assert_eq!(end(process).await, Some(0));
}

#[tokio::test]
async fn a_clone_that_fails_half_way_leaves_unfinished_work_and_no_vm() {
    let mac = local(builder()).await;
    tart(&mac, &["pull", IMAGE]).await;
    let text = "Error: The operation couldn’t be completed.".to_owned();
    mac.fault(Fault::of("clone", Effect::HalfWay { text }).times(1)).expect("planted");
    assert_eq!(refused(&mac, &["clone", IMAGE, "vm"]).await.0, 1);
    let unfinished = || std::fs::read_dir(mac.tart_home().join("tmp")).expect("the folder").count();
    assert_eq!((mac.vms().expect("the VMs"), unfinished()), (vec![], 1));
    tart(&mac, &["clone", IMAGE, "vm"]).await;
    assert_eq!(unfinished(), 1, "a clone collects nothing");
    tart(&mac, &["list"]).await;
    assert_eq!(unfinished(), 0);
}

#[tokio::test]
async fn a_clone_can_fail_with_the_vm_there() {
    let mac = local(builder()).await;
    let effect = Effect::FailsAfter { code: 1, text: "Error: something".to_owned() };
    mac.fault(Fault::of("clone", effect).on("vm").times(1)).expect("planted");
    tart(&mac, &["clone", IMAGE, "another"]).await;
    let (code, errors) = refused(&mac, &["clone", IMAGE, "vm"]).await;
    assert_eq!((code, errors.as_str()), (1, "Error: something\n"));
    assert_eq!(mac.vms().expect("the VMs").len(), 2);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_by_later_versions() {
    let mac = local(builder().scenario(|s| s.overwrite = Overwrite::Asked)).await;
    let process = up(&mac, "vm").await;
    let (code, errors) = refused(&mac, &["clone", IMAGE, "vm"]).await;
    assert_eq!(code, 64);
    assert!(errors.contains("Error: VM \"vm\" already exists, use --overwrite to replace it"), "{errors}");
    let (code, errors) = refused(&mac, &["clone", "--overwrite", IMAGE, "vm"]).await;
    assert_eq!((code, errors.trim()), (1, "VM \"vm\" is running"));
    mac.scenario(|s| s.overwrite = Overwrite::Silent).expect("changed");
    tart(&mac, &["clone", IMAGE, "vm"]).await;
    assert!(!is_running(&mac, "vm"), "the one that runs is in no list any more");
    drop(process);
}

#[tokio::test]
async fn a_guest_agent_can_be_late_or_never_come() {
    let mac = local(builder().scenario(|s| s.exec_patience = Duration::from_millis(600))).await;
    mac.fault(Fault::of("run", Effect::NoAgent).on("never")).expect("planted");
    mac.fault(Fault::of("run", Effect::LateAgent { ms: 800 }).on("late")).expect("planted");
    for name in ["never", "late"] {
        tart(&mac, &["clone", IMAGE, name]).await;
    }
    let _runs = [run(&mac, "never"), run(&mac, "late")];
    mac.wait_until(PATIENCE, |mac| is_running(mac, "never") && is_running(mac, "late"))
        .await
        .expect("running");
    let (code, errors) = refused(&mac, &["exec", "never", "true"]).await;
    assert_eq!(code, 1);
    assert!(
        errors.contains("control socket") && errors.contains("is the Tart Guest Agent running?"),
        "{errors}"
    );
    mac.scenario(|s| s.exec_patience = Duration::from_secs(10)).expect("changed");
    tart(&mac, &["exec", "late", "true"]).await;
    tart(&mac, &["ip", "never", "--wait", "5"]).await;
}

#[tokio::test]
async fn addresses_run_out_with_fresh_macs_and_not_with_old_ones() {
    let mac = local(builder().scenario(|s| s.addresses = 1)).await;
    let first = up(&mac, "a").await;
    let address = tart(&mac, &["ip", "a"]).await;
    let _second = up(&mac, "b").await;
    let (code, errors) = refused(&mac, &["ip", "b"]).await;
    assert_eq!((code, errors.trim()), (1, "no IP address found"));
    tart(&mac, &["exec", "b", "true"]).await;
    tart(&mac, &["stop", "a"]).await;
    assert_eq!(end(first).await, Some(0));
    let _again = run(&mac, "a");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "a")).await.expect("running");
    assert_eq!(tart(&mac, &["ip", "a", "--wait", "5"]).await, address);
}

#[tokio::test]
async fn a_run_can_die_by_itself() {
    let mac = local(builder()).await;
    for (name, code) in [("crash", 0), ("tart", 3)] {
        tart(&mac, &["clone", IMAGE, name]).await;
        mac.fault(Fault::of("run", Effect::Dies { ms: 50, code }).on(name)).expect("planted");
        assert_eq!(end(run(&mac, name)).await, Some(i32::from(code)));
    }
    assert!(mac.vms().expect("the VMs").iter().all(|vm| vm.state == VmState::Stopped));
}

#[tokio::test]
async fn a_run_that_does_not_listen_is_killed_by_stop() {
    let mac = local(builder()).await;
    mac.fault(Fault::of("run", Effect::Deaf)).expect("planted");
    let process = up(&mac, "vm").await;
    let begin = Instant::now();
    tart(&mac, &["stop", "vm", "--timeout", "1"]).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
    assert_eq!(end(process).await, None, "a signal killed it");
    mac.wait_until(PATIENCE, |mac| !is_running(mac, "vm")).await.expect("stopped");
}

#[tokio::test]
async fn a_command_can_hang_be_slow_or_be_refused() {
    let mac = local(builder()).await;
    mac.fault(Fault::of("list", Effect::Hangs).times(1)).expect("planted");
    let hanging = mac.tart(&["list"]);
    assert!(tokio::time::timeout(Duration::from_millis(300), hanging).await.is_err());
    mac.fault(Fault::of("list", Effect::Slow { ms: 200 }).times(1)).expect("planted");
    let begin = Instant::now();
    tart(&mac, &["list"]).await;
    assert!(begin.elapsed() >= Duration::from_millis(200));
    let effect = Effect::Refused { code: 5, text: "no".to_owned() };
    mac.fault(Fault::of("list", effect)).expect("planted");
    assert_eq!(refused(&mac, &["list"]).await, (5, "no\n".to_owned()));
    mac.clear_faults().expect("cleared");
    tart(&mac, &["list"]).await;
}

#[tokio::test]
async fn every_call_is_logged_with_its_arguments_and_its_end() {
    let mac = local(builder()).await;
    tart(&mac, &["list", "-q"]).await;
    let output =
        mac.command("env").args(["TART_NO_AUTO_PRUNE=1", "tart", "delete", "a b", "$(c)"]).output().await;
    assert_eq!(output.expect("an answer").status.code(), Some(2));
    let calls = mac.calls().expect("the calls");
    let seen: Vec<_> = calls
        .iter()
        .map(|call| (call.args.join("|"), call.no_auto_prune, call.end.map(|end| end.code)))
        .collect();
    assert_eq!(seen, [("list|-q".to_owned(), false, Some(0)), ("delete|a b|$(c)".to_owned(), true, Some(2))]);
}

#[tokio::test]
async fn a_home_whose_path_needs_escapes_breaks_the_control_socket() {
    let mac = local(builder()).await;
    let process = up(&mac, "vm").await;
    tart(&mac, &["stop", "vm"]).await;
    assert_eq!(end(process).await, Some(0));
    let spaced = mac.tart_home().with_file_name("with space");
    std::os::unix::fs::symlink(mac.tart_home(), &spaced).expect("linked");
    mac.scenario(|s| s.exec_patience = Duration::from_millis(300)).expect("changed");
    let home = format!("TART_HOME={}", spaced.display());
    let _run =
        mac.command("env").args([&home, "tart", "run", "--no-graphics", "vm"]).spawn().expect("spawned");
    mac.wait_until(PATIENCE, |mac| is_running(mac, "vm")).await.expect("running");
    let output = mac.command("env").args([&home, "tart", "exec", "vm", "true"]).output().await;
    let (code, _, errors) = parts(&output.expect("an answer"));
    assert_eq!(code, Some(1));
    assert!(errors.contains("control socket"), "{errors}");
}

#[tokio::test]
async fn a_lock_that_is_held_keeps_clones_and_starts_waiting_and_no_list() {
    let mac = local(builder()).await;
    tart(&mac, &["clone", IMAGE, "a"]).await;
    let lock = mac.hold_lock().expect("held");
    let process = run(&mac, "a");
    let mut clone = mac.command("tart").args(["clone", IMAGE, "b"]).spawn().expect("spawned");
    tart(&mac, &["list"]).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), clone.wait()).await.is_err());
    assert_eq!(mac.running().expect("the VMs"), Vec::<String>::new());
    drop(lock);
    assert_eq!(end(clone).await, Some(0));
    mac.wait_until(PATIENCE, |mac| is_running(mac, "a")).await.expect("running");
    drop(process);
}

#[tokio::test]
async fn another_users_home_shares_the_limit_and_sees_no_names() {
    let mac = local(builder().scenario(|s| s.vm_limit = 1)).await;
    tart(&mac, &["clone", IMAGE, "mine"]).await;
    let other = mac.tart_home().with_file_name("other");
    std::fs::create_dir_all(other.join(".sim")).expect("made");
    let host = mac.tart_home().join(".sim/host");
    let scenario = Scenario { vm_limit: 1, host: Some(host), ..Scenario::default() };
    let text = serde_json::to_string(&scenario).expect("JSON");
    std::fs::write(other.join(".sim/scenario.json"), text).expect("written");
    let status = mac.command("cp").arg("-r").arg(mac.tart_home().join("vms")).arg(&other).status().await;
    assert!(status.expect("an answer").success());
    let home = format!("TART_HOME={}", other.display());
    let _theirs =
        mac.command("env").args([&home, "tart", "run", "--no-graphics", "mine"]).spawn().expect("spawned");
    let exec = mac
        .command("env")
        .args([&home, "sh", "-c", "until tart exec mine true; do sleep 0.1; done"])
        .status();
    assert!(exec.await.expect("an answer").success());
    let (code, errors) = refused(&mac, &["run", "--no-graphics", "mine"]).await;
    assert_eq!((code, errors.trim()), (1, "The number of VMs exceeds the system limit"));
}
