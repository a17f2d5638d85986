//! Values that would do harm if anything took them for more than values, and ids of what is not ours.

use std::path::Path;

use paddock::backend::tart::{Login, TartTemplate};
use paddock::backend::{Backend, Error, Provider};
use testkit::tart::IMAGE;

use crate::stage::*;

const VALUES: [&str; 6] = [
    "x'; touch PLANTED; '",
    "x\"; touch PLANTED; \"",
    "$(touch PLANTED)",
    "`touch PLANTED`",
    "x\ntouch PLANTED\n",
    "x\\'; touch PLANTED #",
];

#[tokio::test]
async fn a_planted_value_runs_nothing_wherever_it_is() {
    let (stage, mac) = (Stage::new("values"), mac("sleep 1000").await);
    let planted = mac.tart_home().with_file_name("planted");
    let guests = "/Users/admin/planted";
    for value in VALUES {
        let on_host = value.replace("PLANTED", &planted.display().to_string());
        // Fields that make up a command on the host.
        let image = TartTemplate { image: on_host.clone(), ..template(&[&mac]) };
        let backend = stage.backend("image", image);
        prepared(&backend).await;
        let mut home = template(&[&mac]);
        home.hosts[0].tart_home = format!("/{on_host}");
        let elsewhere = stage.backend("home", home);
        until("it is asked", || {
            (!host(&elsewhere, "mac-1").message.is_empty() || elsewhere.instances()[0].current).then_some(())
        })
        .await;
        // Those that come to the guest, and what is recorded.
        let in_guest = value.replace("PLANTED", guests);
        let dir = TartTemplate { runner_dir: format!("/{in_guest}"), ..template(&[&mac]) };
        let backend = stage.backend(&on_host, dir);
        prepared(&backend).await;
        assert!(start(&backend).await.is_err(), "there is no such folder: {value}");
        let mut slot = backend.reserve("mac-1").unwrap();
        slot.ready().await.unwrap();
        let vm = mac.running().unwrap().remove(0);
        let runner = paddock::backend::NewRunner { name: &on_host, jit: &jit() };
        let _ = slot.start(&runner).await;
        assert!(!mac.guest_users(&vm).join("admin/planted").exists(), "{value}");
        assert!(!planted.exists() && !Path::new("PLANTED").exists(), "{value}");
        nothing_left(&mac).await;
    }
}

#[tokio::test]
async fn what_is_not_ours_is_neither_removed_nor_read() {
    let (stage, mac) = (Stage::new("foreign"), mac("sleep 1000").await);
    let (ours, theirs) =
        (stage.backend("ours", template(&[&mac])), stage.backend("theirs", template(&[&mac])));
    prepared(&ours).await;
    let instance = started(&theirs).await;
    assert!(matches!(ours.remove("mac-1", &instance.id).await, Err(Error::Refused(_))));
    assert!(matches!(ours.log_tail("mac-1", &instance.id).await, Err(Error::Refused(_))));
    assert!(mac.tart(&["clone", IMAGE, "golden"]).await.unwrap().status.success());
    for id in ["golden", "", "../golden", "paddock-x/../golden", "paddock-nobody", "-x"] {
        let removed = ours.remove("mac-1", id).await;
        assert!(matches!(removed, Err(Error::Refused(_) | Error::Gone)), "{id}: {removed:?}");
    }
    // Another cluster's, on the same Mac.
    let other = Stage::new("foreign-too");
    let backend = other.backend("theirs", template(&[&mac]));
    prepared(&backend).await;
    assert!(shown(&backend, &instance.id).is_none());
    assert_eq!(host(&backend, "mac-1").free_slots, 1, "it takes a slot");
    assert!(matches!(backend.remove("mac-1", &instance.id).await, Err(Error::Refused(_))));
    assert!(other.provider().instances().is_empty());
    let names: Vec<String> = mac.vms().unwrap().into_iter().map(|vm| vm.name).collect();
    assert!(names.contains(&"golden".to_owned()) && names.contains(&instance.id), "{names:?}");
}

#[tokio::test]
async fn what_nobody_speaks_for_is_shown_and_removed_with_what_was_kept_ready() {
    let (stage, mac) = (Stage::new("orphans"), mac("sleep 1000").await);
    let backend = stage.backend("gone", TartTemplate { warm: 1, ..template(&[&mac]) });
    let instance = started(&backend).await;
    until("one is warm", || {
        backend.keep_warm(true);
        (backend.warm() == Some(1)).then_some(())
    })
    .await;
    let provider = stage.provider();
    let orphans = provider.instances();
    assert_eq!(orphans.len(), 2, "{orphans:?}");
    assert!(orphans.iter().any(|orphan| orphan.instance.runner == instance.runner));
    assert!(
        orphans.iter().all(|orphan| orphan.scale_set == "ci/gone" && orphan.host.endpoint == mac.endpoint())
    );
    for orphan in &orphans {
        provider.remove_orphan(orphan).await.unwrap();
        provider.remove_orphan(orphan).await.unwrap();
    }
    nothing_left(&mac).await;
}

#[tokio::test]
async fn no_log_shows_a_login() {
    let (stage, mac) = (Stage::new("login-hidden"), mac("exit 0").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let key = mac.private_key().unwrap();
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("---")).collect();
    let shown = format!("{backend:?} {:?} {}", Login::Given(login(&mac)), log());
    assert!(secret.iter().all(|line| !shown.contains(line)));
}
