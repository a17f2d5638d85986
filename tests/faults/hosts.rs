//! A host that refuses every start, or answers none, beside a good one.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use harness::{Engine, Lab, Manifest, PATIENCE, github, lab, merged};
use serde_json::json;
use testkit::github::{JobStatus, SimGithub};
use tokio::net::UnixListener;
use tokio::task::JoinHandle;

use crate::account::{Witness, settle};
use crate::load::{Chance, manifest};

/// What the bad engine says.
const WHY: &str = "write /var/lib/docker: no space left on device";
/// Slots of the good host: fewer than there is demand, so that the bad one would be welcome.
const GOOD_SLOTS: usize = 2;
/// The tries of the bad host that are waited for.
const TRIES: usize = 4;

/// An engine that makes no container.
struct BadEngine {
    endpoint: String,
    asked: Arc<Mutex<Vec<Instant>>>,
    task: JoinHandle<()>,
}

impl BadEngine {
    /// One that says why, or says nothing at all.
    fn start(lab: &Lab, silent: bool) -> BadEngine {
        let path = lab.folder().join("bad.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let router = Router::new().fallback(move |method: Method, uri: Uri| {
            let noted = noted.clone();
            async move {
                let creation = method == Method::POST && uri.path().ends_with("/containers/create");
                if silent && creation {
                    std::future::pending::<()>().await;
                }
                answer(&method, uri.path(), &noted).await
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        BadEngine { endpoint: format!("unix://{}", path.display()), asked, task }
    }

    /// When it was tried; starts that are made together are one try.
    fn tries(&self) -> Vec<Instant> {
        let mut tries = self.asked.lock().unwrap().clone();
        tries.dedup_by(|later, earlier| later.duration_since(*earlier) < Duration::from_secs(2));
        tries
    }
}

impl Drop for BadEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(method: &Method, path: &str, asked: &Mutex<Vec<Instant>>) -> Response {
    let refused =
        |status: StatusCode, why: &str| (status, axum::Json(json!({"message": why}))).into_response();
    match path.rsplit('/').next().unwrap_or_default() {
        "version" => axum::Json(json!({"Version": "20.10", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}))
            .into_response(),
        "info" => axum::Json(json!({"ServerVersion": "20.10"})).into_response(),
        "events" => std::future::pending().await,
        "create" if *method == Method::POST => {
            asked.lock().unwrap().push(Instant::now());
            refused(StatusCode::INTERNAL_SERVER_ERROR, WHY)
        }
        "json" if path.ends_with("/containers/json") => axum::Json(json!([])).into_response(),
        "json" if path.contains("/images/") => axum::Json(json!({"Id": "sha256:1"})).into_response(),
        _ => refused(StatusCode::NOT_FOUND, "No such container"),
    }
}

#[tokio::test]
async fn a_host_that_refuses_every_start_is_left_alone_and_said_so() {
    lab("bad-host", async |lab| {
        let github = github(lab).await;
        let (witness, mut chance) = (Witness::of(&github), Chance::of("bad-host"));
        let bad = BadEngine::start(lab, false);
        let _controller = lab.start();
        let good = Engine::start("good", github.address()).await;
        let hosts = json!({"hosts": [
            {"name": "bad", "endpoint": bad.endpoint},
            {"name": "good", "endpoint": good.endpoint(), "maxRunners": GOOD_SLOTS},
        ]});
        lab.apply(&manifest(&github.config_url("acme")).docker(hosts)).await;
        lab.until_is("linux", "Ready", "True", None).await;

        // The first job is tried on the bad host, which has more room, and goes to the good one at once.
        chance.queue_jobs(&github, 1);
        let begun = Instant::now();
        github.wait_until(PATIENCE, |s| s.jobs_in(JobStatus::Completed) == 1).await.unwrap();
        assert!(!bad.tries().is_empty(), "the bad host was tried");
        println!("the first job was done after {:?}", begun.elapsed());
        assert!(
            begun.elapsed() < Duration::from_secs(6),
            "it waited for the bad host: {:?}",
            begun.elapsed()
        );

        while bad.tries().len() < TRIES {
            assert!(begun.elapsed() < 2 * PATIENCE, "it was tried {} times", bad.tries().len());
            keep_wanting(&github, &mut chance).await;
        }
        let tries = bad.tries();
        let pauses: Vec<Duration> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        println!("pauses between the tries: {pauses:?}");
        assert!(pauses.windows(2).skip(1).all(|pair| pair[1] > pair[0]), "ever more rarely: {pauses:?}");
        let set = lab.get("linux").await;
        let backend = &set.status.as_ref().unwrap().backends[0];
        let host = backend.hosts.iter().find(|host| host.name == "bad").unwrap();
        println!("status says: {}", host.message);
        assert!(
            !host.ready && host.message.contains(WHY) && host.message.contains("since"),
            "{}",
            host.message
        );
        assert!(backend.backoff_until.is_some());
        let failed = settle(lab, &github, &witness, &[&good.docker], 0).await;
        assert!(failed.is_empty(), "lost: {failed:?}");
    })
    .await;
}

#[tokio::test]
async fn a_host_that_hangs_does_not_hold_up_the_starts_on_another() {
    lab("hung-host", async |lab| {
        let github = github(lab).await;
        let hung = BadEngine::start(lab, true);
        let _controller = lab.start();
        // More than may wait for their start at a time.
        let hosts = json!({"hosts": [{"name": "hung", "endpoint": hung.endpoint, "maxRunners": 20}]});
        let manifest = Manifest::sample(&github.config_url("acme"));
        let good = merged(manifest.0["spec"]["backends"][0].clone(), json!({"name": "good"}));
        let manifest = manifest.docker(hosts).spec(json!({"minRunners": 20, "maxRunners": 22}));
        lab.apply(&manifest).await;
        lab.until_phases("linux", (20, 0, 0)).await;

        let mut manifest = manifest.spec(json!({"minRunners": 22}));
        manifest.0["spec"]["backends"].as_array_mut().unwrap().push(good);
        let begun = Instant::now();
        lab.apply(&manifest).await;
        lab.until_phases("linux", (20, 2, 0)).await;
        println!("the good host's runners were up after {:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(30), "they waited for {:?}", begun.elapsed());
    })
    .await;
}

/// More jobs than the good host has slots, at any time.
async fn keep_wanting(github: &SimGithub, chance: &mut Chance) {
    let open = |s: &testkit::github::State| s.jobs().filter(|j| j.status != JobStatus::Completed).count();
    let wanting = github.look(open);
    chance.queue_jobs(github, (2 * GOOD_SLOTS).saturating_sub(wanting));
    github.wait_until(PATIENCE, |s| open(s) < 2 * GOOD_SLOTS).await.unwrap();
}
