//! Single runners: how they start, what they get, how they end, and what is left of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::{ContainerInspectResponse, NetworkCreateRequest};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, WaitContainerOptions,
};
use futures::StreamExt;
use harness::eventually;
use jiff::Timestamp;
use paddock::api::{DockerAccess, Reason};
use paddock::backend::docker::{DockerBackend, Engines, HostSpec, Login};
use paddock::backend::{Availability, Backend, Error, NewRunner};
use paddock::runner::{Identity, Instance, InstanceState, runner_name};

use crate::stage::{
    HOST, PATIENCE, SECRET, Stage, connected, exit, host, jit, log, prepared, shown, start, start_in,
    started, until,
};

/// Soon, by an event: a listing is made every 2 s at most.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

/// Runs until it is told to end, and ends with 7.
const WAITS: &str = "trap 'exit 7' TERM; echo up; while :; do sleep 0.1; done";

async fn inspect(stage: &Stage, id: &str) -> ContainerInspectResponse {
    stage.docker.inspect_container(id, None::<InspectContainerOptions>).await.unwrap()
}

async fn signal(stage: &Stage, id: &str, signal: &str) {
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    stage.docker.kill_container(id, Some(options)).await.unwrap();
}

/// Waits until the engine tells of something that happens to an instance, or has happened.
async fn told(stage: &Stage, instance: &Instance, event: &str) {
    let filters = HashMap::from([("container", vec![instance.id.as_str()]), ("event", vec![event])]);
    let since = instance.created_at.as_second().to_string();
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    let mut events = stage.docker.events(Some(options));
    let heard = tokio::time::timeout(PATIENCE, events.next()).await;
    heard.unwrap_or_else(|_| panic!("the engine tells of no {event}")).unwrap().unwrap();
}

#[tokio::test]
async fn one_life() {
    let stage = Stage::new("one-life").await;
    let backend = stage.backend("set", stage.template(WAITS));
    let instance = started(&backend).await;
    assert_eq!(instance.state, InstanceState::Running);
    assert_eq!((instance.host.as_str(), instance.backend.as_str()), (HOST, "rack"));
    assert_eq!(instance.scale_set_uid, "set");
    assert_eq!(instance.template_hash, backend.template_hash());
    assert!(instance.runner.starts_with("linux-"));
    assert!(Timestamp::now().duration_since(instance.created_at).abs().as_secs() < 60);
    assert_eq!(shown(&backend, &instance.id), Some(instance.clone()));

    // Its output says that the trap is set.
    let log = async || backend.log_tail(HOST, &instance.id).await.unwrap();
    eventually("it is up", PATIENCE, async || log().await.contains("up\n").then_some(())).await;
    let woken = stage.woken("set");
    let mut engine_tells = stage.docker.wait_container(&instance.id, None::<WaitContainerOptions>);
    signal(&stage, &instance.id, "TERM").await;
    engine_tells.next().await;
    let told = Instant::now();
    let ended = until("its end is seen", || exit(&backend, &instance.id)).await;
    assert!(told.elapsed() < SEEN_WITHIN, "its end took {:?} to be seen", told.elapsed());
    assert_eq!((ended.code, ended.out_of_memory), (Some(7), false));
    assert!(stage.woken("set") > woken, "an exit wakes its scale set");
    assert!(
        backend.log_tail(HOST, &instance.id).await.unwrap().contains("up\n"),
        "what it printed outlives it"
    );

    backend.remove(HOST, &instance.id).await.unwrap();
    assert_eq!(shown(&backend, &instance.id), None);
    assert!(matches!(backend.remove(HOST, &instance.id).await, Err(Error::Gone)));
    assert!(matches!(backend.log_tail(HOST, &instance.id).await, Err(Error::Gone)));
    assert_eq!(stage.count().await, 0);
}

#[tokio::test]
async fn a_runner_gets_what_the_template_says_and_nothing_else() {
    let stage = Stage::new("gets").await;
    let mut template = stage.template(WAITS);
    template.images.platform = Some("linux/amd64".to_owned());
    template.user = Some("root".to_owned());
    template.limits.cpu_millis = Some(500);
    template.limits.memory_bytes = Some(64 << 20);
    template.env = [
        ("FOO", "bar"),
        ("ACTIONS_RUNNER_INPUT_JITCONFIG", "mine"),
        ("ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE", "0"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;

    let container = inspect(&stage, &instance.id).await;
    let config = container.config.unwrap();
    let mut env = config.env.unwrap();
    env.sort();
    let jit = format!("ACTIONS_RUNNER_INPUT_JITCONFIG={}", jit().expose());
    let deprecated = "ACTIONS_RUNNER_RETURN_VERSION_DEPRECATED_EXIT_CODE=1".to_owned();
    assert_eq!(env, [jit, deprecated, "FOO=bar".to_owned(), "PATH=/bin".to_owned()]);
    assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", WAITS]);
    assert_eq!(config.entrypoint.unwrap_or_default(), Vec::<String>::new());
    assert_eq!(config.user.as_deref(), Some("root"));
    let labels = config.labels.unwrap();
    for (key, value) in [
        (Identity::CLUSTER, stage.cluster.as_str()),
        (Identity::SCALE_SET_UID, "set"),
        (Identity::SCALE_SET, "ci/set"),
        (Identity::RUNNER, &instance.runner),
        (Identity::BACKEND, "rack"),
        (Identity::TEMPLATE_HASH, backend.template_hash()),
    ] {
        assert_eq!(labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(container.name.unwrap(), format!("/{}", instance.runner));
    let limits = container.host_config.unwrap();
    assert_eq!(limits.nano_cpus, Some(500_000_000));
    assert_eq!((limits.memory, limits.memory_swap), (Some(64 << 20), Some(64 << 20)));
    assert_eq!(limits.pids_limit, Some(8192));
    assert_eq!(limits.network_mode.as_deref(), Some("none"));
    assert_eq!(limits.auto_remove, Some(false));
    assert_eq!(limits.log_config.unwrap().config.unwrap()["max-size"], "10m");
    assert_eq!(limits.mounts.unwrap_or_default(), []);
}

/// What a job can do to its host and its neighbours, by its own look at what the kernel lets it.
#[tokio::test]
async fn a_job_that_forks_without_end_is_stopped_and_has_no_raw_sockets() {
    let stage = Stage::new("bounded").await;
    // The capability has number 13; `sh` ends with 2 where it cannot fork.
    let script = "caps=$(grep CapBnd /proc/self/status | cut -f 2); test $((0x$caps >> 13 & 1)) = 0 || exit 1; \
                  grep -q \"^NoNewPrivs:.*$WANTED\" /proc/self/status || exit 3; \
                  i=0; while [ $i -lt 64 ]; do sleep 600 & i=$((i + 1)); done; exit 0";
    for (wanted, pids, code) in [("0", 32, 2), ("1", 32, 2), ("1", 128, 0)] {
        let mut template = stage.template(script);
        template.user = Some("root".to_owned());
        template.env = vec![("WANTED".to_owned(), wanted.to_owned())];
        template.limits.pids = Some(pids);
        template.limits.no_new_privileges = wanted == "1";
        let backend = stage.backend("set", template);
        let instance = started(&backend).await;
        let ended = until("it ends", || exit(&backend, &instance.id)).await;
        assert_eq!(ended.code, Some(code), "{wanted}, {pids} processes");
        backend.remove(HOST, &instance.id).await.unwrap();
    }
}

#[tokio::test]
async fn the_hosts_socket_is_there_for_whom_it_is_allowed() {
    let stage = Stage::new("socket").await;
    let script = "test -S /var/run/docker.sock || exit 1; test -w /var/run/docker.sock || exit 2; exit 3";
    for (access, code) in [(DockerAccess::None, 1), (DockerAccess::HostSocket, 3)] {
        let mut template = stage.template(script);
        template.docker_access = access;
        let backend = stage.backend("set", template);
        let instance = started(&backend).await;
        let ended = until("it ends", || exit(&backend, &instance.id)).await;
        assert_eq!(ended.code, Some(code), "{access:?}");
    }
}

#[tokio::test]
async fn want_of_memory_is_told_from_other_ends() {
    let stage = Stage::new("memory").await;
    // It lives until the engine has told of it: with cgroup v1, a busy engine misses one time in ten what befell a
    // container that is gone at once.
    let mut template =
        stage.template("trap 'exit $code' TERM; tail /dev/zero; code=$?; while :; do sleep 0.1; done");
    template.limits.memory_bytes = Some(32 << 20);
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    told(&stage, &instance, "oom").await;
    signal(&stage, &instance.id, "TERM").await;
    let ended = until("it ends", || exit(&backend, &instance.id)).await;
    assert_eq!((ended.code, ended.out_of_memory), (Some(137), true));
    assert!(!ended.killed());

    let backend = stage.backend("other", stage.template(WAITS));
    let instance = started(&backend).await;
    signal(&stage, &instance.id, "KILL").await;
    let ended = until("it is killed", || exit(&backend, &instance.id)).await;
    assert_eq!((ended.code, ended.out_of_memory), (Some(137), false));
    assert!(ended.killed());
}

#[tokio::test]
async fn sixteen_at_once() {
    let stage = Stage::new("sixteen").await;
    let backend = stage.backend("set", stage.template(WAITS));
    prepared(&backend).await;
    let instances = futures::future::join_all((0..16).map(|_| start(&backend))).await;
    let instances: Vec<_> = instances.into_iter().map(Result::unwrap).collect();
    let listing = &backend.instances()[0];
    assert_eq!(listing.instances.len(), 16);
    assert!(listing.instances.iter().all(|instance| instance.state == InstanceState::Running));
    let removals = instances.iter().map(|instance| backend.remove(HOST, &instance.id));
    assert!(futures::future::join_all(removals).await.iter().all(Result::is_ok));
    assert_eq!(backend.instances()[0].instances, []);
    assert_eq!(stage.count().await, 0);
}

#[tokio::test]
async fn what_no_engine_can_run_is_refused_and_leaves_nothing() {
    let stage = Stage::new("refused").await;
    let (mut unknown_user, mut too_little_memory) = (stage.template(WAITS), stage.template(WAITS));
    unknown_user.user = Some("nobody-knows".to_owned());
    too_little_memory.limits.memory_bytes = Some(1024);
    for (template, words) in [(unknown_user, "user"), (too_little_memory, "memory")] {
        let backend = stage.backend("set", template);
        prepared(&backend).await;
        match start(&backend).await {
            Err(Error::Refused(why)) => assert!(why.to_lowercase().contains(words), "{why}"),
            other => panic!("{words}: {other:?}"),
        }
        let host = host(&backend);
        assert_eq!(host.availability, Availability::Refused);
        assert!(host.message.to_lowercase().contains(words), "{}", host.message);
        assert_eq!(stage.count().await, 0);
    }
}

/// The init process is what is started, so the engine starts it whatever the command is.
#[tokio::test]
async fn a_command_that_does_not_exist_ends_at_once() {
    let stage = Stage::new("command").await;
    let mut template = stage.template(WAITS);
    template.command = vec!["/no/such/program".to_owned()];
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    let ended = until("it ends", || exit(&backend, &instance.id)).await;
    assert_eq!(ended.code, Some(127));
    let tail = backend.log_tail(HOST, &instance.id).await.unwrap();
    assert!(tail.contains("/no/such/program"), "{tail}");
}

#[tokio::test]
async fn a_network_that_is_missing_is_waited_for() {
    let stage = Stage::new("network").await;
    let name = format!("{}-net", stage.cluster);
    let mut template = stage.template(WAITS);
    template.network = Some(name.clone());
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let starts = futures::future::join_all([start(&backend), start(&backend)]).await;
    for failed in starts {
        assert!(
            matches!(&failed, Err(Error::NoCapacity(why)) if why.reason == Reason::NetworkMissing && why.message.contains(&name)),
            "{failed:?}"
        );
    }
    assert_eq!(stage.count().await, 0);
    let Availability::BackOff { until: back, reason: Reason::NetworkMissing } = host(&backend).availability
    else {
        panic!("{:?}", host(&backend))
    };
    assert!(
        back <= Timestamp::now() + Duration::from_secs(5),
        "two starts that fail together are one failure"
    );

    let network = NetworkCreateRequest { name: name.clone(), ..NetworkCreateRequest::default() };
    stage.docker.create_network(network).await.unwrap();
    until("it is tried again", || (host(&backend).availability == Availability::Ready).then_some(())).await;
    let result = start(&backend).await;
    if let Ok(instance) = &result {
        backend.remove(HOST, &instance.id).await.unwrap();
    }
    stage.docker.remove_network(&name).await.unwrap();
    result.unwrap();
}

#[tokio::test]
async fn a_name_that_is_taken() {
    let stage = Stage::new("conflict").await;
    let backend = stage.backend("set", stage.template(WAITS));
    let instance = started(&backend).await;

    // The same start again finds its own container.
    let slot = backend.reserve(HOST).unwrap();
    assert_eq!(start_in(slot, &instance.runner).await.unwrap(), instance);
    assert_eq!(stage.count().await, 1);

    // Another's container of that name stays as it is.
    let name = runner_name("linux");
    for labels in [&[][..], &[(Identity::CLUSTER, "another"), (Identity::RUNNER, name.as_str())][..]] {
        let foreign = stage.foreign(&name, labels).await;
        let slot = backend.reserve(HOST).unwrap();
        let taken = start_in(slot, &name).await;
        let stays = stage.exists(&foreign).await;
        crate::stage::remove(&stage.docker, &foreign).await;
        assert!(matches!(&taken, Err(Error::NoCapacity(why)) if why.message.contains("in use")), "{taken:?}");
        assert!(stays);
    }
}

#[tokio::test]
async fn what_is_not_ours_is_not_touched() {
    let stage = Stage::new("foreign").await;
    let backend = stage.backend("set", stage.template(WAITS));
    connected(&backend).await;
    for labels in [&[][..], &[(Identity::CLUSTER, "another")][..]] {
        let foreign = stage.foreign(&runner_name("foreign"), labels).await;
        let removed = backend.remove(HOST, &foreign).await;
        let read = backend.log_tail(HOST, &foreign).await;
        let orphaned = stage.engines.remove(&stage.endpoint, "set", &foreign).await;
        let stays = stage.exists(&foreign).await;
        let seen = backend.instances()[0].instances.iter().any(|instance| instance.id == foreign);
        let found = stage.engines.all_instances().iter().any(|listing| !listing.found.is_empty());
        crate::stage::remove(&stage.docker, &foreign).await;
        assert!(matches!(removed, Err(Error::Refused(_))), "{removed:?}");
        assert!(matches!(read, Err(Error::Refused(_))), "{read:?}");
        assert!(matches!(orphaned, Err(Error::Refused(_))), "{orphaned:?}");
        assert!(stays && !seen && !found);
    }
}

/// A status is a memory, and anyone may have written an instance's id into it.
#[tokio::test]
async fn a_forged_instance_id_reaches_no_container_of_another_set() {
    let stage = Stage::new("forged").await;
    let (victim, forger) =
        (stage.backend("victim", stage.template(WAITS)), stage.backend("forger", stage.template(WAITS)));
    let instance = started(&victim).await;
    connected(&forger).await;
    // A controller that has not seen it yet reads its labels on the engine.
    let fresh = stage.fresh_engines();
    let unseeing = DockerBackend::new("rack", stage.identity("forger"), stage.template(WAITS), &fresh);
    connected(&unseeing).await;
    let by_short_id = &instance.id[..12];
    for id in [&instance.id, by_short_id, &instance.runner, "../images/paddock.test"] {
        for backend in [&forger, &unseeing] {
            let (removed, read) = (backend.remove(HOST, id).await, backend.log_tail(HOST, id).await);
            assert!(matches!(removed, Err(Error::Refused(_))), "{id}: {removed:?}");
            assert!(matches!(read, Err(Error::Refused(_))), "{id}: {read:?}");
        }
        let orphaned = stage.engines.remove(&stage.endpoint, "forger", id).await;
        assert!(matches!(orphaned, Err(Error::Refused(_))), "{id}: {orphaned:?}");
    }
    assert_eq!(shown(&victim, &instance.id).unwrap().state, InstanceState::Running);
    assert_eq!(stage.count().await, 1);
}

#[tokio::test]
async fn what_was_made_and_never_started_is_shown_never_started_at_a_second_look() {
    let stage = Stage::new("never_started").await;
    let labels = [
        (Identity::CLUSTER, stage.cluster.as_str()),
        (Identity::SCALE_SET_UID, "set"),
        (Identity::RUNNER, "set-never_started"),
        (Identity::BACKEND, "rack"),
    ];
    let made = stage.foreign(&runner_name("never_started"), &labels).await;
    let backend = stage.backend("set", stage.template(WAITS));
    connected(&backend).await;
    let first = backend.instances()[0].listed_at;
    until("it is shown never_started", || {
        let listing = backend.instances().remove(0);
        let never_started =
            listing.instances.iter().find(|i| i.id == made)?.state == InstanceState::NeverStarted;
        assert!(!never_started || listing.listed_at > first, "at the first look");
        never_started.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_controller_that_comes_later_finds_all_that_is_there() {
    let stage = Stage::new("adoption").await;
    let running = stage.backend("set", stage.template(WAITS));
    let running_id = started(&running).await.id;
    let ended = stage.backend("gone-set", stage.template("exit 3"));
    let ended_id = started(&ended).await.id;
    until("it ends", || exit(&ended, &ended_id)).await;
    let before = inspect(&stage, &running_id).await.state;
    drop((running, ended));

    let engines = stage.fresh_engines();
    let backend = DockerBackend::new("rack", stage.identity("set"), stage.template(WAITS), &engines);
    assert_eq!((backend.instances()[0].current, backend.instances()[0].listed_at), (false, None));
    connected(&backend).await;
    assert_eq!(shown(&backend, &running_id).unwrap().state, InstanceState::Running);
    assert_eq!(backend.instances()[0].instances.len(), 1, "of this set alone");
    let listings = engines.all_instances();
    assert!(listings.len() == 1 && listings[0].current && listings[0].endpoint.starts_with("unix://"));
    let orphan = listings[0].found.iter().find(|found| found.instance.id == ended_id).unwrap();
    assert_eq!(orphan.scale_set, "ci/gone-set");
    let InstanceState::Exited(exit) = &orphan.instance.state else { panic!("{orphan:?}") };
    assert_eq!((exit.code, exit.out_of_memory), (Some(3), false));
    assert!(Timestamp::now().duration_since(exit.at).as_secs() < 60);

    engines.remove(&listings[0].endpoint, "gone-set", &ended_id).await.unwrap();
    assert!(!stage.exists(&ended_id).await);
    assert_eq!(inspect(&stage, &running_id).await.state, before, "it was neither restarted nor killed");
}

#[tokio::test]
async fn hosts_that_cannot_be_used_say_why() {
    let stage = Stage::new("hosts").await;
    let mut template = stage.template(WAITS);
    let spec = |name: &str, endpoint: &str| HostSpec {
        name: name.to_owned(),
        endpoint: endpoint.to_owned(),
        max_runners: None,
        login: Login::None,
    };
    template.hosts = vec![
        spec("tcp", "tcp://10.0.0.7"),
        spec("nowhere", "unix:///nowhere/docker.sock"),
        spec("good", &stage.endpoint),
        spec("twice", &stage.endpoint),
    ];
    let backend = stage.backend("set", template);
    let expected = [
        ("tcp", Availability::Refused, "is no endpoint of a Docker engine"),
        ("nowhere", Availability::Unreachable, "/nowhere/docker.sock"),
        ("good", Availability::Unprepared, ""),
        ("twice", Availability::Refused, "is host good already"),
    ];
    until("both endpoints were tried", || {
        let hosts = backend.hosts();
        (hosts[1].message.contains("nowhere") && hosts[2].availability == Availability::Unprepared)
            .then_some(())
    })
    .await;
    for (host, (name, availability, words)) in backend.hosts().into_iter().zip(expected) {
        assert_eq!((host.name.as_str(), host.availability), (name, availability));
        assert!(host.message.contains(words), "{}", host.message);
        assert_eq!(backend.reserve(name).is_some(), name == "good");
    }
    let listings = backend.instances();
    assert_eq!(listings.iter().map(|listing| listing.host.as_str()).collect::<Vec<_>>(), ["nowhere", "good"]);
}

#[tokio::test]
async fn secrets_are_not_shown() {
    let stage = Stage::new("secrets").await;
    let mut template = stage.template(WAITS);
    template.env = vec![("TOKEN".to_owned(), format!("{SECRET}-env"))];
    let backend = stage.backend("set", template);
    let instance = started(&backend).await;
    let taken = start_in(backend.reserve(HOST).unwrap(), &instance.runner).await;
    let jit = jit();
    let shown = format!(
        "{backend:?} {:?} {taken:?} {instance:?} {:?} {:?}",
        NewRunner { name: "x", jit: &jit },
        stage.engines,
        backend.hosts()
    );
    assert!(!shown.contains(SECRET));
    for (name, value) in [("", SECRET), ("A=B", SECRET), ("A", "planted-secret\0")] {
        let mut template = stage.template(WAITS);
        template.env = vec![(name.to_owned(), value.to_owned())];
        let backend = stage.backend("set", template);
        let host = host(&backend);
        assert_eq!(host.availability, Availability::Refused);
        assert!(
            host.message.contains("environment variable") && !host.message.contains(SECRET),
            "{}",
            host.message
        );
    }
    let log = log();
    assert!(log.contains("container start"));
    assert!(!log.contains(SECRET), "the log of these tests shows a secret");
}

/// A backend needs its engines only while it is made.
#[tokio::test]
async fn a_backend_outlives_the_registry() {
    let stage = Stage::new("outlives").await;
    let engines = Engines::new(stage.cluster.clone(), paddock::backend::Requeuer::new(|_| {}));
    let backend = DockerBackend::new("rack", stage.identity("set"), stage.template(WAITS), &engines);
    drop(engines);
    connected(&backend).await;
}
