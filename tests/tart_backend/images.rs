//! Images: there, pulled, moved, pruned.

use std::time::Duration;

use jiff::Timestamp;
use paddock::api::{PullPolicy, Reason};
use paddock::backend::tart::{Prune, TartTemplate};
use paddock::backend::{Availability, Backend, Error, Provider};
use testkit::tart::{Effect, Fault, IMAGE, Image};

use crate::stage::*;

#[tokio::test]
async fn an_image_is_pulled_once_for_all_and_placement_sees_where_it_is() {
    let stage = Stage::new("pulled");
    let mac = customized("sleep 1000", |b| b.scenario(|s| s.pull = Duration::from_millis(500))).await;
    let backends = [stage.backend("a", template(&[&mac])), stage.backend("b", template(&[&mac]))];
    connected(&backends[0]).await;
    assert_eq!(host(&backends[0], "mac-1").availability, Availability::Unprepared);
    let woken = stage.woken("b");
    backends.iter().for_each(|backend| backend.prepare("mac-1"));
    let preparing = host(&backends[1], "mac-1");
    assert!(matches!(preparing.availability, Availability::Preparing { .. }), "{preparing:?}");
    until("it is told what goes on", || {
        host(&backends[1], "mac-1").message.contains("pulling image").then_some(())
    })
    .await;
    for backend in &backends {
        assert_eq!(prepared(backend).await.availability, Availability::Ready);
    }
    assert!(stage.woken("b") > woken);
    assert_eq!(calls(&mac, "pull"), 1);
    start(&backends[0]).await.unwrap();
    assert_eq!(calls(&mac, "pull"), 1, "it is there");
}

#[tokio::test]
async fn an_image_that_is_not_to_be_pulled_is_missed() {
    let (stage, mac) = (Stage::new("never"), mac("exit 0").await);
    let backend = stage.backend("set", TartTemplate { pull_policy: PullPolicy::Never, ..template(&[&mac]) });
    let missed = prepared(&backend).await;
    assert!(
        matches!(missed.availability, Availability::BackOff { reason: Reason::ImageMissing, .. }),
        "{missed:?}"
    );
    assert!(missed.message.contains("pullPolicy is Never"), "{}", missed.message);
    // The name of another image that begins like it is not its own.
    let other = format!("{IMAGE}-2");
    mac.push(&other, &image("exit 0")).unwrap();
    assert!(mac.tart(&["pull", &other]).await.unwrap().status.success());
    assert!(matches!(prepared(&backend).await.availability, Availability::BackOff { .. }));
}

#[tokio::test]
async fn a_pull_that_fails_says_why_and_is_tried_again() {
    let (stage, mac) = (Stage::new("refused"), mac("exit 0").await);
    mac.fault(Fault::of("pull", Effect::HalfWay { text: "Error: the line was cut".to_owned() }).times(1))
        .unwrap();
    let backend = stage.backend("set", template(&[&mac]));
    let failed = prepared(&backend).await;
    assert!(
        matches!(failed.availability, Availability::BackOff { reason: Reason::ImagePullFailed, .. }),
        "{failed:?}"
    );
    assert!(failed.message.contains("the line was cut"), "{}", failed.message);
    until("it is tried again", || {
        backend.prepare("mac-1");
        (host(&backend, "mac-1").availability == Availability::Ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_full_disk_is_called_that() {
    let stage = Stage::new("disk");
    let mac = customized("exit 0", |b| b.scenario(|s| s.disk_gb = 10)).await;
    let backend = stage.backend("set", template(&[&mac]));
    let full = prepared(&backend).await;
    assert!(matches!(full.availability, Availability::BackOff { reason: Reason::DiskFull, .. }), "{full:?}");
    assert!(full.message.contains("out of space"), "{}", full.message);
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_before_each_start_and_replaces_what_was_warm() {
    let (stage, mac) = (Stage::new("moved"), mac("sleep 1000").await);
    let backend =
        stage.backend("set", TartTemplate { pull_policy: PullPolicy::Always, warm: 1, ..template(&[&mac]) });
    prepared(&backend).await;
    until("one is warm", || {
        backend.keep_warm(true);
        (backend.warm() == Some(1)).then_some(())
    })
    .await;
    let warm = mac.vms().unwrap().remove(0).name;
    let instance = start(&backend).await.unwrap();
    assert_eq!(instance.id, warm, "the image is the one that it was");
    until("another is warm", || {
        backend.keep_warm(true);
        (backend.warm() == Some(1)).then_some(())
    })
    .await;
    backend.remove("mac-1", &instance.id).await.unwrap();
    let old = mac.vms().unwrap().remove(0).name;
    mac.push(IMAGE, &Image { memory_mb: 4096, ..image("sleep 1000") }).unwrap();
    let instance = start(&backend).await.unwrap();
    assert_ne!(instance.id, old);
    assert_eq!(vm(&mac, &instance.id).memory_mb, 4096, "it is of the image that the name leads to now");
}

#[tokio::test]
async fn an_image_that_was_pruned_under_us_is_pulled_again() {
    let (stage, mac) = (Stage::new("pruned"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    assert_eq!(prepared(&backend).await.availability, Availability::Ready);
    assert!(mac.tart(&["prune", "--space-budget", "0"]).await.unwrap().status.success());
    until("that is seen", || {
        (host(&backend, "mac-1").availability == Availability::Unprepared).then_some(())
    })
    .await;
    started(&backend).await;
    assert_eq!(calls(&mac, "pull"), 2);
}

#[tokio::test]
async fn images_that_nobody_used_are_pruned_on_a_timer_and_no_local_vm_is() {
    let (stage, mac) = (Stage::new("timer"), mac("sleep 1000").await);
    let old = "ghcr.io/acme/old:1";
    mac.push(old, &image("exit 0")).unwrap();
    for args in [&["pull", old] as &[&str], &["clone", old, "golden"], &["pull", IMAGE]] {
        assert!(mac.tart(args).await.unwrap().status.success());
    }
    for name in [old, "golden"] {
        mac.set_accessed(name, Timestamp::now() - Duration::from_secs(30 * 86_400)).unwrap();
    }
    let mut template = template(&[&mac]);
    template.prune = Some(Prune { older_than_days: 7, budget_gb: 1000 });
    template.prune_interval = Duration::from_millis(300);
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let listed = async || String::from_utf8(mac.tart(&["list", "-q"]).await.unwrap().stdout).unwrap();
    let begun = std::time::Instant::now();
    while listed().await.contains(old) {
        assert!(begun.elapsed() < PATIENCE, "{}", listed().await);
    }
    let left = listed().await;
    assert!(left.contains("golden") && left.contains(IMAGE), "{left}");
    let freed = until("what it freed is counted", || {
        stage.provider().freed().into_iter().find(|freed| freed.bytes > 0)
    })
    .await;
    assert_eq!((freed.host.endpoint.as_str(), freed.store), (mac.endpoint().as_str(), "cache"));
}

/// A local VM serves as an image, too.
#[tokio::test]
async fn a_golden_vm_is_cloned_and_never_pulled() {
    let (stage, mac) = (Stage::new("golden"), mac("sleep 1000").await);
    assert!(mac.tart(&["clone", IMAGE, "golden"]).await.unwrap().status.success());
    let backend = stage.backend("set", TartTemplate { image: "golden".to_owned(), ..template(&[&mac]) });
    started(&backend).await;
    assert_eq!(calls(&mac, "pull"), 0);
    let missing = stage.backend("other", TartTemplate { image: "nowhere".to_owned(), ..template(&[&mac]) });
    let failed = prepared(&missing).await;
    assert!(matches!(failed.availability, Availability::BackOff { .. }), "{failed:?}");
    assert!(!matches!(start(&backend).await, Err(Error::Refused(_))));
}
