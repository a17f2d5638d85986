//! Slots of a Mac, shared by all scale sets that name it, and by strangers.

use paddock::api::{HostCeiling, Reason};
use paddock::backend::{Availability, Backend, Error};
use testkit::tart::IMAGE;

use crate::stage::*;

#[tokio::test]
async fn two_sets_share_what_apple_permits_unless_the_operator_says_otherwise() {
    let (stage, mac) = (Stage::new("sharing"), mac("sleep 1000").await);
    let first = stage.backend("first", template(&[&mac]));
    let mut larger = template(&[&mac]);
    larger.hosts[0].max_vms = Some(5);
    let second = stage.backend("second", larger);
    prepared(&first).await;
    prepared(&second).await;
    let free = || (host(&first, "mac-1").free_slots, host(&second, "mac-1").free_slots);
    assert_eq!(free(), (2, 2));
    let held = [first.reserve("mac-1").unwrap(), second.reserve("mac-1").unwrap()];
    assert_eq!(free(), (0, 0));
    assert!(first.reserve("mac-1").is_none() && second.reserve("mac-1").is_none());
    let message = host(&second, "mac-1").message;
    assert!(message.contains("all 2 slots, shared by 2 scale sets"), "{message}");
    let woken = stage.woken("first");
    drop(held);
    assert!(stage.woken("first") > woken, "who waits for a slot is woken when one comes free");
    stage.macs.limit(&[HostCeiling { endpoint: mac.endpoint(), max_runners: 4 }]);
    assert_eq!(free(), (2, 4), "each has its own number within the operator's");
}

#[tokio::test]
async fn a_set_that_wants_nothing_of_a_mac_takes_nothing_from_the_others() {
    let (stage, mac) = (Stage::new("cordon"), mac("sleep 1000").await);
    let mut cordoned = template(&[&mac]);
    cordoned.hosts[0].max_vms = Some(0);
    let mut one = template(&[&mac]);
    one.hosts[0].max_vms = Some(1);
    let (cordoned, one) = (stage.backend("none", cordoned), stage.backend("one", one));
    prepared(&cordoned).await;
    prepared(&one).await;
    cordoned.wait_for_slots("mac-1", 2);
    assert_eq!((host(&cordoned, "mac-1").free_slots, host(&one, "mac-1").free_slots), (0, 1));
    let message = host(&cordoned, "mac-1").message;
    assert!(message.contains("gives this backend 0 slots"), "{message}");
    let other = stage.backend("other", template(&[&mac]));
    start(&one).await.unwrap();
    assert_eq!((host(&one, "mac-1").free_slots, host(&other, "mac-1").free_slots), (0, 1));
}

#[tokio::test]
async fn a_strangers_vm_takes_a_slot_for_as_long_as_it_runs() {
    let (stage, mac) = (Stage::new("stranger"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    for args in [&["clone", IMAGE, "theirs"] as &[&str], &["clone", IMAGE, "idle"]] {
        assert!(mac.tart(args).await.unwrap().status.success());
    }
    let mut theirs = mac.command("tart").args(["run", "--no-graphics", "theirs"]).spawn().unwrap();
    until("it takes a slot", || (host(&backend, "mac-1").free_slots == 1).then_some(())).await;
    start(&backend).await.unwrap();
    assert!(backend.reserve("mac-1").is_none());
    assert!(mac.tart(&["stop", "theirs"]).await.unwrap().status.success());
    theirs.wait().await.unwrap();
    until("its slot is free", || (host(&backend, "mac-1").free_slots == 1).then_some(())).await;
    let names: Vec<String> = mac.vms().unwrap().into_iter().map(|vm| vm.name).collect();
    assert!(names.contains(&"theirs".to_owned()) && names.contains(&"idle".to_owned()), "{names:?}");
}

/// A VM of another user's, or of another tool's, is in no list.
#[tokio::test]
async fn the_system_limit_marks_the_host_full_and_leaks_no_clone() {
    let (stage, mac) = (Stage::new("limit"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let strangers = [mac.run_strangers_vm().unwrap().unwrap(), mac.run_strangers_vm().unwrap().unwrap()];
    let woken = stage.woken("set");
    let Err(Error::NoCapacity(why)) = start(&backend).await else { panic!("it is started") };
    assert_eq!(why.reason, Reason::HostFull);
    assert!(why.message.contains("exceeds the system limit"), "{why}");
    assert!(stage.woken("set") > woken);
    let full = host(&backend, "mac-1");
    assert_eq!((full.availability.clone(), full.free_slots), (Availability::Ready, 0), "{full:?}");
    assert!(full.message.contains("as many VMs as macOS lets it"), "{}", full.message);
    assert!(backend.reserve("mac-1").is_none());
    nothing_left(&mac).await;
    drop(strangers);
}

#[tokio::test]
async fn a_set_that_does_not_take_its_slot_does_not_keep_it_from_others() {
    let (stage, mac) = (Stage::new("idler"), mac("sleep 1000").await);
    let mut one = template(&[&mac]);
    one.hosts[0].max_vms = Some(1);
    stage.macs.limit(&[HostCeiling { endpoint: mac.endpoint(), max_runners: 1 }]);
    let (idle, eager) = (stage.backend("idle", one.clone()), stage.backend("eager", one));
    prepared(&idle).await;
    prepared(&eager).await;
    idle.wait_for_slots("mac-1", 1);
    eager.wait_for_slots("mac-1", 1);
    assert_eq!((host(&idle, "mac-1").free_slots, host(&eager, "mac-1").free_slots), (1, 0));
    assert!(host(&eager, "mac-1").message.contains("wait longer"));
    let woken = stage.woken("eager");
    until("the turn passes", || (host(&eager, "mac-1").free_slots == 1).then_some(())).await;
    assert!(stage.woken("eager") > woken, "whose turn it is then is woken");
}

#[tokio::test]
async fn a_host_that_is_named_twice_is_one() {
    let (stage, mac) = (Stage::new("twice"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac, &mac]));
    prepared(&backend).await;
    let second = host(&backend, "mac-2");
    assert_eq!(second.availability, Availability::Refused);
    assert!(second.message.contains("is host mac-1 already"), "{}", second.message);
    assert_eq!(backend.instances().len(), 1);
}

/// What costs a Mac a command costs it once, however many ask.
#[tokio::test]
async fn a_host_is_listed_once_a_round_whatever_the_number_of_sets() {
    let (stage, mac) = (Stage::new("rounds"), mac("sleep 1000").await);
    let backends: Vec<_> =
        (0..5).map(|number| stage.backend(&format!("set-{number}"), template(&[&mac]))).collect();
    prepared(&backends[0]).await;
    let before = calls(&mac, "list");
    let listed = || backends[0].instances()[0].listed_at;
    for _ in 0..3 {
        let last = listed();
        until("another round", || (listed() > last).then_some(())).await;
    }
    let rounds = calls(&mac, "list") - before;
    assert!((3..=5).contains(&rounds), "{rounds} listings in three rounds");
}
