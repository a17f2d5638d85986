//! The cache of images: pulls, tags that move, and what makes room.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use jiff::{Timestamp, ToSpan};
use testkit::tart::{Effect, Fault, IMAGE, Image, Mac, Os};

use super::support::*;

const OTHER: &str = "ghcr.io/acme/other:1";

async fn images(mac: &Mac) -> Vec<String> {
    let list = tart(mac, &["list", "--source", "oci", "--quiet"]).await;
    list.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_tag_that_moves_is_pulled_anew_and_the_image_before_goes() {
    let mac = local(builder()).await;
    tart(&mac, &["pull", IMAGE]).await;
    let before = tart(&mac, &["fqn", IMAGE]).await;
    let digest = mac.push(IMAGE, &Image { cpu: 8, ..Image::default() }).expect("pushed");
    tart(&mac, &["clone", IMAGE, "old"]).await;
    assert_eq!(mac.vms().expect("the VMs")[0].cpu, 4, "a clone takes what is cached");
    assert!(tart(&mac, &["pull", IMAGE]).await.contains("pulling disk (25.0 GB compressed)..."));
    tart(&mac, &["clone", IMAGE, "new"]).await;
    assert_eq!(mac.vms().expect("the VMs")[0].cpu, 8);
    let now = tart(&mac, &["fqn", IMAGE]).await;
    assert_eq!(now.trim(), format!("ghcr.io/acme/macos@{digest}"));
    assert_eq!(images(&mac).await.len(), 2);
    assert!(!images(&mac).await.contains(&before.trim().to_owned()));
}

#[tokio::test]
async fn an_image_that_was_pulled_by_its_digest_stays_without_a_tag() {
    let mac = local(builder()).await;
    let digest = mac.push(OTHER, &Image::default()).expect("pushed");
    let name = format!("ghcr.io/acme/other@{digest}");
    tart(&mac, &["pull", &name]).await;
    tart(&mac, &["prune", "--gc"]).await;
    assert_eq!(images(&mac).await, [name]);
}

#[tokio::test]
async fn pulls_of_one_host_wait_for_each_other_and_fetch_once() {
    let mac = local(builder().scenario(|s| s.pull = Duration::from_millis(500))).await;
    let pulls = join_all((0..3).map(|_| tart(&mac, &["pull", IMAGE]))).await;
    assert_eq!(pulls.iter().filter(|output| output.contains("pulling disk")).count(), 1);
    assert_eq!(pulls.iter().filter(|output| output.contains("waiting for lock...")).count(), 2);
}

#[tokio::test]
async fn a_pull_that_is_cut_or_killed_can_be_made_again() {
    let mac = local(builder()).await;
    let text = "Error: The network connection was lost.".to_owned();
    mac.fault(Fault::of("pull", Effect::HalfWay { text }).times(1)).expect("planted");
    assert_eq!(refused(&mac, &["pull", IMAGE]).await.0, 1);
    mac.scenario(|s| s.pull = Duration::from_secs(600)).expect("changed");
    let mut killed =
        mac.command("tart").args(["pull", IMAGE]).stdout(Stdio::null()).spawn().expect("spawned");
    mac.wait_until(PATIENCE, |mac| mac.calls().is_ok_and(|calls| calls.len() == 2)).await.expect("begun");
    killed.kill().await.expect("killed");
    mac.scenario(|s| s.pull = Duration::ZERO).expect("changed");
    assert_eq!(images(&mac).await, Vec::<String>::new());
    tart(&mac, &["pull", IMAGE]).await;
    assert_eq!(images(&mac).await.len(), 2);
}

#[tokio::test]
async fn an_image_is_evicted_when_the_disk_is_short_unless_that_is_switched_off() {
    let mac = local(builder().image(IMAGE, Image::default()).image(OTHER, Image::default())).await;
    tart(&mac, &["pull", OTHER]).await;
    mac.scenario(|s| s.disk_gb = 60).expect("changed");
    let set = ["TART_NO_AUTO_PRUNE=", "tart", "clone", IMAGE, "vm"];
    assert!(mac.command("env").args(set).output().await.expect("an answer").status.success());
    assert!(images(&mac).await.iter().any(|name| name == OTHER), "it is left");
    tart(&mac, &["delete", IMAGE]).await;
    tart(&mac, &["clone", IMAGE, "vm"]).await;
    assert!(!images(&mac).await.iter().any(|name| name == OTHER), "it had to make room");
    assert_eq!(mac.vms().expect("the VMs").len(), 1, "no local VM does");
}

#[tokio::test]
async fn a_full_disk_fails_a_pull_and_leaves_no_image() {
    let mac = local(builder().scenario(|s| s.disk_gb = 20)).await;
    let (code, errors) = refused(&mac, &["clone", IMAGE, "vm"]).await;
    assert_eq!(code, 1);
    assert!(errors.starts_with("Error: ") && errors.contains("is out of space"), "{errors}");
    assert_eq!((images(&mac).await, mac.vms().expect("the VMs")), (vec![], vec![]));
}

#[tokio::test]
async fn prune_goes_by_the_last_use() {
    let mac = local(builder().image(IMAGE, Image::default()).image(OTHER, Image::default())).await;
    for name in [IMAGE, OTHER] {
        tart(&mac, &["pull", name]).await;
    }
    mac.set_accessed(OTHER, Timestamp::now() - 200.hours()).expect("set");
    tart(&mac, &["prune", "--entries", "caches", "--older-than", "7"]).await;
    let left = images(&mac).await;
    assert!(left.len() == 2 && left.iter().all(|name| name.starts_with("ghcr.io/acme/macos")), "{left:?}");

    tart(&mac, &["pull", OTHER]).await;
    mac.set_accessed(IMAGE, Timestamp::now() - 1.hours()).expect("set");
    tart(&mac, &["prune", "--space-budget", "30"]).await;
    let left = images(&mac).await;
    assert!(left.len() == 2 && left.iter().all(|name| name.starts_with("ghcr.io/acme/other")), "{left:?}");
}

#[tokio::test]
async fn a_private_image_wants_a_login_whose_password_comes_by_its_input() {
    let private = Image { private: true, ..Image::default() };
    let mac = local(builder().image(OTHER, private)).await;
    let (code, errors) = refused(&mac, &["pull", OTHER]).await;
    assert!(code == 1 && errors.contains("code: 401"), "{errors}");
    let login = "printf secret | tart login ghcr.io --username someone --password-stdin";
    assert!(mac.command("sh").args(["-c", login]).status().await.expect("an answer").success());
    tart(&mac, &["pull", OTHER]).await;
    mac.unpublish(OTHER).expect("removed");
    let (code, errors) = refused(&mac, &["pull", OTHER]).await;
    assert!(code == 1 && errors.contains("code: 404"), "{errors}");
}

#[tokio::test]
async fn linux_guests_take_no_place_and_cannot_be_suspended() {
    let linux = Image { os: Os::Linux, files: BTreeMap::new(), ..Image::default() };
    let mac = local(builder().image(OTHER, linux)).await;
    let names = ["a", "b", "c"];
    for name in names {
        tart(&mac, &["clone", OTHER, name]).await;
    }
    let (code, errors) = refused(&mac, &["run", "--suspendable", "a"]).await;
    assert!(code == 64 && errors.contains("You can only suspend macOS VMs"), "{errors}");
    let _runs = names.map(|name| run(&mac, name));
    mac.wait_until(PATIENCE, |mac| mac.running().is_ok_and(|running| running.len() == 3))
        .await
        .expect("all run");
}
