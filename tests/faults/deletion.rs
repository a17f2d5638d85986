//! A deletion ends, whatever has gone before it.

use std::time::{Duration, Instant};

use harness::{Lab, github, lab};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;
use testkit::github::{JobSpec, SimGithub};

use crate::load::manifest;
use crate::network::github_behind_a_proxy;
use crate::proxy::Weather;

/// How long busy runners are waited for in these tests.
const DRAIN: Duration = Duration::from_secs(10);
/// A deletion ends within this after that.
const GRACE: Duration = Duration::from_secs(60);

/// A scale set with a busy runner, whose job does not end, and an idle one.
async fn one_busy_one_idle(lab: &Lab, github: &SimGithub) {
    let spec = json!({"minRunners": 1, "timeouts": {"drain": format!("{}s", DRAIN.as_secs())}});
    lab.apply(&manifest(&github.config_url("acme")).spec(spec)).await;
    lab.until_phases("linux", (0, 1, 0)).await;
    github.queue_job(JobSpec::new("acme/app", ["linux"]));
    lab.until_phases("linux", (0, 1, 1)).await;
}

/// Waits for the end of the deletion that began then.
async fn ends(lab: &Lab, begun: Instant) {
    lab.until_gone("linux", (DRAIN + GRACE).saturating_sub(begun.elapsed())).await;
    println!("the deletion took {:?}", begun.elapsed());
    assert!(lab.containers().await.is_empty());
}

#[tokio::test]
async fn one_whose_namespace_is_terminating_ends_after_its_drain() {
    lab("deleted-namespace", async |lab| {
        let github = github(lab).await;
        let controller = lab.start();
        one_busy_one_idle(lab, &github).await;
        // What the namespace controller does: the namespace is closed, then all in it is deleted.
        let begun = Instant::now();
        let namespaces: Api<Namespace> = Api::all(lab.client.clone());
        namespaces.delete(&lab.namespace, &DeleteParams::default()).await.unwrap();
        lab.delete_secret("github").await;
        lab.delete("linux").await;
        ends(lab, begun).await;
        // GitHub keeps a set whose job runs, for all that it knows; no event can be made here any more.
        let (runners, sets) = github.look(|s| (s.runners().count(), s.scale_sets().count()));
        assert_eq!((runners, sets), (1, 1), "the idle one is gone");
        assert!(controller.log().contains("this was left behind: scale set"));
    })
    .await;
}

#[tokio::test]
async fn one_whose_github_never_answers_again_ends_after_its_drain() {
    lab("deleted-silent", async |lab| {
        let (github, proxy) = github_behind_a_proxy(lab).await;
        let _controller = lab.start();
        one_busy_one_idle(lab, &github).await;
        proxy.set(Weather::Silent);
        let begun = Instant::now();
        lab.delete("linux").await;
        ends(lab, begun).await;
        let note = lab.event("linux", "LeftBehind").await;
        assert!(note.contains("at GitHub"), "{note}");
    })
    .await;
}
