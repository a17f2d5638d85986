//! What is wrong is said in a condition, is not hammered at, and heals by itself once mended.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use harness::{IMAGE, Lab, Manifest, PATIENCE, condition, github, is, lab};
use serde_json::json;
use testkit::github::{DEFAULT_TOKEN, Endpoint, Fault, SimGithub};
use tokio::time::Instant;

/// What is wrong shows within this.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// In this time, GitHub gets fewer requests than the next figure.
const WATCHED: Duration = Duration::from_secs(30);
const REQUESTS: usize = 10;
/// The longest pause between two tries, with its jitter.
const NEXT_TRY: Duration = Duration::from_secs(120);

/// A scale set that cannot work: its name, the condition that says so and the reason.
const TROUBLES: [(&str, &str, &str, &str); 6] = [
    ("wrong-token", "Registered", "False", "AuthRejected"),
    ("no-group", "Registered", "False", "GroupNotFound"),
    ("no-secret", "Stalled", "True", "SecretMissing"),
    ("nobody-there", "Registered", "False", "Unreachable"),
    ("only-errors", "Registered", "False", "Unreachable"),
    ("no-image", "DemandMet", "False", "ImageMissing"),
];

/// A tag for an image that is not there yet; removed with this.
struct Tag(String);

impl Tag {
    fn set(&self) {
        let tagged = Command::new("docker").args(["tag", IMAGE, &self.0]).status();
        assert!(tagged.unwrap().success());
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", &self.0]).output();
    }
}

/// An address on which nobody listens.
fn vacant_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Waits until each of the troubles shows.
async fn all_show(lab: &Lab) {
    let deadline = Instant::now() + SHOWN_WITHIN;
    for (name, type_, status, reason) in TROUBLES {
        let what = format!("{type_}={status}, {reason}");
        let left = deadline.saturating_duration_since(Instant::now());
        let set = lab.until_within(left, name, &what, |set| is(set, type_, status, Some(reason))).await;
        // With GitHub at hand and no job, a set without its image is ready all the same.
        assert!(name == "no-image" || is(&set, "Ready", "False", Some(reason)), "{name}");
    }
}

#[tokio::test]
async fn spares_that_cannot_be_started_are_told_of_though_no_job_waits() {
    lab("spares", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let spare = |name: &str, docker| {
            let manifest = Manifest::sample(&github.config_url("acme")).named(name);
            manifest.spec(json!({"minRunners": 1})).docker(docker)
        };
        let image = format!("paddock.test/{}:none", lab.cluster);
        lab.apply(&spare("no-image", json!({"image": image, "pullPolicy": "Never"}))).await;
        lab.apply(&spare("no-memory", json!({"resources": {"memory": "1Mi"}}))).await;
        let mut ceiling = spare("ceiling", json!({})).spec(json!({"minRunners": 2}));
        ceiling.0["spec"]["backends"][0]["maxRunners"] = json!(1);
        lab.apply(&ceiling).await;
        lab.until("no-image", "it is well but for its spare", |set| {
            let lacks = is(set, "Reconciling", "True", Some("ImageMissing"));
            lacks && is(set, "DemandMet", "True", None) && is(set, "Ready", "True", None)
        })
        .await;
        lab.event("no-image", "ImageMissing").await;
        lab.until_is("no-memory", "Stalled", "True", Some("BackendRefused")).await;
        lab.until_is("no-memory", "Ready", "False", Some("BackendRefused")).await;
        lab.event("no-memory", "BackendRefused").await;

        let set = lab.until_is("ceiling", "Reconciling", "True", Some("NoCapacity")).await;
        let reconciling = set.status.as_ref().unwrap().conditions.iter().find(|c| c.type_ == "Reconciling");
        let said = "1 of minRunners 2 are missing: maxRunners of backend docker is 1";
        assert_eq!(reconciling.unwrap().message, said);
        assert_eq!(set.status.as_ref().unwrap().backends[0].message, "its maxRunners of 1 is reached");

        lab.apply(&spare("no-memory", json!({"resources": {"memory": "64Mi"}}))).await;
        lab.until_is("no-memory", "Stalled", "False", None).await;
        lab.until_phases("no-memory", (0, 1, 0)).await;
        lab.until_is("no-memory", "Reconciling", "False", None).await;
    })
    .await;
}

#[tokio::test]
async fn a_set_none_of_whose_hosts_answers_says_so_in_ready_and_why() {
    lab("no-socket", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let socket = lab.folder().join("docker.sock");
        let host =
            json!({"name": "local", "endpoint": format!("unix://{}", socket.display()), "maxRunners": 4});
        lab.apply(&Manifest::sample(&github.config_url("acme")).docker(json!({"hosts": [host]}))).await;
        let set = lab
            .until("linux", "it is ready, but no host answers", |set| {
                let told = |condition| is(set, condition, "True", Some("HostUnreachable"));
                told("Ready") && told("Reconciling")
            })
            .await;
        let cause = format!("{}: no such file or directory", socket.display());
        for message in [
            &condition(&set, "Ready").unwrap().message,
            &condition(&set, "Reconciling").unwrap().message,
            &lab.event("linux", "HostUnreachable").await,
        ] {
            assert!(message.starts_with("no host answers: docker/local: "), "{message}");
            assert!(message.ends_with(&cause), "{message}");
        }
        std::os::unix::fs::symlink("/var/run/docker.sock", socket).unwrap();
        lab.until_within(NEXT_TRY, "linux", "healed", |set| {
            is(set, "Ready", "True", Some("AsExpected")) && is(set, "Reconciling", "False", None)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_wrong_is_said_and_heals_once_mended() {
    lab("trouble", async |lab| {
        let github = github(lab).await;
        let other = || SimGithub::builder().small_jit().start();
        let (groupless, failing, imageless) =
            (other().await.unwrap(), other().await.unwrap(), other().await.unwrap());
        let tokens = SimGithub::builder().small_jit().token("ghp_right").start().await.unwrap();
        let vacant = vacant_address();
        let tag = Tag(format!("paddock.test/{}:1", lab.cluster));
        failing.inject(Fault::status(Endpoint::Any, 503));

        let controller = lab.start();
        let sample =
            |name: &str, github: &SimGithub| Manifest::sample(&github.config_url("acme")).named(name);
        for manifest in [
            sample("wrong-token", &tokens),
            sample("no-group", &groupless).spec(json!({"github": {"runnerGroup": "elite"}})),
            sample("no-secret", &github).spec(json!({"github": {"credentialsSecretRef": {"name": "later"}}})),
            Manifest::sample(&format!("http://{vacant}/acme")).named("nobody-there"),
            sample("only-errors", &failing),
            sample("no-image", &imageless)
                .spec(json!({"minRunners": 1}))
                .docker(json!({"image": tag.0, "pullPolicy": "Never"})),
        ] {
            lab.apply(&manifest).await;
        }
        imageless.queue_job(testkit::github::JobSpec::new("acme/app", ["no-image"]).lasting(Duration::ZERO));
        all_show(lab).await;

        let asked = [
            ("wrong-token", &tokens),
            ("no-group", &groupless),
            ("no-secret", &github),
            ("only-errors", &failing),
            ("no-image", &imageless),
        ];
        for (_, github) in asked {
            github.clear_requests();
        }
        let tries = |log: String| {
            let tries =
                log.lines().filter(|l| l.contains("cannot be registered") && l.contains("nobody-there"));
            tries.count()
        };
        let before = tries(controller.log());
        tokio::time::sleep(WATCHED).await; // what must not happen is counted
        for (name, github) in asked {
            let requests = github.look(|s| s.requests().total());
            assert!(requests < REQUESTS, "{name}: {requests} requests");
        }
        assert!(tries(controller.log()) - before < REQUESTS);

        lab.secret("github", [("github_token", "ghp_right")]).await;
        lab.until_within(SHOWN_WITHIN, "wrong-token", "healed", |set| is(set, "Ready", "True", None)).await;
        lab.secret("later", [("github_token", DEFAULT_TOKEN)]).await;
        lab.until_within(SHOWN_WITHIN, "no-secret", "healed", |set| is(set, "Ready", "True", None)).await;
        lab.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        groupless.add_runner_group("elite");
        failing.clear_faults();
        tag.set();
        let _there = SimGithub::builder().bind(vacant).start().await.unwrap();
        for name in ["no-group", "nobody-there", "only-errors"] {
            lab.until_within(NEXT_TRY, name, "healed", |set| is(set, "Ready", "True", None)).await;
        }
        lab.until_within(NEXT_TRY, "no-image", "healed", |set| {
            is(set, "DemandMet", "True", None) && set.status.as_ref().unwrap().idle_runners == 1
        })
        .await;
        imageless
            .wait_until(PATIENCE, |s| s.jobs_in(testkit::github::JobStatus::Completed) == 1)
            .await
            .unwrap();
    })
    .await;
}
