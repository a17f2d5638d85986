//! The reaper's rounds, on a real engine, a real API server and a simulated GitHub. They wait for minutes before they
//! believe anything, so here they are made by hand, in a world that is real but for its clock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use futures::StreamExt;
use harness::api_server;
use harness::{IMAGE, Lab, Manifest, PATIENCE, eventually, github, lab};
use http::Request;
use jiff::Timestamp;
use kube::client::Body;
use kube::{Client, Config, ResourceExt};
use paddock::backend::Providers;
use paddock::controller::TestDriver;
use paddock::github::{self, ClientConfig, ScaleSetService};
use paddock::runner::Identity;
use paddock::scale_set::{Environment, Production};
use serde_json::json;
use testkit::github::{Endpoint, Fault, SimGithub};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::service_fn;

/// The age of an orphan, in seconds.
const TEN_MINUTES: i64 = 600;
/// A scale set that was not reconciled for so long is looked for, in seconds.
const TWO_MINUTES: i64 = 120;
/// Between two of GitHub's lists, in seconds.
const FIVE_MINUTES: i64 = 300;
/// A reconcile that failed is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// The real world at a time that stands still until it is put forward.
struct Clocked {
    real: Production,
    began: Timestamp,
    now: Mutex<Timestamp>,
}

impl Environment for Clocked {
    fn now(&self) -> Timestamp {
        *self.now.lock().unwrap()
    }

    fn uptime(&self) -> Duration {
        self.now().duration_since(self.began).unsigned_abs()
    }

    fn github(&self, client: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, github::Error> {
        self.real.github(client)
    }

    fn providers(&self) -> &Providers {
        self.real.providers()
    }
}

/// A controller that serves the scale set `linux` and makes a round when it is told to. It ends with this.
struct Reaper {
    core: Arc<TestDriver>,
    world: Arc<Clocked>,
    reconciling: AbortOnDropHandle<()>,
}

impl Reaper {
    /// Begins, in one namespace or all, with this client of the API server.
    fn begin(lab: &Lab, client: Client, namespace: Option<&str>) -> Reaper {
        let began = Timestamp::now();
        let mut made = None;
        let core =
            TestDriver::new(client, &lab.cluster, "paddock-reaper", CancellationToken::new(), |requeuer| {
                let real = Production::new(&lab.cluster, requeuer);
                made.insert(Arc::new(Clocked { real, began, now: Mutex::new(began) })).clone()
            });
        let core = Arc::new(core);
        let mut wakes = Box::pin(core.wakes(namespace));
        let (sets, reconciled) = (lab.sets(), core.clone());
        let reconciling = tokio::spawn(async move {
            loop {
                let object = sets.get("linux").await.unwrap();
                let next = reconciled.reconcile(&object).await.unwrap_or(Some(AGAIN));
                tokio::select! {
                    _ = wakes.next() => {}
                    () = sleep(next.unwrap_or(PATIENCE)) => {}
                }
            }
        });
        Reaper { core, world: made.unwrap(), reconciling: AbortOnDropHandle::new(reconciling) }
    }

    /// Makes a round so many seconds after the beginning.
    async fn round_at(&self, second: i64) {
        *self.world.now.lock().unwrap() = self.world.began + Duration::from_secs(second.unsigned_abs());
        self.core.make_round().await;
    }

    /// Waits until the engine has shown all of these runners.
    async fn until_seen<const N: usize>(&self, runners: [&str; N]) {
        eventually("the engine shows them", PATIENCE, async || {
            let seen = self.world.providers().instances();
            runners.iter().all(|name| seen.iter().any(|s| s.instance.runner == *name)).then_some(())
        })
        .await;
    }
}

/// Runs a container that says of itself that it is a runner; gives its id.
async fn place(lab: &Lab, cluster: &str, runner: &str, scale_set: &str, uid: &str) -> String {
    let labels = [
        (Identity::CLUSTER, cluster),
        (Identity::RUNNER, runner),
        (Identity::SCALE_SET, scale_set),
        (Identity::SCALE_SET_UID, uid),
    ];
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["sleep", "3600"].map(str::to_owned).into()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ContainerCreateBody::default()
    };
    let id = lab.docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    lab.docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    id
}

/// A scale set that is there; gives its UID.
async fn present(lab: &Lab, manifest: &Manifest) -> String {
    lab.apply(manifest).await;
    lab.get(manifest.name()).await.uid().unwrap()
}

/// One that was there and is gone.
async fn gone(lab: &Lab, manifest: &Manifest) -> String {
    let uid = present(lab, manifest).await;
    lab.delete(manifest.name()).await;
    lab.until_gone(manifest.name(), PATIENCE).await;
    uid
}

async fn assert_left<const N: usize>(lab: &Lab, runners: [&str; N], when: &str) {
    let left: BTreeSet<String> = lab.containers().await.into_keys().collect();
    assert_eq!(left, BTreeSet::from(runners.map(str::to_owned)), "{when}");
}

#[tokio::test]
async fn an_instance_goes_when_its_scale_set_is_gone_for_ten_minutes_and_no_other_does() {
    lab("strays", async |lab| {
        let github = github(lab).await;
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        let gone = gone(lab, &manifest.clone().named("gone")).await;
        // Nobody has reconciled this one yet.
        let waiting = present(lab, &manifest.named("waiting")).await;
        let (ours, other) = (lab.cluster.as_str(), format!("{}-other", lab.cluster));
        let here = |name: &str| format!("{}/{name}", lab.namespace);
        place(lab, ours, "gone", &here("gone"), &gone).await;
        place(lab, ours, "made-anew", &here("waiting"), &gone).await;
        place(lab, ours, "waiting", &here("waiting"), &waiting).await;
        place(lab, ours, "not-served", "elsewhere/gone", &gone).await;
        place(lab, ours, "not-named", "", &gone).await;
        let foreign = place(lab, &other, "foreign", &here("gone"), &gone).await;

        let reaper = Reaper::begin(lab, lab.client.clone(), Some(&lab.namespace));
        let all = ["gone", "made-anew", "not-named", "not-served", "waiting"];
        reaper.until_seen(all).await;
        reaper.round_at(0).await;
        reaper.round_at(TEN_MINUTES - 1).await;
        assert_left(lab, all, "two looks, not ten minutes").await;
        place(lab, ours, "later", &here("gone"), &gone).await;
        reaper.until_seen(["later"]).await;
        reaper.round_at(TEN_MINUTES).await;
        assert_left(lab, ["later", "not-named", "not-served", "waiting"], "ten minutes").await;
        reaper.round_at(2 * TEN_MINUTES - 1).await;
        assert_left(lab, ["later", "not-named", "not-served", "waiting"], "ten minutes less a second").await;
        reaper.round_at(2 * TEN_MINUTES).await;
        assert_left(lab, ["not-named", "not-served", "waiting"], "ten minutes after the first look at it")
            .await;

        let inspection = lab.docker.inspect_container(&foreign, None::<InspectContainerOptions>).await;
        assert_eq!(inspection.unwrap().state.unwrap().running, Some(true), "another cluster's");
        let by_force = RemoveContainerOptionsBuilder::new().force(true).build();
        lab.docker.remove_container(&foreign, Some(by_force)).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_scale_set_whose_object_went_unseen_is_forgotten_after_two_looks() {
    lab("forgotten", async |lab| {
        let github = github(lab).await;
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest).await;
        let as_nobody = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        let way = watch::Sender::new((lab.client.clone(), "v1alpha1"));
        let reaper = Reaper::begin(lab, client_by(way.subscribe()), Some(&lab.namespace));
        lab.until_phases("linux", (0, 1, 0)).await;
        // Another set keeps the engine in sight.
        lab.apply(&Manifest::sample(&github.config_url("acme")).named("other")).await;
        reaper.core.reconcile(&lab.get("other").await).await.unwrap();
        reaper.round_at(2 * TWO_MINUTES).await;
        reaper.round_at(3 * TWO_MINUTES).await;
        let listening = || github.look(|s| s.scale_set("linux").unwrap().session.is_some());
        assert!(listening(), "its object is there");

        // As the watch does, the tests' loop hands over no object that is gone.
        reaper.reconciling.abort();
        lab.delete_by_force("linux").await;
        way.send_replace((as_nobody, "v1alpha1"));
        reaper.round_at(4 * TWO_MINUTES).await;
        reaper.round_at(5 * TWO_MINUTES).await;
        way.send_replace((lab.client.clone(), "v1alpha1"));
        reaper.round_at(6 * TWO_MINUTES).await;
        assert!(listening(), "one look");
        reaper.round_at(7 * TWO_MINUTES).await;
        github.wait_until(PATIENCE, |s| s.scale_set("linux").unwrap().session.is_none()).await.unwrap();
        assert_eq!(lab.containers().await.len(), 1, "nobody spoke for it a moment ago");
        reaper.round_at(7 * TWO_MINUTES + TEN_MINUTES).await;
        assert_left(lab, [], "ten minutes").await;
    })
    .await;
}

/// How the API server is reached, and the version of the API that it is asked for.
type Way = (Client, &'static str);

/// A client whose way to the API server can change.
fn client_by(way: watch::Receiver<Way>) -> Client {
    let service = service_fn(move |mut request: Request<Body>| {
        let (client, version) = way.borrow().clone();
        let uri = request.uri().to_string().replace("v1alpha1", version);
        *request.uri_mut() = uri.parse().unwrap();
        async move { client.send(request).await }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn no_instance_goes_unless_the_api_server_itself_says_that_its_scale_set_is_gone() {
    lab("strays-unread", async |lab| {
        let github = github(lab).await;
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        let uid = gone(lab, &manifest.named("gone")).await;
        place(lab, &lab.cluster, "gone", &format!("{}/gone", lab.namespace), &uid).await;
        // There the controller's ServiceAccount has no rights.
        place(lab, &lab.cluster, "hidden", "default/gone", &uid).await;
        let as_controller = api_server::client_of(&lab.folder().join("kubeconfig")).await;
        let nobody = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();

        let way = watch::Sender::new((lab.client.clone(), "v1alpha1"));
        let reaper = Reaper::begin(lab, client_by(way.subscribe()), None);
        reaper.until_seen(["gone", "hidden"]).await;
        reaper.round_at(0).await;
        way.send_replace((nobody, "v1alpha1"));
        reaper.round_at(TEN_MINUTES).await;
        assert_left(lab, ["gone", "hidden"], "no answer").await;
        way.send_replace((lab.client.clone(), "v1beta9"));
        reaper.round_at(TEN_MINUTES + 60).await;
        assert_left(lab, ["gone", "hidden"], "a version that is not served").await;
        way.send_replace((as_controller, "v1alpha1"));
        reaper.round_at(TEN_MINUTES + 120).await;
        assert_left(lab, ["hidden"], "it may not look there").await;
        way.send_replace((lab.client.clone(), "v1alpha1"));
        reaper.core.depose();
        reaper.round_at(TEN_MINUTES + 180).await;
        assert_left(lab, ["hidden"], "another one leads").await;
    })
    .await;
}

/// The names of all runners that are registered.
fn registered(github: &SimGithub) -> BTreeSet<String> {
    github.look(|s| s.runners().map(|r| r.name.clone()).collect())
}

#[tokio::test]
async fn a_registration_goes_when_two_lists_show_it_and_nothing_stands_for_it() {
    lab("abandoned", async |lab| {
        let github = github(lab).await;
        for name in ["linux", "linux-gpu"] {
            github.create_scale_set("acme", name).unwrap();
        }
        github.mint_jit("linux", "linux-lost0001").unwrap();
        let online = github.mint_jit("linux", "linux-online01").unwrap();
        let _online = github.connect_runner(&online).unwrap();
        // Not named as one of ours.
        github.mint_jit("linux", "by-hand").unwrap();
        github.mint_jit("linux-gpu", "linux-gpu-lost0002").unwrap();
        // Named as one of ours would be.
        github.mint_jit("linux-gpu", "linux-standard").unwrap();

        // It runs and is not connected, so GitHub shows it as it does the lost one.
        let never = json!([{"name": "FAKE_RUNNER_NEVER_CONNECT", "value": "1"}]);
        let manifest = Manifest::sample(&github.config_url("acme")).spec(json!({"minRunners": 1}));
        lab.apply(&manifest.docker(json!({"env": never}))).await;
        let reaper = Reaper::begin(lab, lab.client.clone(), Some(&lab.namespace));
        lab.until_phases("linux", (0, 1, 0)).await;
        let before = registered(&github);
        assert_eq!(before.len(), 6, "{before:?}");
        let lists = || github.requests(Endpoint::RunnerList).len();

        reaper.round_at(0).await;
        reaper.round_at(FIVE_MINUTES - 1).await;
        assert_eq!(lists(), 1, "not twice within five minutes");
        github.inject(Fault::status(Endpoint::RunnerList, 404).times(1));
        reaper.round_at(FIVE_MINUTES).await;
        assert_eq!((lists(), registered(&github)), (2, before.clone()), "the second list was none");
        github.inject(Fault::exception(Endpoint::RemoveRunner, 400, "SomeException").times(1));
        reaper.round_at(2 * FIVE_MINUTES).await;
        assert_eq!(registered(&github), before, "its removal was refused");
        reaper.round_at(3 * FIVE_MINUTES).await;
        let mut left = before;
        left.remove("linux-lost0001");
        assert_eq!(registered(&github), left);

        reaper.round_at(4 * FIVE_MINUTES).await;
        assert_eq!(registered(&github), left);
        assert_eq!(github.requests(Endpoint::RemoveRunner).len(), 2);
        let counted = reaper.core.metrics().render().unwrap();
        assert!(counted.contains("paddock_orphans_found_total{kind=\"registration\"} 1\n"), "{counted}");
        assert_eq!(lab.timeline.count("create"), 1);
    })
    .await;
}
