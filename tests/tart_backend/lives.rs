//! The life of a VM, from its slot to its removal.

use paddock::backend::tart::{HostSpec, Login};
use paddock::backend::{Backend, Error};
use paddock::runner::InstanceState;
use testkit::tart::VmState;

use crate::stage::*;

/// Waits for a file, for as long as a runner does.
const WAITS: &str = "env >/Users/admin/environment; until [ -e /Users/admin/end ]; do sleep 0.1; done; echo last words; exit 7";

#[tokio::test]
async fn a_runner_lives_in_a_vm_of_its_own_and_leaves_nothing() {
    let (stage, mac) = (Stage::new("life"), mac(WAITS).await);
    let mut template = template(&[&mac]);
    (template.cpu, template.memory_mb) = (Some(6), Some(12_288));
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    assert_eq!(instance.state, InstanceState::Running);
    assert_eq!((instance.backend.as_str(), instance.host.as_str()), ("macs", "mac-1"));
    assert_eq!(shown(&backend, &instance.id), Some(instance.clone()));
    let made = vm(&mac, &instance.id);
    assert_eq!((made.state, made.cpu, made.memory_mb), (VmState::Running, 6, 12_288));
    assert_eq!(host(&backend, "mac-1").free_slots, 1);

    let admin = mac.guest_users(&instance.id).join("admin");
    let environment = until("the runner has its environment", || {
        std::fs::read_to_string(admin.join("environment")).ok().filter(|text| text.contains("_EXIT_CODE"))
    })
    .await;
    assert!(environment.contains(&format!("ACTIONS_RUNNER_INPUT_JITCONFIG={SECRET}-jit\n")), "{environment}");
    assert!(environment.contains("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1\n"), "{environment}");
    let jit = std::fs::read_dir(admin.join("actions-runner")).unwrap();
    let left: Vec<_> = jit.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.contains("jit")), "{left:?}");

    let woken = stage.woken("set");
    std::fs::write(admin.join("end"), "").unwrap();
    let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, Some(7));
    assert!(stage.woken("set") > woken);
    assert_eq!(host(&backend, "mac-1").free_slots, 1, "its VM runs on");
    assert!(backend.log_tail("mac-1", &instance.id).await.unwrap().contains("last words"));
    backend.remove("mac-1", &instance.id).await.unwrap();
    assert_eq!((host(&backend, "mac-1").free_slots, shown(&backend, &instance.id)), (2, None));
    assert!(matches!(backend.remove("mac-1", &instance.id).await, Err(Error::Gone)));
    nothing_left(&mac).await;
    assert!(mac.calls().unwrap().iter().all(|call| call.no_auto_prune), "no image goes unasked");
}

#[tokio::test]
async fn a_busy_runner_is_stopped_when_that_is_asked_for() {
    let (stage, mac) = (Stage::new("stopped"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    backend.remove("mac-1", &instance.id).await.unwrap();
    assert_eq!(host(&backend, "mac-1").free_slots, 2);
    nothing_left(&mac).await;
}

/// Neither the log, nor an argument of any process, nor a file beside the runner ever has it.
#[tokio::test]
async fn the_configuration_is_seen_nowhere_but_by_the_runner() {
    let (stage, mac) = (Stage::new("secret"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let mut slot = backend.reserve("mac-1").unwrap();
    slot.ready().await.unwrap();
    let looks = std::sync::atomic::AtomicUsize::new(0);
    let watch = async {
        loop {
            let seen = command_lines().into_iter().find(|line| line.contains(SECRET));
            assert_eq!(seen, None);
            looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    };
    let instance = tokio::select! {
        instance = start_in(slot, "macs-a") => instance.unwrap(),
        never = watch => never,
    };
    assert!(looks.into_inner() > 3);
    let users = mac.guest_users(&instance.id);
    until("the runner has read its file", || {
        (!users.join("admin/actions-runner/.paddock-jit").exists()).then_some(())
    })
    .await;
    let found =
        std::process::Command::new("grep").args(["-rls", SECRET]).arg(mac.tart_home()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "no file has it");
    assert!(!log().contains(SECRET));
}

fn command_lines() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
}

#[tokio::test]
async fn what_a_controller_left_is_adopted_with_its_slots_and_addresses() {
    let (stage, mac) = (Stage::new("adopted"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let first = started(&backend).await;
    let address = vm(&mac, &first.id).mac_address;
    drop((backend, stage.macs.clone()));

    let next = stage.fresh();
    let backend = next.backend("set", template(&[&mac]));
    assert!(backend.reserve("mac-1").is_none(), "nobody knows yet what is taken");
    prepared(&backend).await;
    assert_eq!(shown(&backend, &first.id).unwrap().state, InstanceState::Running);
    assert_eq!(shown(&backend, &first.id).unwrap().runner, first.runner);
    assert_eq!(host(&backend, "mac-1").free_slots, 1);
    let second = start(&backend).await.unwrap();
    assert_ne!(vm(&mac, &second.id).mac_address, address, "the place is taken");
    assert_eq!((host(&backend, "mac-1").free_slots, calls(&mac, "clone")), (0, 2));

    backend.remove("mac-1", &first.id).await.unwrap();
    let third = start(&backend).await.unwrap();
    assert_eq!(vm(&mac, &third.id).mac_address, address, "a place has one MAC for ever");
    let other = vm(&mac, &second.id).mac_address;
    backend.remove("mac-1", &second.id).await.unwrap();
    let fourth = start(&backend).await.unwrap();
    assert_eq!(vm(&mac, &fourth.id).mac_address, other, "and so has the other");
}

/// The controller's own PATH has Tart, so the test runs itself once more with one that has.
#[tokio::test]
async fn a_controller_on_the_mac_itself_needs_no_sshd() {
    const HOME: &str = "PADDOCK_TEST_TART_HOME";
    if let Ok(home) = std::env::var(HOME) {
        return on_the_mac_itself(home).await;
    }
    let mac = customized("exit 0", |builder| builder.local()).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    let path = format!("{}:{}", mac.path().display(), std::env::var("PATH").unwrap());
    again.args(["--exact", "lives::a_controller_on_the_mac_itself_needs_no_sshd", "--nocapture"]);
    let ended = again.env("PATH", path).env(HOME, mac.tart_home()).kill_on_drop(true).output().await.unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(calls(&mac, "clone"), 1);
    nothing_left(&mac).await;
}

async fn on_the_mac_itself(home: String) {
    let stage = Stage::new("local");
    let mut template = template(&[]);
    template.hosts.push(HostSpec {
        name: "mac-1".to_owned(),
        endpoint: "local".to_owned(),
        max_vms: Some(2),
        login: Login::Given(None),
        tart_home: home,
    });
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, Some(0));
    backend.remove("mac-1", &instance.id).await.unwrap();
}
