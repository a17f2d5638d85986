//! A fleet of Docker hosts: the machine's own engine, one over TLS, one over SSH.

use std::collections::BTreeMap;

use bollard::Docker;
use bollard::query_parameters::ListContainersOptionsBuilder;
use harness::sshd::Sshd;
use harness::{Authority, Engine, Lab, Manifest, PATIENCE, github, lab};
use paddock::api::RunnerScaleSet;
use paddock::api::status::HostStatus;
use serde_json::json;
use testkit::github::{JobId, JobResult, JobSpec, JobStatus, SimGithub};

/// The hosts and their slots: of 30, 24 runners take four fifths on each.
const SLOTS: [(&str, i32); 3] = [("local", 6), ("tls", 9), ("ssh", 15)];

fn host(set: &RunnerScaleSet, name: &str) -> Option<HostStatus> {
    set.status.as_ref()?.backends.first()?.hosts.iter().find(|host| host.name == name).cloned()
}

/// How many runners status shows on each host.
fn spread(set: &RunnerScaleSet) -> [i32; 3] {
    SLOTS.map(|(name, _)| host(set, name).map_or(0, |host| host.current_runners))
}

async fn secret(lab: &Lab, authority: &Authority, signed_by: &Authority) {
    let own = signed_by.certify("paddock");
    let texts = [("ca.crt", &*authority.pem()), ("tls.crt", &own.certificate), ("tls.key", &own.key)];
    lab.secret("tls", texts).await;
}

/// The test's containers on an engine that have not ended.
async fn running(lab: &Lab, docker: &Docker) -> usize {
    let label = vec![format!("paddock.dev/cluster={}", lab.cluster)];
    let options = ListContainersOptionsBuilder::new().filters(&[("label", label)].into()).build();
    docker.list_containers(Some(options)).await.unwrap().len()
}

async fn running_jobs(github: &SimGithub, jobs: usize) {
    github.wait_until(2 * PATIENCE, |s| s.jobs_in(JobStatus::Running) == jobs).await.unwrap();
}

/// The jobs by the host that their runners are on.
fn by_host(set: &RunnerScaleSet, github: &SimGithub, jobs: &[JobId]) -> BTreeMap<String, Vec<JobId>> {
    let mut found: BTreeMap<String, Vec<JobId>> = BTreeMap::new();
    for job in jobs {
        let name = github.look(|s| s.job(*job).unwrap().runner.clone().unwrap().name);
        let runners = &set.status.as_ref().unwrap().runners;
        let runner = runners.iter().find(|runner| runner.name == name).expect("the job's runner");
        found.entry(runner.host.clone().unwrap()).or_default().push(*job);
    }
    found
}

#[tokio::test]
async fn jobs_are_spread_over_three_engines_and_those_of_one_that_is_away_are_adopted() {
    lab("engines", async |lab| {
        let github = github(lab).await;
        let authority = Authority::new("fleet");
        let over_tls = Engine::start("fleet-tls", github.address()).await.with_tls(&authority).await;
        let over_ssh = Engine::start("fleet-ssh", github.address()).await;
        let mut sshd = Sshd::before("fleet-sshd", over_ssh.socket()).await;
        // Not the right one yet.
        secret(lab, &authority, &Authority::new("another")).await;
        let (key, known) = (sshd.private_key(), sshd.known_hosts());
        lab.secret("ssh", [("ssh-privatekey", key.as_str()), ("known_hosts", &known)]).await;
        let controller = lab.start();
        let endpoints = [
            json!({"endpoint": "unix:///var/run/docker.sock"}),
            json!({"endpoint": over_tls.tls_endpoint(), "tlsSecretRef": {"name": "tls"}}),
            json!({"endpoint": sshd.endpoint("root"), "sshSecretRef": {"name": "ssh"}}),
        ];
        let mut hosts = Vec::new();
        for ((name, slots), mut host) in SLOTS.into_iter().zip(endpoints) {
            (host["name"], host["maxRunners"]) = (name.into(), slots.into());
            hosts.push(host);
        }
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest.spec(json!({"minRunners": 0, "maxRunners": 30})).docker(json!({"hosts": hosts})))
            .await;
        let ready = |set: &RunnerScaleSet, name: &str| host(set, name).is_some_and(|host| host.ready);
        lab.until("linux", "one credential is refused, and that host alone", |set| {
            let says = |host: HostStatus| host.message.contains("does not accept the certificate in tls.crt");
            host(set, "tls").is_some_and(says) && ready(set, "local") && ready(set, "ssh")
        })
        .await;
        secret(lab, &authority, &authority).await;
        lab.until("linux", "the changed Secret counts", |set| ready(set, "tls")).await;

        let jobs = github.queue_jobs(24, &JobSpec::new("acme/app", ["linux"]));
        running_jobs(&github, 24).await;
        let set = lab.until("linux", "they are spread by free shares", |set| spread(set) == [5, 7, 12]).await;
        assert_eq!((running(lab, &over_tls.docker).await, running(lab, &over_ssh.docker).await), (7, 12));
        let by_host = by_host(&set, &github, &jobs);

        sshd.kill().await;
        lab.until("linux", "its runners stay as last known", |set| {
            !ready(set, "ssh") && spread(set) == [5, 7, 12]
        })
        .await;
        let more = github.queue_jobs(3, &JobSpec::new("acme/app", ["linux"]));
        running_jobs(&github, 27).await;
        lab.until("linux", "its share goes elsewhere", |set| spread(set) == [6, 9, 12]).await;
        for job in &by_host["ssh"][..3] {
            github.finish_job(*job, JobResult::Succeeded).unwrap();
        }
        sshd.restart().await;
        lab.until("linux", "what is left is adopted", |set| ready(set, "ssh") && spread(set) == [6, 9, 9])
            .await;
        assert_eq!(
            running(lab, &over_ssh.docker).await,
            9,
            "none was started in place of those that were there"
        );
        let left = by_host.values().flatten().chain(&more).filter(|job| !by_host["ssh"][..3].contains(job));
        left.for_each(|job| github.finish_job(*job, JobResult::Succeeded).unwrap());
        lab.until_phases("linux", (0, 0, 0)).await;
        let set = lab.get("linux").await;
        assert_eq!(set.status.unwrap().recent_failures, [], "no job was lost");
        let log = controller.log();
        assert!(!log.contains("PRIVATE KEY"));
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        for engine in [&over_tls, &over_ssh] {
            assert_eq!(running(lab, &engine.docker).await, 0);
        }
    })
    .await;
}
