//! Hosts that stay clean, each an engine of the test's own: what jobs leave behind goes, and nothing else does.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::body_full;
use bollard::models::{
    ContainerConfig, ContainerCreateBody, ExecConfig, HostConfig, Mount, MountType, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use futures::{StreamExt, TryStreamExt};
use harness::eventually;
use jiff::Timestamp;
use paddock::api::FreeBytes;
use paddock::backend::docker::{DiskGuard, DockerBackend, DockerTemplate, Rules, SharedVolume, Store};
use paddock::backend::{Availability, Backend};
use paddock::runner::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::parts::{Engine, build, image_id, remove_image};
use crate::stage::{HOST, IMAGE, PATIENCE, Stage, exit, host, prepared, remove, shown, started, until};

/// The age from which on a builder goes in these tests.
const MAX_AGE: Duration = Duration::from_secs(60);
/// A process with which a stand-in for a builder waits for ever, all in the shell itself. What only a real buildx shows: that its
/// clients come by `buildctl dial-stdio`, and that its daemon's command line has the word `buildkitd`.
const WAITS: &str = "mkfifo /tmp/f; read line </tmp/f";

/// Nothing goes, ever.
fn nothing() -> Rules {
    Rules {
        builders: None,
        images: false,
        build_cache: None,
        disk_guard: None,
        interval: Duration::from_secs(1),
    }
}

fn shared(ttl: u64) -> SharedVolume {
    SharedVolume { mount_path: "/shared".into(), ttl: Duration::from_secs(ttl), read_only: false }
}

fn template(stage: &Stage, script: &str, ttl: Option<u64>, rules: Rules) -> DockerTemplate {
    let mut template = stage.template(script);
    template.shared_volume = ttl.map(shared);
    template.housekeeping = Some(rules);
    template
}

/// Runs a script as a runner of a set and waits for its good end.
async fn run(stage: &Stage, set: &str, script: &str, ttl: u64) {
    let backend = stage.backend(set, template(stage, script, Some(ttl), nothing()));
    let runner = started(&backend).await;
    let ended = until("its end is seen", || exit(&backend, &runner.id)).await;
    let said = backend.log_tail(HOST, &runner.id).await.unwrap();
    assert_eq!(ended.code, Some(0), "{said}");
    backend.remove(HOST, &runner.id).await.unwrap();
}

/// The names in a volume, in order, as a container of the test sees them.
async fn files(docker: &Docker, volume: &str) -> Vec<String> {
    let script = "cd /v && find . -mindepth 1 | sort | sed 's,^./,,'";
    let mount = mount(volume, "/v");
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", script].map(str::to_owned).into()),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount]),
            network_mode: Some("none".into()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await.unwrap().id;
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    let _ = docker.wait_container(&id, None::<WaitContainerOptions>).collect::<Vec<_>>().await;
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let lines: Vec<_> = docker.logs(&id, Some(options)).try_collect().await.unwrap();
    remove(docker, &id).await;
    let text: String =
        lines.into_iter().map(|l| String::from_utf8_lossy(&l.into_bytes()).into_owned()).collect();
    text.lines().map(str::to_owned).collect()
}

fn mount(volume: &str, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        ..Mount::default()
    }
}

/// The volume of a set.
async fn volume_of(stage: &Stage, set: &str) -> Option<bollard::models::Volume> {
    let volumes =
        stage.docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await.unwrap();
    let is = |volume: &bollard::models::Volume| {
        volume.labels.get(Identity::SCALE_SET_UID).is_some_and(|uid| uid == set)
    };
    volumes.volumes.into_iter().flatten().find(is)
}

async fn volumes(docker: &Docker) -> Vec<String> {
    let volumes = docker.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>).await.unwrap();
    volumes.volumes.into_iter().flatten().map(|volume| volume.name).collect()
}

async fn has_volume(docker: &Docker, name: &str) -> bool {
    volumes(docker).await.iter().any(|known| known == name)
}

async fn make_volume(docker: &Docker, name: &str) {
    let request = VolumeCreateRequest { name: Some(name.to_owned()), ..VolumeCreateRequest::default() };
    docker.create_volume(request).await.unwrap();
}

/// A container as buildx names one, with the volume of its state. The script runs with `buildkitd` in its command line.
async fn builder(docker: &Docker, name: &str, script: &str) {
    let name = format!("buildx_buildkit_{name}0");
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", script, "buildkitd"].map(str::to_owned).into()),
        user: Some("0".to_owned()),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount(&format!("{name}_state"), "/var/lib/buildkit")]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    docker.create_container(Some(options), body).await.unwrap();
    docker.start_container(&name, None::<StartContainerOptions>).await.unwrap();
}

/// A client of a builder, as buildx connects.
async fn client(docker: &Docker, name: &str) {
    let exec = ExecConfig {
        cmd: Some(["/bin/sh", "-c", "read line </tmp/f", "buildctl", "dial-stdio"].map(str::to_owned).into()),
        ..ExecConfig::default()
    };
    let id = docker.create_exec(&format!("buildx_buildkit_{name}0"), exec).await.unwrap().id;
    let options = bollard::exec::StartExecOptions { detach: true, ..Default::default() };
    docker.start_exec(&id, Some(options)).await.unwrap();
}

/// The builders that are there, in order, by the names that the test gave.
async fn builders(docker: &Docker) -> Vec<String> {
    let options = ListContainersOptionsBuilder::new().all(true).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    let names = found.into_iter().flat_map(|container| container.names.unwrap_or_default());
    let name = |name: String| Some(name.strip_prefix("/buildx_buildkit_")?.strip_suffix('0')?.to_owned());
    let mut names: Vec<String> = names.filter_map(name).collect();
    names.sort();
    names
}

async fn engines_time(docker: &Docker) -> Timestamp {
    docker.info().await.unwrap().system_time.unwrap().parse().unwrap()
}

/// What housekeeping told a set's backend, once it told something.
async fn news(backend: &DockerBackend) -> String {
    eventually("housekeeping tells what it did", PATIENCE * 3, async || {
        let news = backend.take_news();
        (!news.is_empty()).then(|| news.into_iter().map(|news| news.message).collect::<Vec<_>>().join("; "))
    })
    .await
}

fn freed(stage: &Stage, store: Store) -> u64 {
    let freed = stage.engines.freed();
    freed.into_iter().filter(|(_, of, _)| *of == store).map(|(_, _, bytes)| bytes).sum()
}

/// A builder of each kind; those that are `old` will be so in time.
async fn plant_builders(docker: &Docker, old: &str) {
    builder(docker, &format!("{old}-idle"), WAITS).await;
    builder(docker, &format!("{old}-stopped"), "exit 0").await;
    builder(docker, &format!("{old}-waits-for-a-push"), WAITS).await;
    builder(docker, &format!("{old}-runs-a-step"), "sleep 100000; exit").await;
    eventually("the builder takes clients", PATIENCE, async || {
        client(docker, &format!("{old}-waits-for-a-push")).await;
        let top =
            docker.top_processes(&format!("buildx_buildkit_{old}-waits-for-a-push0"), None).await.unwrap();
        let processes = top.processes.unwrap_or_default();
        processes.iter().flatten().any(|word| word.contains("dial-stdio")).then_some(())
    })
    .await;
    make_volume(docker, &format!("buildx_buildkit_{old}-gone0_state")).await;
}

/// Waits until what was made by now has come of age.
async fn come_of_age(docker: &Docker) {
    let made = engines_time(docker).await;
    eventually("the old builders are old", MAX_AGE + PATIENCE, async || {
        let age = engines_time(docker).await.duration_since(made);
        (age.unsigned_abs() > MAX_AGE).then_some(())
    })
    .await;
}

#[tokio::test]
async fn of_a_host_full_of_leftovers_exactly_the_right_ones_go() {
    let engine = Engine::start("leftovers").await;
    let stage = Stage::at("leftovers", engine.endpoint()).await;
    let docker = &stage.docker;
    plant_builders(docker, "old").await;
    let others = ["cache-of-others", "my_buildx_buildkit_x0_state", "buildx_notes"];
    for name in others {
        make_volume(docker, name).await;
    }
    let dangling = build(docker, "test/moved", "1", "before").await;
    let named = build(docker, "test/moved", "1", "after").await;
    let used = build(docker, "test/used", "1", "before").await;
    let body =
        ContainerCreateBody { image: Some(used.clone()), cmd: Some(vec!["x".into()]), ..Default::default() };
    docker.create_container(None, body).await.unwrap();
    build(docker, "test/used", "1", "after").await;
    // With a ttl of 90 minutes; in the names is what a shell could stumble over.
    let plant = "cd /shared
        at() { d=$(date -d @$(($(date +%s) - $1 * 60)) +%Y%m%d%H%M.%S); shift; touch \"$1\" -t $d \"$2\"; }
        both() { echo x >\"$2\"; at $1 -m \"$2\"; at $1 -a \"$2\"; }
        both 100 old; both 80 young; both 5000 './-rf old; *'; mkdir -p d/empty d/kept; both 100 d/old; both 5 d/kept/x
        echo x >read; at 5000 -m read; at 10 -a read
        echo x >changed; at 5000 -a changed; at 10 -m changed
        ln -s /etc/passwd link; at 100 -m d/empty; ls -la";
    run(&stage, "ours", plant, 0).await;
    run(&stage, "theirs", "echo x >/shared/old; touch -t 200001010000 /shared/old", 0).await;
    come_of_age(docker).await;
    plant_builders(docker, "young").await;

    let rules = Rules { builders: Some(MAX_AGE), images: true, build_cache: Some(1 << 30), ..nothing() };
    let their = stage.backend("theirs", template(&stage, "sleep 1000", Some(0), rules.clone()));
    let backend = stage.backend("ours", template(&stage, "sleep 1000", Some(90 * 60), rules));
    let told = news(&backend).await;
    let stays = ["old-runs-a-step", "old-waits-for-a-push"];
    let young = ["young-idle", "young-runs-a-step", "young-stopped", "young-waits-for-a-push"];
    assert_eq!(builders(docker).await, [&stays[..], &young].concat(), "{told}");
    let left = volumes(docker).await;
    let state = |name: &str| format!("buildx_buildkit_{name}0_state");
    let has = |name: &str| left.iter().any(|known| known == name);
    assert!(["old-idle", "old-stopped", "old-gone"].iter().all(|name| !has(&state(name))), "{left:?}");
    assert!(stays.iter().chain(&young).chain(&["young-gone"]).all(|name| has(&state(name))), "{left:?}");
    assert!(others.iter().all(|name| has(name)), "{left:?}");
    assert_eq!(image_id(docker, &dangling).await, None);
    for kept in [&named, &used, &IMAGE.to_owned()] {
        assert!(image_id(docker, kept).await.is_some(), "{kept}");
    }
    let ours = volume_of(&stage, "ours").await.unwrap().name;
    assert_eq!(
        files(docker, &ours).await,
        ["changed", "d", "d/kept", "d/kept/x", "link", "read", "young"],
        "an empty folder goes, and what was used lately stays"
    );
    let theirs = volume_of(&stage, "theirs").await.unwrap().name;
    assert_eq!(files(docker, &theirs).await, ["old"], "a ttl of 0s is none");

    assert!(told.contains("dangling images") && told.contains("idle builders"), "{told}");
    assert!(told.contains("files of the shared volume"), "{told}");
    let their_news = news(&their).await;
    assert!(!their_news.contains("shared volume"), "{their_news}: what others had in theirs is not told");
    until("status tells it", || host(&backend).message.contains("housekeeping freed").then_some(())).await;
    assert!(freed(&stage, Store::SharedFiles) >= 3 * 4096);
    assert_eq!(stage.woken("ours").min(1), 1);
    drop((backend, their));
    eventually("a helper is gone with its work", PATIENCE, async || {
        (helpers(&stage).await == 0).then_some(())
    })
    .await;
}

/// How many helpers there are.
async fn helpers(stage: &Stage) -> usize {
    let filters = HashMap::from([("label", vec![Identity::HELPER])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    stage.docker.list_containers(Some(options)).await.unwrap().len()
}

#[tokio::test]
async fn one_set_on_a_host_that_wants_nothing_removed_has_its_way() {
    let engine = Engine::start("mild").await;
    let stage = Stage::at("mild", engine.endpoint()).await;
    let dangling = build(&stage.docker, "test/moved", "1", "before").await;
    build(&stage.docker, "test/moved", "1", "after").await;
    run(&stage, "eager", "echo x >/shared/old; touch -t 200001010000 /shared/old", 0).await;
    let mild = stage.backend("mild", template(&stage, "sleep 1000", None, nothing()));
    let rules = Rules { images: true, ..nothing() };
    let eager = stage.backend("eager", template(&stage, "sleep 1000", Some(60), rules));
    // What concerns the set alone is its own affair, and shows that a round was made.
    let told = news(&eager).await;
    assert!(told.contains("shared volume") && !told.contains("images"), "{told}");
    assert!(image_id(&stage.docker, &dangling).await.is_some());
    drop(mild);
    news(&eager).await;
    assert_eq!(image_id(&stage.docker, &dangling).await, None);
}

#[tokio::test]
async fn housekeeping_waits_for_starts_and_starts_do_not_wait_for_it() {
    let engine = Engine::start("quiet").await;
    let stage = Stage::at("quiet", engine.endpoint()).await;
    let dangling = build(&stage.docker, "test/moved", "1", "before").await;
    build(&stage.docker, "test/moved", "1", "after").await;
    let first = stage.backend("set", stage.template("sleep 1000"));
    prepared(&first).await;
    let slot = first.reserve(HOST).unwrap();
    let backend =
        stage.backend("set", template(&stage, "sleep 1000", None, Rules { images: true, ..nothing() }));
    let since = Timestamp::now();
    while Timestamp::now().duration_since(since).as_secs() < 4 {
        started(&backend).await;
    }
    assert!(image_id(&stage.docker, &dangling).await.is_some(), "a start is under way");
    drop(slot);
    assert!(news(&backend).await.contains("dangling images"));
}

/// The file system notes when a file is read first after a change, and then once a day: a file that was read may be in use.
#[tokio::test]
async fn a_file_that_may_have_been_read_unnoted_is_kept_for_a_day_more() {
    let engine = Engine::start("relatime").await;
    let stage = Stage::at("relatime", engine.endpoint()).await;
    run(
        &stage,
        "set",
        "cd /shared; echo x >unread; echo x >read; \
        until [ \"$(stat -c %x read)\" \\> \"$(stat -c %y read)\" ]; do cat read; done",
        0,
    )
    .await;
    let backend = stage.backend("set", template(&stage, "sleep 1000", Some(1), nothing()));
    news(&backend).await;
    let volume = volume_of(&stage, "set").await.unwrap().name;
    assert_eq!(files(&stage.docker, &volume).await, ["read"]);
}

#[tokio::test]
async fn where_no_reading_is_noted_the_change_counts() {
    let engine = Engine::on_disk("noatime", 200, "noatime").await;
    let stage = Stage::at("noatime", engine.endpoint()).await;
    run(&stage, "set", "cd /shared; echo x >read; touch -t 200001010000 read; cat read; echo x >new", 0)
        .await;
    let backend = stage.backend("set", template(&stage, "sleep 1000", Some(3600), nothing()));
    news(&backend).await;
    let volume = volume_of(&stage, "set").await.unwrap().name;
    assert_eq!(files(&stage.docker, &volume).await, ["new"]);
}

#[tokio::test]
async fn runners_of_a_set_share_a_volume_that_is_theirs_alone_and_goes_with_the_set() {
    let engine = Engine::start("shared").await;
    let stage = Stage::at("shared", engine.endpoint()).await;
    // The image's user is not root.
    run(&stage, "set", "id -u | grep -x 1001 && echo said >/shared/word", 0).await;
    run(&stage, "set", "grep -x said /shared/word", 0).await;
    run(&stage, "other", "! grep . /shared/word", 0).await;
    let volume = volume_of(&stage, "set").await.unwrap();
    assert!(volume.name.contains("ci") && volume.name.contains("set"), "{}", volume.name);
    assert_eq!(volume.labels.get(Identity::CLUSTER), Some(&stage.cluster));

    let mut template =
        template(&stage, "grep -x said /shared/word && ! touch /shared/more", Some(0), nothing());
    template.shared_volume = Some(SharedVolume { read_only: true, ..shared(0) });
    let backend = stage.backend("set", template);
    let runner = started(&backend).await;
    let ended = until("its end is seen", || exit(&backend, &runner.id)).await;
    assert_eq!(ended.code, Some(0), "{}", backend.log_tail(HOST, &runner.id).await.unwrap());
    assert_eq!(backend.discard_shared().await.len(), 1, "a container has it");
    backend.remove(HOST, &runner.id).await.unwrap();
    until("its removal is seen", || shown(&backend, &runner.id).is_none().then_some(())).await;
    assert_eq!(backend.discard_shared().await, [""; 0]);
    assert!(!has_volume(&stage.docker, &volume.name).await);
    assert!(volume_of(&stage, "other").await.is_some());
    assert_eq!(backend.discard_shared().await, [""; 0], "there is none");

    make_volume(&stage.docker, &volume.name).await;
    let error = crate::stage::start(&backend).await.unwrap_err().to_string();
    assert!(error.contains("not this scale set's"), "{error}");
    backend.discard_shared().await;
    assert!(has_volume(&stage.docker, &volume.name).await, "what is not ours stays");
}

/// It carries the cluster's id, and is no runner all the same.
#[tokio::test]
async fn a_helper_takes_no_slot_and_is_no_orphan() {
    let engine = Engine::start("helper").await;
    let stage = Stage::at("helper", engine.endpoint()).await;
    let helper = stage.foreign("helper", &[(Identity::HELPER, &*stage.cluster)]).await;
    let ceiling = paddock::api::HostCeiling { endpoint: stage.endpoint.clone(), max_runners: 1 };
    stage.engines.limit(&[ceiling]);
    let backend = stage.backend("set", stage.template("sleep 1000"));
    assert_eq!(prepared(&backend).await.availability, Availability::Ready);
    assert_eq!(host(&backend).free_slots, 1);
    assert!(stage.engines.all_instances().iter().all(|listing| listing.found.is_empty()));
    remove(&stage.docker, &helper).await;
}

/// An image in which the first program of a helper tells what it is let do, in one write: runners and other helpers
/// are there meanwhile.
async fn telling_image(docker: &Docker) {
    let telling = "#!/bin/sh\nseen=$(grep CapEff /proc/self/status; ls /sys/class/net; touch /x 2>&1)\n\
                   echo \"$seen\" >/paddock-shared/seen\n";
    let script = format!("rm /bin/timeout; printf '%s' '{telling}' >/bin/timeout; chmod 755 /bin/timeout");
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", &script].map(str::to_owned).into()),
        user: Some("0".to_owned()),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await.unwrap().id;
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    let _ = docker.wait_container(&id, None::<WaitContainerOptions>).collect::<Vec<_>>().await;
    let options = CommitContainerOptionsBuilder::new().container(&id).repo("test/telling").tag("1").build();
    docker.commit_container(options, ContainerConfig::default()).await.unwrap();
    remove(docker, &id).await;
}

/// A helper is made of a tenant's image.
#[tokio::test]
async fn a_helper_has_no_network_and_no_rights_but_those_it_needs() {
    let engine = Engine::start("rights").await;
    let stage = Stage::at("helper-rights", engine.endpoint()).await;
    telling_image(&stage.docker).await;
    let mut template = template(&stage, "cat /shared/seen", Some(3600), nothing());
    template.images.runner = "test/telling:1".to_owned();
    let backend = stage.backend("set", template);
    prepared(&backend).await;
    let said = eventually("a helper tells", PATIENCE, async || {
        let runner = started(&backend).await;
        let ended = until("its end is seen", || exit(&backend, &runner.id)).await;
        let said = backend.log_tail(HOST, &runner.id).await.unwrap();
        backend.remove(HOST, &runner.id).await.unwrap();
        // DAC_OVERRIDE and FOWNER, with which the volume is swept; it was opened with the latter alone.
        (ended.code == Some(0) && said.contains("CapEff:\t000000000000000a")).then_some(said)
    })
    .await;
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(!said.contains("eth0") && said.lines().any(|line| line == "lo"), "{said}");
}

/// Sizes in the tests of the guard, in megabytes: of the disk, and of what is planted of each kind.
const DISK: u64 = 400;
const PART: u64 = 40;

/// Writes so many megabytes into a volume.
async fn fill(docker: &Docker, volume: &str, megabytes: u64) {
    let script = format!("dd if=/dev/zero of=/v/x bs=1M count={megabytes}");
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["/bin/sh", "-c", &script].map(str::to_owned).into()),
        user: Some("0".to_owned()),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount(volume, "/v")]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await.unwrap().id;
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    let ended: Vec<_> = docker.wait_container(&id, None::<WaitContainerOptions>).collect().await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    remove(docker, &id).await;
}

/// An archive with a file of so many megabytes, and what a build makes an image of it by.
fn archive(name: &str, megabytes: u64) -> Vec<u8> {
    let folder = std::env::temp_dir().join(format!("{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("big"), vec![7; usize::try_from(megabytes << 20).unwrap()]).unwrap();
    std::fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY big /big\n").unwrap();
    let tar = std::process::Command::new("tar").arg("-C").arg(&folder).args(["-c", "."]).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    assert!(tar.status.success());
    tar.stdout
}

/// An image without a name.
async fn dangling_image(docker: &Docker) {
    let options = CreateImageOptionsBuilder::new().from_src("-").build();
    let body = body_full(archive("image", PART).into());
    let lines: Vec<_> = docker.create_image(Some(options), Some(body), None).collect().await;
    assert!(lines.iter().all(Result::is_ok), "{lines:?}");
}

/// Build cache, by the BuildKit that the engine has in itself: what it was sent, and what it made of it. No image is left.
async fn build_cache(engine: &Engine, docker: &Docker) {
    let context = archive("context", PART / 3);
    let head = format!(
        "POST /v1.41/build?version=2&t=test/built:1 HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        context.len()
    );
    // bollard does not understand how BuildKit tells of its progress.
    let mut stream = UnixStream::connect(engine.socket()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&context).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    let said = String::from_utf8_lossy(&said);
    assert!(image_id(docker, "test/built:1").await.is_some(), "{said}");
    remove_image(docker, "test/built:1").await;
}

/// Megabytes that are free on the disk of an engine.
fn free(engine: &Engine) -> u64 {
    let folder = engine.socket().parent().unwrap().join("data");
    let df = std::process::Command::new("df").args(["--output=avail", "-B1M"]).arg(folder).output().unwrap();
    String::from_utf8(df.stdout).unwrap().lines().last().unwrap().trim().parse().unwrap()
}

fn guarded(min_free: u8, target_free: u8) -> Rules {
    Rules {
        builders: Some(Duration::from_secs(3600)),
        images: true,
        build_cache: Some(1 << 40),
        disk_guard: Some(DiskGuard {
            min_free: vec![FreeBytes::Percent(min_free)],
            target_free: vec![FreeBytes::Percent(target_free)],
        }),
        interval: Duration::from_secs(3600),
    }
}

#[tokio::test]
async fn a_full_disk_is_made_free_to_the_target_cheapest_first_and_no_further() {
    let engine = Engine::on_disk("full", DISK, "relatime").await;
    let stage = Stage::at("full", engine.endpoint()).await;
    let docker = &stage.docker;
    let write =
        format!("dd if=/dev/zero of=/shared/old bs=1M count={PART} && touch -t 200001010000 /shared/old");
    run(&stage, "set", &write, 0).await;
    let shared = volume_of(&stage, "set").await.unwrap().name;
    build_cache(&engine, docker).await;
    builder(docker, "stopped", "exit 0").await;
    fill(docker, "buildx_buildkit_stopped0_state", PART).await;
    builder(docker, "idle", WAITS).await;
    dangling_image(docker).await;
    let more = free(&engine).saturating_sub(DISK / 20);
    fill(docker, "of-others", more).await;
    let full = free(&engine);
    assert!(full <= DISK / 20, "{full} MB are free");

    // By what comes of age nothing goes before ten minutes are over.
    let look =
        |min, target| stage.backend("set", template(&stage, "sleep 1000", Some(3600), guarded(min, target)));
    let backend = look(10, 20);
    let told = news(&backend).await;
    assert!(told.contains("dangling images") && told.contains("idle builders"), "{told}");
    assert!(!told.contains("build cache") && !told.contains("shared volume"), "{told}");
    assert_eq!(builders(docker).await, ["idle"]);
    assert!(free(&engine) >= full + 2 * PART - 2, "{} MB are free", free(&engine));
    assert_eq!(files(docker, &shared).await, ["old"], "{told}");
    drop(backend);

    // 30 % is more than is free by now, and both stores that are left are needed for 40 %.
    let backend = look(30, 40);
    let told = news(&backend).await;
    assert!(told.contains("build cache") && told.contains("shared volume"), "{told}");
    assert_eq!(files(docker, &shared).await, [""; 0]);
    assert!(has_volume(docker, "of-others").await);
    assert_eq!(builders(docker).await, ["idle"], "young, and it runs");
    drop(backend);

    let backend = look(90, 95);
    let told = news(&backend).await;
    assert!(told.contains("housekeeping may remove no more"), "{told}");
    assert!(host(&backend).message.contains("of the disk is free"), "{}", host(&backend).message);
    for store in [Store::Images, Store::Builders, Store::BuildCache, Store::SharedFiles] {
        let freed = freed(&stage, store) >> 20;
        assert!((PART - 2..PART + 12).contains(&freed), "{store:?}: {freed} MB");
    }
}

/// Fills the disk of an engine until it can make no container any more.
async fn fill_up(engine: &Engine, docker: &Docker) {
    let mut filler = std::fs::File::create(engine.socket().parent().unwrap().join("data/filler")).unwrap();
    eventually("the disk is full", PATIENCE, async || {
        for size in [1 << 16, 1 << 10] {
            while std::io::Write::write_all(&mut filler, &vec![7; size]).is_ok() {}
            // What is not written yet is counted by an estimate.
            let _ = filler.sync_all();
        }
        let body = ContainerCreateBody { image: Some(IMAGE.to_owned()), ..ContainerCreateBody::default() };
        match docker.create_container(None, body).await {
            Ok(made) => {
                remove(docker, &made.id).await;
                None
            }
            Err(error) => error.to_string().contains("no space left").then_some(()),
        }
    })
    .await;
}

/// Nothing can be written on it, so no helper can be made that looks at it.
#[tokio::test]
async fn a_disk_without_a_byte_left_is_made_free_too() {
    let engine = Engine::on_disk("none-left", DISK / 2, "relatime").await;
    let stage = Stage::at("none-left", engine.endpoint()).await;
    dangling_image(&stage.docker).await;
    fill_up(&engine, &stage.docker).await;
    let backend = stage.backend("set", template(&stage, "sleep 1000", None, guarded(5, 5)));
    let told = news(&backend).await;
    assert!(told.contains("dangling images"), "{told}");
    assert!(free(&engine) >= PART - 2, "{} MB are free", free(&engine));
}

/// Engines before 28 have another word for the budget, and pass over ours.
#[tokio::test]
async fn build_cache_is_cut_to_its_budget_and_not_to_nothing() {
    let engine = Engine::start("budget").await;
    let stage = Stage::at("budget", engine.endpoint()).await;
    build_cache(&engine, &stage.docker).await;
    let rules = Rules { build_cache: Some((PART / 2) << 20), ..nothing() };
    let backend = stage.backend("set", template(&stage, "sleep 1000", None, rules));
    let told = news(&backend).await;
    assert!(told.contains("build cache"), "{told}");
    let freed = freed(&stage, Store::BuildCache) >> 20;
    assert!((PART / 3..PART * 3 / 4).contains(&freed), "{freed} MB");
}
