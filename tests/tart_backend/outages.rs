//! Macs that go away and come back, and those that are not who they should be.

use std::time::Duration;

use jiff::Timestamp;
use paddock::backend::remote::SshLogin;
use paddock::backend::tart::{Limits, Login};
use paddock::backend::{Availability, Backend, Error, Listing, Provider};
use paddock::runner::{InstanceState, Job, JobEvent, Ledger, Phase};

use crate::stage::*;

async fn unreachable(backend: &paddock::backend::tart::TartBackend) {
    until("the loss is seen", || {
        (host(backend, "mac-1").availability == Availability::Unreachable).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_runner_works_on_while_its_hosts_sshd_is_away_and_is_seen_again() {
    let (stage, mut mac) =
        (Stage::new("sshd"), mac("until [ -e /Users/admin/end ]; do sleep 0.1; done").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    let slot = backend.reserve("mac-1").unwrap();
    let woken = stage.woken("set");
    mac.kill_sshd().await.unwrap();
    unreachable(&backend).await;
    assert!(stage.woken("set") > woken);
    let listing = backend.instances().remove(0);
    assert!(!listing.current && listing.listed_at.is_some());
    assert_eq!(
        shown(&backend, &instance.id).unwrap().state,
        InstanceState::Running,
        "it stays as last known"
    );
    assert!(backend.reserve("mac-1").is_none());
    assert!(matches!(start_in(slot, "macs-a").await, Err(Error::Unreachable(_))));
    assert!(matches!(backend.remove("mac-1", &instance.id).await, Err(Error::Unreachable(_))));
    std::fs::write(mac.guest_users(&instance.id).join("admin/end"), "").unwrap();
    mac.start_sshd().await.unwrap();
    let ended = until("its end is seen when the host is back", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, Some(0));
    assert_eq!((mac.vms().unwrap().len(), calls(&mac, "clone")), (1, 1), "nothing was replaced");
}

#[tokio::test]
async fn a_host_that_has_been_silent_for_long_is_lost_until_it_is_back() {
    let stage = Stage::with("lost", Limits { silence: Duration::from_secs(1), ..limits() });
    let mut mac = mac("sleep 1000").await;
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    assert!(backend.lost_hosts().is_empty());
    mac.kill_sshd().await.unwrap();
    unreachable(&backend).await;
    let woken = stage.woken("set");
    until("it is lost", || (backend.lost_hosts() == ["mac-1"]).then_some(())).await;
    until("its set is told", || (stage.woken("set") > woken).then_some(())).await;
    mac.start_sshd().await.unwrap();
    until("it is back", || backend.lost_hosts().is_empty().then_some(())).await;
    assert_eq!(shown(&backend, &instance.id).unwrap().state, InstanceState::Running);
}

/// What a scale set makes of that: the idle runner counts as gone, the busy one stays, and both are there when the host is.
#[tokio::test]
async fn of_a_lost_host_the_busy_runner_stays_and_all_are_adopted_when_it_is_back() {
    let stage = Stage::with("lost-set", Limits { silence: Duration::from_secs(1), ..limits() });
    let mut mac = mac("sleep 1000").await;
    let backend = stage.backend("set", template(&[&mac]));
    let (busy, idle) = (started(&backend).await, start(&backend).await.unwrap());
    let mut ledger = Ledger::new();
    // Removed so long ago that a host which shows it again is believed.
    let now = || Timestamp::now() - Duration::from_secs(60);
    let look = |ledger: &mut Ledger| {
        let seen = |listing: Listing| listing.observed(backend.name());
        ledger.observe(&backend.instances().into_iter().map(seen).collect::<Vec<_>>(), now());
        let lost = backend.lost_hosts().into_iter().map(|host| (backend.name().to_owned(), host));
        ledger.mark_lost(&lost.collect::<Vec<_>>(), now());
    };
    let phases = |ledger: &Ledger| {
        [&busy, &idle].map(|i| ledger.runner(&i.runner).map(|r| (r.phase, r.leaving.host_lost)))
    };
    look(&mut ledger);
    let job = Job { id: "1".to_owned(), ..Job::default() };
    ledger.apply(&JobEvent::Started { job, runner_name: busy.runner.clone(), runner_id: 1 }, now());
    assert_eq!(phases(&ledger), [Some((Phase::Busy, false)), Some((Phase::Idle, false))]);
    mac.kill_sshd().await.unwrap();
    until("it is lost", || (backend.lost_hosts() == ["mac-1"]).then_some(())).await;
    look(&mut ledger);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, true)), Some((Phase::Idle, true))]);
    // The plan has the registration of what is idle there removed.
    ledger.deregistered(&idle.runner);
    look(&mut ledger);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, true)), None], "no job can be on it any more");
    mac.start_sshd().await.unwrap();
    until("it is back", || backend.lost_hosts().is_empty().then_some(())).await;
    connected(&backend).await;
    look(&mut ledger);
    assert_eq!(phases(&ledger), [Some((Phase::Busy, false)), Some((Phase::Idle, false))]);
    assert_eq!((mac.vms().unwrap().len(), calls(&mac, "clone")), (2, 2), "nothing was replaced");
}

#[tokio::test]
async fn a_network_that_swallows_all_is_noticed() {
    let (stage, mut mac) = (Stage::new("frozen"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    mac.freeze_sshd().await.unwrap();
    unreachable(&backend).await;
    mac.thaw_sshd().await.unwrap();
    connected(&backend).await;
    assert_eq!(shown(&backend, &instance.id).unwrap().state, InstanceState::Running);
}

#[tokio::test]
async fn a_host_that_reboots_has_ended_all_of_its_runners() {
    let (stage, mut mac) = (Stage::new("reboot"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    mac.reboot().await.unwrap();
    let ended = until("the end is known", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, None);
    until("its slot is free", || (host(&backend, "mac-1").free_slots == 2).then_some(())).await;
    backend.remove("mac-1", &instance.id).await.unwrap();
    nothing_left(&mac).await;
    start(&backend).await.unwrap();
}

#[tokio::test]
async fn another_host_key_is_refused_and_said_so() {
    let (stage, mut mac) = (Stage::new("key"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    prepared(&backend).await;
    let before = calls(&mac, "list");
    mac.change_host_key().await.unwrap();
    until("it is refused", || {
        let host = host(&backend, "mac-1");
        (host.availability == Availability::Unreachable
            && host.message.contains("is not the one in known_hosts"))
        .then_some(())
    })
    .await;
    let after = calls(&mac, "list");
    assert!(after <= before + 2, "nothing was asked of it: {before}, {after}");
    // The Secret is changed.
    let again = stage.backend("set", template(&[&mac]));
    drop(backend);
    assert_eq!(prepared(&again).await.availability, Availability::Ready);
}

#[tokio::test]
async fn a_login_that_is_refused_or_lacks_the_host_is_said_to_be() {
    let (stage, mac, other) = (Stage::new("login"), mac("exit 0").await, mac("exit 0").await);
    let mut wrong = template(&[&mac]);
    let login = SshLogin::read(&other.private_key().unwrap(), &mac.known_hosts().unwrap()).unwrap();
    wrong.hosts[0].login = Login::Given(Some(login));
    let refused = stage.backend("refused", wrong.clone());
    until("the login is refused", || {
        host(&refused, "mac-1").message.contains("does not accept the key").then_some(())
    })
    .await;
    let login = SshLogin::read(&mac.private_key().unwrap(), &other.known_hosts().unwrap()).unwrap();
    wrong.hosts[0].login = Login::Given(Some(login));
    let unknown = stage.backend("unknown", wrong);
    until("the host is not known", || {
        host(&unknown, "mac-1").message.contains("no usable key").then_some(())
    })
    .await;
    let right = stage.backend("right", template(&[&mac]));
    assert_eq!(
        prepared(&right).await.availability,
        Availability::Ready,
        "another's bad login is not its own"
    );
    assert_eq!(host(&right, "mac-1").free_slots, 2);
}

#[tokio::test]
async fn a_host_that_the_spec_left_out_is_reached_as_before_and_one_that_never_was_is_not() {
    let (stage, mac) = (Stage::new("left-out"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    let provider = stage.provider();
    let alone = provider.resolve_host("mac-1", &mac.endpoint()).unwrap();
    let alone = alone.open("macs", &[], &stage.identity("set"));
    drop(backend);
    until("it is listed", || {
        let listing = alone.instances().remove(0);
        listing.instances.iter().any(|known| known.id == instance.id && listing.current).then_some(())
    })
    .await;
    alone.remove("mac-1", &instance.id).await.unwrap();
    let nowhere = provider.resolve_host("x", "ssh://ci@127.0.0.1:9").unwrap();
    let nowhere = nowhere.open("macs", &[], &stage.identity("set"));
    let listing = nowhere.instances().remove(0);
    assert!(!listing.current && listing.listed_at.is_none());
    assert_eq!(nowhere.hosts()[0].availability, Availability::Unreachable);
    assert!(provider.resolve_host("x", "unix:///var/run/docker.sock").is_none());
}

#[tokio::test]
async fn a_list_that_fails_says_nothing() {
    let (stage, mac) = (Stage::new("list"), mac("sleep 1000").await);
    let backend = stage.backend("set", template(&[&mac]));
    let instance = started(&backend).await;
    let effect = testkit::tart::Effect::Refused { code: 1, text: "Error: config.json is broken".to_owned() };
    mac.fault(testkit::tart::Fault::of("list", effect)).unwrap();
    until("that is told", || {
        let host = host(&backend, "mac-1");
        host.message.contains("config.json is broken").then_some(())
    })
    .await;
    assert_eq!(shown(&backend, &instance.id).unwrap().state, InstanceState::Running);
    mac.clear_faults().unwrap();
    connected(&backend).await;
}
