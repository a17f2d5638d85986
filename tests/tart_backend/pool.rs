//! VMs that are booted ahead of need.

use std::time::Duration;

use paddock::backend::tart::{Limits, TartTemplate};
use paddock::backend::{Availability, Backend};
use testkit::tart::{Effect, Fault, Mac, VmState};

use crate::stage::*;

fn warm(macs: &[&Mac], size: u32) -> TartTemplate {
    TartTemplate { warm: size, ..template(macs) }
}

/// Tends the pool until so many are warm, and checks that there are never more.
async fn tended(backend: &paddock::backend::tart::TartBackend, size: u32) {
    until("the pool is as large as it should be", || {
        backend.keep_warm(true);
        let now = backend.warm().unwrap();
        assert!(now <= size, "{now} are warm");
        (now == size).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pool_is_filled_one_at_a_time_and_taken_from_first() {
    let stage = Stage::new("filled");
    let slow =
        async || customized("sleep 1000", |b| b.scenario(|s| s.boot = Duration::from_millis(400))).await;
    let macs = [slow().await, slow().await];
    let backend = stage.backend("set", warm(&[&macs[0], &macs[1]], 3));
    prepared_host(&backend, "mac-1").await;
    prepared_host(&backend, "mac-2").await;
    assert_eq!(backend.warm(), Some(0));
    until("three are warm", || {
        backend.keep_warm(true);
        // A configuration that is being written cannot be read.
        let booting =
            |mac: &Mac| calls(mac, "clone").saturating_sub(mac.running().map_or(usize::MAX, |vms| vms.len()));
        assert!(macs.iter().all(|mac| booting(mac) <= 1), "one at a time on each host");
        (backend.warm() == Some(3)).then_some(())
    })
    .await;
    for _ in 0..20 {
        backend.keep_warm(true);
        tokio::task::yield_now().await;
    }
    assert_eq!(macs.iter().map(|mac| calls(mac, "clone")).sum::<usize>(), 3, "never above the size");
    assert!(
        backend.instances().iter().all(|listing| listing.instances.is_empty()),
        "they are nobody's runners"
    );

    let (one, two) = (host(&backend, "mac-1"), host(&backend, "mac-2"));
    assert_eq!((one.free_slots + two.free_slots, one.warm + two.warm), (4, 3));
    let clones = calls(&macs[0], "clone");
    start(&backend).await.unwrap();
    assert_eq!((calls(&macs[0], "clone"), backend.warm()), (clones, Some(2)), "a warm one was taken");
}

#[tokio::test]
async fn demand_takes_the_vm_that_is_being_made_and_no_slot_is_left_to_wait_for() {
    let stage = Stage::new("claimed");
    let mac = customized("sleep 1000", |b| b.scenario(|s| s.boot = Duration::from_millis(800))).await;
    let mut template = warm(&[&mac], 1);
    template.hosts[0].max_vms = Some(1);
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    backend.keep_warm(true);
    assert_eq!((host(&backend, "mac-1").free_slots, backend.warm()), (1, Some(0)));
    let instance = start(&backend).await.unwrap();
    assert_eq!((calls(&mac, "clone"), host(&backend, "mac-1").free_slots), (1, 0));
    backend.keep_warm(true);
    assert_eq!(mac.vms().unwrap().len(), 1, "there is no slot for another");
    backend.remove("mac-1", &instance.id).await.unwrap();
    tended(&backend, 1).await;
}

#[tokio::test]
async fn a_warm_vm_that_died_is_noticed_and_replaced() {
    let (stage, mac) = (Stage::new("dead"), mac("sleep 1000").await);
    let backend = stage.backend("set", warm(&[&mac], 1));
    prepared(&backend).await;
    tended(&backend, 1).await;
    let dead = mac.vms().unwrap().remove(0).name;
    assert!(mac.tart(&["stop", &dead]).await.unwrap().status.success());
    until("its death is seen", || (backend.warm() == Some(0)).then_some(())).await;
    tended(&backend, 1).await;
    until("it is gone", || mac.vms().unwrap().iter().all(|vm| vm.name != dead).then_some(())).await;

    // One whose guest hangs looks well until it is asked.
    let hung = mac.vms().unwrap().remove(0).name;
    mac.fault(Fault::of("exec", Effect::Hangs).on(&hung)).unwrap();
    let instance = start(&backend).await.unwrap();
    assert_ne!(instance.id, hung, "a job is given no VM that does not answer");
    assert!(mac.vms().unwrap().iter().all(|vm| vm.name != hung));
}

#[tokio::test]
async fn warm_vms_of_an_old_template_are_replaced_and_all_go_when_none_is_wanted() {
    let (stage, mac) = (Stage::new("template"), mac("sleep 1000").await);
    let before = stage.backend("set", warm(&[&mac], 1));
    prepared(&before).await;
    tended(&before, 1).await;
    let old = mac.vms().unwrap().remove(0);
    let changed = TartTemplate { cpu: Some(8), ..warm(&[&mac], 1) };
    let after = stage.backend("set", changed);
    drop(before);
    prepared(&after).await;
    tended(&after, 1).await;
    until("the old one is gone", || mac.vms().unwrap().iter().all(|vm| vm.name != old.name).then_some(()))
        .await;
    assert_eq!(mac.vms().unwrap()[0].cpu, 8);

    after.keep_warm(false);
    until("none is left", || (after.left_over() == 0).then_some(())).await;
    nothing_left(&mac).await;
    assert_eq!(host(&after, "mac-1").free_slots, 2);
}

#[tokio::test]
async fn a_pool_is_adopted_and_what_a_controller_left_half_made_is_removed() {
    let (stage, mac) = (Stage::new("restarted"), mac("sleep 1000").await);
    let backend = stage.backend("set", warm(&[&mac], 1));
    prepared(&backend).await;
    tended(&backend, 1).await;
    let kept = mac.vms().unwrap().remove(0).name;
    drop(backend);
    // As a controller leaves it that dies between the clone and the start.
    let record = std::fs::read_to_string(mac.tart_home().join("paddock").join(&kept).join("record")).unwrap();
    let half = "paddock-half-made";
    assert!(mac.tart(&["clone", &kept, half]).await.unwrap().status.success());
    let notes = mac.tart_home().join("paddock").join(half);
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("record"), record).unwrap();

    let next = stage.fresh();
    let backend = next.backend("set", warm(&[&mac], 1));
    prepared(&backend).await;
    assert_eq!((backend.warm(), backend.left_over()), (Some(1), 2));
    tended(&backend, 1).await;
    until("what was half made is gone", || (backend.left_over() == 1).then_some(())).await;
    let vms = mac.vms().unwrap();
    assert_eq!((vms.len(), vms[0].name.as_str(), vms[0].state), (1, kept.as_str(), VmState::Running));
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_a_warm_vm_or_none() {
    let (stage, mac) = (Stage::new("given-up"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let mut slot = backend.reserve("mac-1").unwrap();
    slot.ready().await.unwrap();
    drop(slot);
    assert_eq!(backend.warm(), Some(1), "it is up, and nobody has it");
    backend.keep_warm(true);
    until("it goes, as none is wanted", || (backend.left_over() == 0).then_some(())).await;
    nothing_left(&mac).await;
    assert_eq!(host(&backend, "mac-1").availability, Availability::Ready);
}

/// Starts of VMs wait for each other's clones: until then `tart list` shows the VM as stopped.
#[tokio::test]
async fn a_vm_whose_start_is_slow_is_not_taken_for_dead() {
    let stage = Stage::with("slow-start", Limits { relist: Duration::from_secs(600), ..limits() });
    let mac = mac("sleep 1000").await;
    mac.fault(Fault::of("run", Effect::Slow { ms: 4000 })).unwrap();
    let backend = stage.backend("set", warm(&[&mac], 1));
    prepared(&backend).await;
    backend.keep_warm(true);
    until("it is being started", || (calls(&mac, "run") == 1).then_some(())).await;
    let before = backend.instances()[0].listed_at;
    // Something else ends on the Mac, and so it is listed.
    let notes = mac.tart_home().join("paddock/other");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("ran"), "0 0").unwrap();
    until("it is listed", || (backend.instances()[0].listed_at > before).then_some(())).await;
    assert_eq!(mac.running().unwrap(), [""; 0], "it was listed too late to show anything");
    tended(&backend, 1).await;
    assert_eq!((calls(&mac, "clone"), backend.left_over()), (1, 1));
}
