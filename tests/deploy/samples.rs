//! The samples, each applied to the real program: it becomes what its comment says. What they name of the world outside (GitHub,
//! images, hosts, an account) is a part of the tests; all else is as the reader has it.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;
use harness::gateways::{LOGIN, TestProxy, TlsFront};
use harness::sshd::Sshd;
use harness::{Authority, Engine, IMAGE, Lab, Manifest, PATIENCE, github, is, lab, merged, stand_ins};
use paddock::api::RunnerScaleSet;
use serde_json::json;
use testkit::ecs::{
    ClusterSpec, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY, Delays, InstanceSpec, LaunchType, SimEcs, Task,
};
use testkit::github::{DEFAULT_TOKEN, JobSpec, JobStatus, SimGithub, app_private_key};
use testkit::tart;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/samples");

/// The subnet of the samples.
const SUBNET: &str = "subnet-0123456789abcdef0";

/// A sample at this GitHub, with the tests' images.
fn sample(name: &str, github_url: &str) -> Manifest {
    let text = fs::read_to_string(format!("{FOLDER}/{name}.yaml")).unwrap();
    let insecure = github_url.starts_with("http://");
    let mut manifest = Manifest(serde_saphyr::from_str(&text).unwrap())
        .spec(json!({"github": {"url": github_url, "allowInsecure": insecure}}));
    for backend in manifest.0["spec"]["backends"].as_array_mut().unwrap() {
        let changes = json!({
            "docker": {"image": IMAGE, "network": "host", "housekeeping": {
                "buildx": {"enabled": false}, "images": {"enabled": false},
                "buildCache": {"enabled": false}, "diskGuard": {"enabled": false},
            }},
            "tart": {"image": tart::IMAGE, "cpu": null, "memory": null},
        });
        for (kind, changes) in changes.as_object().unwrap() {
            if let Some(block) = backend.get_mut(kind) {
                *block = merged(block.take(), changes.clone());
            }
        }
    }
    manifest
}

/// Where a host of a backend is.
fn at(mut manifest: Manifest, backend: usize, kind: &str, host: usize, endpoint: &str) -> Manifest {
    manifest.0["spec"]["backends"][backend][kind]["hosts"][host]["endpoint"] = endpoint.into();
    manifest
}

/// Applies a sample and waits until it is ready.
async fn ready(lab: &Lab, manifest: &Manifest) -> RunnerScaleSet {
    lab.apply(manifest).await;
    lab.until_is(manifest.name(), "Ready", "True", None).await
}

/// Has the runners of that label at work on so many jobs, which go on.
async fn work(github: &SimGithub, label: &str, jobs: usize) {
    github.queue_jobs(jobs, &JobSpec::new("acme/app", [label]));
    github.wait_until(PATIENCE * 2, |s| s.jobs_in(JobStatus::Running) == jobs).await.unwrap();
}

/// How many runners each backend has.
fn spread(set: &RunnerScaleSet) -> Vec<i32> {
    set.status.iter().flat_map(|status| &status.backends).map(|backend| backend.current_runners).collect()
}

#[tokio::test]
async fn the_api_server_takes_each_sample_as_it_is_and_each_has_its_test() {
    lab("sample-files", async |lab| {
        let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename", FOLDER];
        let said = lab.kubectl(&apply).await;
        let files = fs::read_dir(FOLDER).unwrap().map(|file| file.unwrap().path());
        let names: BTreeSet<String> =
            files.map(|f| f.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(said.lines().count(), names.len(), "{said}");
        let tests = include_str!("samples.rs");
        let untested = names.iter().filter(|name| !tests.contains(&format!("sample(\"{name}\"")));
        assert_eq!(untested.collect::<Vec<_>>(), Vec::<&String>::new());
    })
    .await;
}

#[tokio::test]
async fn the_smallest_serves_a_job_that_names_it() {
    lab("sample-docker", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        ready(lab, &sample("docker", &github.config_url("acme"))).await;
        work(&github, "linux", 1).await;
    })
    .await;
}

#[tokio::test]
async fn that_of_an_app_has_two_spares_and_limits() {
    lab("sample-app", async |lab| {
        let github = SimGithub::builder().small_jit().app("123456", 12_345_678, app_private_key()).unwrap();
        let github = github.start().await.unwrap();
        let app = [
            ("github_app_id", "123456"),
            ("github_app_installation_id", "12345678"),
            ("github_app_private_key", app_private_key()),
        ];
        lab.secret("github-app", app).await;
        let ghcr = ["create", "secret", "docker-registry", "ghcr", "--docker-server=ghcr.io"];
        lab.kubectl(&[&ghcr as &[&str], &["--docker-username=acme", "--docker-password=x"]].concat()).await;
        let _controller = lab.start();
        // The machine of the tests may have two CPUs.
        let app = sample("docker-app", &github.config_url("acme")).docker(json!({"resources": {"cpu": "2"}}));
        ready(lab, &app).await;
        let set = lab.until_phases("linux-large", (0, 2, 0)).await;
        let container = set.status.as_ref().unwrap().runners[0].instance_id.clone().unwrap();
        assert!(
            lab.environment(&container)
                .await
                .contains(&"NPM_CONFIG_REGISTRY=https://npm.acme.example".to_owned())
        );
        let made = lab.docker.inspect_container(&container, None::<InspectContainerOptions>).await.unwrap();
        let limits = made.host_config.unwrap();
        assert_eq!((limits.nano_cpus, limits.memory), (Some(2_000_000_000), Some(8 << 30)));
        work(&github, "large", 1).await;
        lab.until_phases("linux-large", (0, 2, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn that_with_schedules_has_the_spares_of_the_hour() {
    lab("sample-schedules", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        ready(lab, &sample("schedules", &github.config_url("acme"))).await;
        lab.until("linux-office", "as many wait as the open window says", |set| {
            let status = set.status.as_ref().unwrap();
            let spares = match status.active_schedule.as_deref() {
                Some("office") => 5,
                None | Some("backup") => 0,
                other => panic!("{other:?}"),
            };
            (status.desired_runners, status.idle_runners) == (spares, spares)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn that_of_a_fleet_has_both_hosts_and_two_spares() {
    lab("sample-fleet", async |lab| {
        let github = github(lab).await;
        let authority = Authority::new("fleet");
        let over_tls = Engine::start("sample-tls", github.address()).await.with_tls(&authority).await;
        let over_ssh = Engine::start("sample-ssh", github.address()).await;
        let sshd = Sshd::before("sample-sshd", over_ssh.socket()).await;
        let own = authority.certify("paddock");
        let tls = [("ca.crt", &*authority.pem()), ("tls.crt", &own.certificate), ("tls.key", &own.key)];
        lab.secret("rack-1-tls", tls).await;
        let (key, known) = (sshd.private_key(), sshd.known_hosts());
        lab.secret("rack-2-ssh", [("ssh-privatekey", key.as_str()), ("known_hosts", &known)]).await;
        let _controller = lab.start();
        let fleet = sample("docker-fleet", &github.config_url("acme"));
        let fleet = at(fleet, 0, "docker", 0, &over_tls.tls_endpoint());
        ready(lab, &at(fleet, 0, "docker", 1, &sshd.endpoint("root"))).await;
        lab.until("racks", "both hosts answer, and two runners wait", |set| {
            let status = set.status.as_ref().unwrap();
            status.backends[0].hosts.iter().all(|host| host.ready) && status.idle_runners == 2
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn that_of_an_enterprise_server_trusts_its_authority_and_takes_the_proxy() {
    lab("sample-ghes", async |lab| {
        let (front, github) = TlsFront::start(SimGithub::builder().small_jit()).await;
        let proxy = TestProxy::start(front.address).await;
        lab.secret("ghes", [("github_token", DEFAULT_TOKEN)]).await;
        lab.secret("proxy", [("username", LOGIN.0), ("password", LOGIN.1)]).await;
        let authority = format!("--from-literal=ca.crt={}", front.authority);
        lab.kubectl(&["create", "configmap", "corp-ca", &authority]).await;
        let _controller = lab.start();
        let manifest = sample("ghes", &format!("https://{}/acme", front.address));
        let through = json!({"github": {"proxy": {"url": format!("http://{}", proxy.address)}}});
        ready(lab, &manifest.spec(through)).await;
        assert!(github.look(|s| s.requests().polls_held()) > 0);
        let asked = proxy.asked();
        let all = asked.iter().all(|line| line.starts_with(&format!("CONNECT {}", front.address)));
        assert!(all && !asked.is_empty(), "{asked:?}");
    })
    .await;
}

#[tokio::test]
async fn that_of_a_mac_keeps_one_warm_and_serves_a_job() {
    lab("sample-tart", async |lab| {
        let github = github(lab).await;
        let macs = lab.macs(1, |_| {}).await;
        let (key, known) = (macs[0].private_key().unwrap(), macs[0].known_hosts().unwrap());
        lab.secret("mac-ssh", [("ssh-privatekey", key.as_str()), ("known_hosts", &known)]).await;
        let _controller = lab.start();
        ready(lab, &at(sample("tart", &github.config_url("acme")), 0, "tart", 0, &macs[0].endpoint())).await;
        lab.until("macos", "one is warm", |set| set.status.as_ref().unwrap().backends[0].warm == Some(1))
            .await;
        work(&github, "macos", 1).await;
    })
    .await;
}

/// An account with the cluster of the samples, and the Secret `aws` for it.
async fn account(lab: &Lab) -> SimEcs {
    let keys = [("aws_access_key_id", DEFAULT_ACCESS_KEY), ("aws_secret_access_key", DEFAULT_SECRET_KEY)];
    lab.secret("aws", keys).await;
    let ecs = SimEcs::builder()
        .cluster(ClusterSpec::new("runners"))
        .subnet(SUBNET)
        .delays(Delays::each(Duration::from_millis(100)))
        .stop_timeout(Duration::from_secs(1))
        .runner(stand_ins::fake_runner().await);
    ecs.start().await.unwrap()
}

/// The ECS backend of a sample in this account.
fn in_account(mut manifest: Manifest, backend: usize, ecs: &SimEcs) -> Manifest {
    let block = &mut manifest.0["spec"]["backends"][backend]["ecs"];
    let changes =
        json!({"endpointUrl": ecs.url(), "region": ecs.region(), "credentialsSecretRef": {"name": "aws"}});
    *block = merged(block.take(), changes);
    manifest
}

/// Has a sample's runners at work on four jobs, in tasks that are all so.
async fn tasks(
    word: &str,
    of: impl Fn(&str) -> Manifest,
    prepare: impl Fn(&SimEcs),
    so: impl Fn(&[Task]) -> bool,
) {
    lab(word, async |lab| {
        let (github, ecs) = (github(lab).await, account(lab).await);
        prepare(&ecs);
        let _controller = lab.start();
        let manifest = in_account(of(&github.config_url("acme")), 0, &ecs);
        ready(lab, &manifest).await;
        work(&github, manifest.name(), 4).await;
        let tasks: Vec<Task> = ecs.look(|s| s.tasks().cloned().collect());
        assert!(tasks.len() == 4 && so(&tasks), "{tasks:#?}");
    })
    .await;
}

#[tokio::test]
async fn that_of_fargate_runs_on_spot_and_on_demand() {
    let spot = |tasks: &[Task]| tasks.iter().filter(|task| task.is_spot()).count();
    tasks(
        "sample-fargate",
        |url| sample("ecs-fargate", url),
        |_| {},
        |tasks| spot(tasks) == 3 && tasks.iter().all(|task| task.subnet.as_deref() == Some(SUBNET)),
    )
    .await;
}

#[tokio::test]
async fn that_of_ec2_has_a_private_engine_beside_each_runner() {
    let machine = |ecs: &SimEcs| {
        (0..4).for_each(|_| drop(ecs.add_instance("runners", InstanceSpec::default()).unwrap()));
    };
    tasks(
        "sample-ec2",
        |url| sample("ecs-ec2", url),
        machine,
        |tasks| {
            let containers =
                |task: &Task| task.definition.body["containerDefinitions"].as_array().map(Vec::len);
            tasks.iter().all(|task| task.launch_type == LaunchType::Ec2 && containers(task) == Some(2))
        },
    )
    .await;
}

#[tokio::test]
async fn that_of_machines_of_ones_own_runs_there() {
    let machine = |ecs: &SimEcs| {
        let own = || InstanceSpec { external: true, ..InstanceSpec::default() };
        (0..4).for_each(|_| drop(ecs.add_instance("runners", own()).unwrap()));
    };
    tasks(
        "sample-external",
        |url| sample("ecs-external", url),
        machine,
        |tasks| tasks.iter().all(|task| task.launch_type == LaunchType::External),
    )
    .await;
}

#[tokio::test]
async fn that_of_three_kinds_fills_them_in_order() {
    lab("sample-spill", async |lab| {
        let (github, ecs, macs) = (github(lab).await, account(lab).await, lab.macs(1, |_| {}).await);
        let (key, known) = (macs[0].private_key().unwrap(), macs[0].known_hosts().unwrap());
        lab.secret("mac-ssh", [("ssh-privatekey", key.as_str()), ("known_hosts", &known)]).await;
        let _controller = lab.start();
        let manifest = in_account(sample("spill-over", &github.config_url("acme")), 2, &ecs);
        lab.apply(&at(manifest, 1, "tart", 0, &macs[0].endpoint())).await;
        lab.until("burst", "all hosts answer", |set| {
            let backends = || set.status.iter().flat_map(|status| &status.backends);
            backends().count() == 3 && backends().all(|b| b.hosts[0].ready) && is(set, "Ready", "True", None)
        })
        .await;
        work(&github, "burst", 10).await;
        lab.until("burst", "6, 2 and 2", |set| spread(set) == [6, 2, 2]).await;
    })
    .await;
}
