//! Images: had by policy, from a real registry on loopback.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{EventsOptionsBuilder, InspectContainerOptions};
use futures::StreamExt;
use jiff::Timestamp;
use paddock::api::{PullPolicy, Reason};
use paddock::backend::docker::{DockerTemplate, HostSpec, RegistryCredentials};
use paddock::backend::{Availability, Backend, Error};

use crate::parts::{OTHER_USER, PASSWORD, Registry, USER, build, image_id, remove_image, tag};
use crate::proxy::Proxy;
use crate::stage::{HOST, SECRET, Stage, connected, host, prepared, start, started, until};

fn template(stage: &Stage, image: &str, policy: PullPolicy) -> DockerTemplate {
    let mut template = stage.template("sleep 1000");
    template.images.runner = image.to_owned();
    template.images.policy = policy;
    template
}

async fn image_of(stage: &Stage, id: &str) -> String {
    let options = None::<InspectContainerOptions>;
    let container: ContainerInspectResponse = stage.docker.inspect_container(id, options).await.unwrap();
    container.image.unwrap()
}

/// How often the engine pulled an image since the test began.
async fn pulls(stage: &Stage, image: &str, since: Timestamp) -> usize {
    let filters = HashMap::from([("event", vec!["pull"]), ("image", vec![image])]);
    let options = EventsOptionsBuilder::new()
        .since(&since.as_second().to_string())
        .until(&(Timestamp::now().as_second() + 1).to_string())
        .filters(&filters)
        .build();
    stage.docker.events(Some(options)).collect::<Vec<_>>().await.len()
}

#[tokio::test]
async fn an_image_that_is_absent_is_pulled_once_for_all() {
    let stage = Stage::new("pull").await;
    let registry = Registry::open(&stage.docker, "pull").await;
    let image = registry.name("runner:1");
    let id = registry.push(&image, "pull").await;
    let since = Timestamp::now();
    let backends =
        ["first", "second"].map(|set| stage.backend(set, template(&stage, &image, PullPolicy::IfNotPresent)));
    connected(&backends[0]).await;
    assert_eq!(host(&backends[0]).availability, Availability::Unprepared);
    let woken = stage.woken("second");
    for _ in 0..3 {
        backends.iter().for_each(|backend| backend.prepare(HOST));
    }
    let preparing = host(&backends[0]);
    assert!(matches!(preparing.availability, Availability::Preparing { .. }), "{preparing:?}");
    assert!(preparing.message.contains(&image), "{}", preparing.message);
    for backend in &backends {
        assert_eq!(prepared(backend).await.availability, Availability::Ready);
    }
    assert!(stage.woken("second") > woken, "the end of a pull wakes who waits for it");
    assert_eq!(image_id(&stage.docker, &image).await, Some(id));

    // It is there now: no registry is needed any more.
    drop((registry, backends));
    let later = stage.backend("later", template(&stage, &image, PullPolicy::IfNotPresent));
    let instance = started(&later).await;
    later.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(pulls(&stage, &image, since).await, 1);
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn an_image_that_may_not_be_pulled_is_waited_for() {
    let stage = Stage::new("never").await;
    let repository = format!("paddock.test/{}", stage.cluster);
    let image = format!("{repository}:1");
    let backend = stage.backend("set", template(&stage, &image, PullPolicy::Never));
    let missing = prepared(&backend).await;
    let Availability::BackOff { until: back, reason: Reason::ImageMissing } = missing.availability else {
        panic!("{missing:?}")
    };
    assert!(back > Timestamp::now());
    assert!(missing.message.contains(&image) && missing.message.contains("Never"), "{}", missing.message);
    backend.prepare(HOST);
    assert_eq!(
        host(&backend).availability,
        Availability::BackOff { until: back, reason: Reason::ImageMissing }
    );

    tag(&stage.docker, crate::stage::IMAGE, &repository, "1").await;
    until("it is looked for again", || {
        (host(&backend).availability == Availability::Unprepared).then_some(())
    })
    .await;
    let instance = started(&backend).await;
    backend.remove(HOST, &instance.id).await.unwrap();
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn an_image_that_vanished_is_had_again() {
    let stage = Stage::new("vanished").await;
    let registry = Registry::open(&stage.docker, "vanished").await;
    let image = registry.name("runner:1");
    registry.push(&image, "vanished").await;
    let backend = stage.backend("set", template(&stage, &image, PullPolicy::IfNotPresent));
    prepared(&backend).await;
    remove_image(&stage.docker, &image).await;
    let failed = start(&backend).await;
    assert!(
        matches!(&failed, Err(Error::NoCapacity(why)) if why.reason == Reason::ImageMissing && why.message.contains(&image)),
        "{failed:?}"
    );
    assert_eq!(host(&backend).availability, Availability::Unprepared);
    let instance = started(&backend).await;
    backend.remove(HOST, &instance.id).await.unwrap();
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn a_pull_that_fails_is_tried_again() {
    let stage = Stage::new("failing").await;
    let registry = Registry::open(&stage.docker, "failing").await;
    let image = registry.name("runner:1");
    let backend = stage.backend("set", template(&stage, &image, PullPolicy::IfNotPresent));
    let failed = prepared(&backend).await;
    assert!(
        matches!(failed.availability, Availability::BackOff { reason: Reason::ImagePullFailed, .. }),
        "{failed:?}"
    );
    assert!(failed.message.contains(&image) && failed.message.contains("not found"), "{}", failed.message);
    registry.push(&image, "failing").await;
    until("it is tried again", || (host(&backend).availability == Availability::Unprepared).then_some(()))
        .await;
    assert_eq!(prepared(&backend).await.availability, Availability::Ready);
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn a_tag_that_moved_is_seen_by_the_next_runner() {
    let stage = Stage::new("moved").await;
    let registry = Registry::open(&stage.docker, "moved").await;
    let image = registry.name("runner:latest");
    let old = registry.push(&image, "old").await;
    let always = stage.backend("always", template(&stage, &registry.name("runner"), PullPolicy::Always));
    let kept = stage.backend("kept", template(&stage, &image, PullPolicy::IfNotPresent));
    let first = started(&always).await;
    assert_eq!(image_of(&stage, &first.id).await, old);

    let new = registry.push(&image, "new").await;
    tag(&stage.docker, &old, &registry.name("runner"), "latest").await;
    assert_eq!(image_of(&stage, &started(&kept).await.id).await, old);
    // The events are stamped by the second.
    let since = Timestamp::now();
    let before = pulls(&stage, &image, since).await;
    let starts = futures::future::join_all((0..4).map(|_| start(&always))).await;
    for instance in starts {
        assert_eq!(image_of(&stage, &instance.unwrap().id).await, new);
    }
    assert_eq!(pulls(&stage, &image, since).await, before + 1, "starts at once share a pull");

    drop(registry);
    let failed = start(&always).await;
    assert!(
        matches!(&failed, Err(Error::NoCapacity(why)) if why.reason == Reason::ImagePullFailed),
        "{failed:?}"
    );
    assert!(matches!(
        host(&always).availability,
        Availability::BackOff { reason: Reason::ImagePullFailed, .. }
    ));
    for instance in [&always, &kept].iter().flat_map(|backend| backend.instances().remove(0).instances) {
        stage.engines.remove(&stage.endpoint, &instance.scale_set_uid, &instance.id).await.unwrap();
    }
    remove_image(&stage.docker, &image).await;
    for id in [old, new] {
        remove_image(&stage.docker, &id).await;
    }
}

fn login(registry: &str, user: &str, password: &str) -> Option<RegistryCredentials> {
    let config = serde_json::json!({"auths": {registry: {"username": user, "password": password}}});
    Some(RegistryCredentials::from_docker_config(config.to_string().as_bytes()).unwrap())
}

#[tokio::test]
async fn sets_with_different_logins_pull_an_image_once() {
    let stage = Stage::new("one-pull").await;
    let registry = Registry::private(&stage.docker, "one-pull").await;
    let image = registry.name("acme/runner:1");
    registry.push(&image, "one-pull").await;
    let address = registry.name("").trim_end_matches('/').to_owned();
    let since = Timestamp::now();
    let backend = |user: &str| {
        let mut template = template(&stage, &image, PullPolicy::IfNotPresent);
        template.images.credentials = login(&address, user, PASSWORD);
        stage.backend(user, template)
    };
    let backends = [USER, OTHER_USER].map(backend);
    connected(&backends[0]).await;
    backends.iter().for_each(|backend| backend.prepare(HOST));
    for backend in &backends {
        assert_eq!(prepared(backend).await.availability, Availability::Ready);
    }
    assert_eq!(pulls(&stage, &image, since).await, 1);
    remove_image(&stage.docker, &image).await;

    // Who comes after one that may not have it is not kept from it.
    let again = ["unknown", USER].map(backend);
    again.iter().for_each(|backend| backend.prepare(HOST));
    assert_ne!(prepared(&again[0]).await.availability, Availability::Ready);
    assert_eq!(prepared(&again[1]).await.availability, Availability::Ready);
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn an_image_that_is_pinned_is_found_by_its_digest_and_not_pulled_again() {
    let stage = Stage::new("pinned").await;
    let registry = Registry::open(&stage.docker, "pinned").await;
    let tagged = registry.name("runner:1");
    let old = registry.push(&tagged, "old").await;
    let by_tag = stage.backend("tag", template(&stage, &tagged, PullPolicy::IfNotPresent));
    prepared(&by_tag).await;
    let pinned = stage.docker.inspect_image(&tagged).await.unwrap().repo_digests.unwrap().remove(0);
    assert!(pinned.contains("@sha256:"), "{pinned}");
    remove_image(&stage.docker, &old).await;

    let since = Timestamp::now();
    let first = stage.backend("first", template(&stage, &pinned, PullPolicy::IfNotPresent));
    let instance = started(&first).await;
    assert_eq!(image_of(&stage, &instance.id).await, old);
    first.remove(HOST, &instance.id).await.unwrap();
    let new = registry.push(&tagged, "new").await;
    assert_ne!(old, new);
    drop((registry, first));
    let second = stage.backend("second", template(&stage, &pinned, PullPolicy::IfNotPresent));
    let instance = started(&second).await;
    assert_eq!(image_of(&stage, &instance.id).await, old, "the tag moved, and it is another image");
    second.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(pulls(&stage, &pinned, since).await, 1);
    remove_image(&stage.docker, &old).await;
    remove_image(&stage.docker, &new).await;
}

#[tokio::test]
async fn a_pull_of_which_nothing_is_heard_is_cut_off_and_said_so() {
    let mut stage = Stage::new("stalled").await;
    stage.engines = stage.fresh_engines().with_stalled(Duration::from_secs(1));
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/runner:1", silent.local_addr().unwrap());
    let backend = stage.backend("set", template(&stage, &image, PullPolicy::IfNotPresent));
    let stalled = prepared(&backend).await;
    assert!(
        matches!(stalled.availability, Availability::BackOff { reason: Reason::ImagePullFailed, .. }),
        "{stalled:?}"
    );
    assert!(stalled.message.contains("nothing was heard of the pull for 1 s"), "{}", stalled.message);
}

/// Three hosts, by three ways to one engine; nothing is to be started on any.
#[tokio::test]
async fn all_hosts_pull_ahead_of_a_start_two_at_a_time() {
    let stage = Stage::new("ahead").await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/runner:1", silent.local_addr().unwrap());
    let ways = ["one", "two", "three"].map(|name| (name, Proxy::before(name, &stage.endpoint)));
    let mut template = template(&stage, &image, PullPolicy::IfNotPresent);
    let host = template.hosts.remove(0);
    template.hosts = ways
        .iter()
        .map(|(name, way)| HostSpec {
            name: (*name).to_owned(),
            endpoint: way.endpoint().to_owned(),
            ..host.clone()
        })
        .collect();
    let backend = stage.backend("set", template);
    let messages = |part: &str| {
        let hosts = backend.hosts().into_iter();
        hosts.filter(|host| host.message.contains(part)).count()
    };
    until("all are asked to prepare", || {
        let unprepared = backend.hosts().into_iter().filter(|h| h.availability == Availability::Unprepared);
        unprepared.for_each(|host| backend.prepare(&host.name));
        (messages(&image) == 3).then_some(())
    })
    .await;
    until("two pull, and the third waits", || {
        assert!(messages("pulling image") <= 2);
        (messages("pulling image") == 2 && messages("is pulled on other hosts first") == 1).then_some(())
    })
    .await;
    // Both fail when the registry is gone: the third has its turn.
    drop(silent);
    until("each had its turn", || (messages("cannot be pulled") == 3).then_some(())).await;
}

#[tokio::test]
async fn a_private_image_needs_its_login() {
    let stage = Stage::new("private").await;
    let registry = Registry::private(&stage.docker, "private").await;
    let image = registry.name("acme/runner:1");
    registry.push(&image, "private").await;
    let address = registry.name("").trim_end_matches('/').to_owned();
    for (set, credentials, says) in [
        ("without", None, Some("gives no login for this registry")),
        ("elsewhere", login("ghcr.io", USER, PASSWORD), Some("gives no login for this registry")),
        ("wrong", login(&address, USER, "planted-secret-wrong"), Some("does not accept the login")),
        ("right", login(&address, USER, PASSWORD), None),
        // The host has it by now.
        ("late", None, Some("gives no login for this registry")),
    ] {
        let may = says.is_none();
        let mut template = template(&stage, &image, PullPolicy::Always);
        template.images.credentials = credentials;
        let backend = stage.backend(set, template);
        let host = prepared(&backend).await;
        assert_eq!(host.availability == Availability::Ready, may, "{set}: {host:?}");
        assert_eq!(host.message.contains(&image), !may, "{set}: {host:?}");
        assert!(host.message.contains(says.unwrap_or_default()), "{set}: {host:?}");
        assert!(!format!("{host:?} {backend:?} {:?}", stage.engines).contains(SECRET));
    }
    remove_image(&stage.docker, &image).await;
}

#[tokio::test]
async fn an_image_for_another_platform_is_not_the_one() {
    let stage = Stage::new("platform").await;
    let repository = format!("paddock.test/{}", stage.cluster);
    build(&stage.docker, &repository, "1", "platform").await;
    let image = format!("{repository}:1");
    for (platform, may) in [("linux/amd64", true), ("linux/s390x", false)] {
        let mut template = template(&stage, &image, PullPolicy::Never);
        template.images.platform = Some(platform.to_owned());
        let backend = stage.backend("set", template);
        let host = prepared(&backend).await;
        assert_eq!(host.availability == Availability::Ready, may, "{platform}: {host:?}");
    }
    remove_image(&stage.docker, &image).await;
}
