//! Two objects name one scale set, or a status claims what is another's: nothing at GitHub is closed, changed or deleted
//! but what the object has held the message session of.

use std::time::Duration;

use harness::{Lab, Manifest, PATIENCE, condition, github, is, lab};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::github::{DEFAULT_TOKEN, Endpoint, SimGithub};

/// What the API server can tell apart: it counts creation in whole seconds.
const ONE_SECOND: Duration = Duration::from_millis(1100);

/// The scale set as GitHub holds it: its id, its labels, the id of its session.
fn at_github(github: &SimGithub, name: &str) -> (i64, Vec<String>, Option<String>) {
    github.look(|s| {
        let set = s.scale_set(name).expect("it is at GitHub");
        let labels = set.labels.iter().map(|l| l.name.clone()).collect();
        (set.id, labels, set.session.as_ref().map(|s| s.id.clone()))
    })
}

/// Writes into a status what was never so, as whoever may write statuses can.
async fn forge(lab: &Lab, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    lab.sets().patch_status(name, &PatchParams::default(), &patch).await.unwrap();
}

fn no_request_to(github: &SimGithub, endpoints: &[Endpoint]) {
    for endpoint in endpoints {
        assert_eq!(github.requests(*endpoint).len(), 0, "{endpoint:?}");
    }
}

/// A second lab, as in another cluster: its own objects, its own controller, the same GitHub.
async fn in_another_cluster(word: &str, test: impl AsyncFnOnce(&Lab)) {
    lab(word, async |other| {
        other.secret("github", [("github_token", DEFAULT_TOKEN)]).await;
        other.permit_leader_election().await;
        test(other).await;
    })
    .await;
}

#[tokio::test]
async fn the_younger_of_two_objects_with_one_name_changes_nothing_until_the_older_goes() {
    lab("twins", async |lab| {
        let github = github(lab).await;
        let _controller = lab.start();
        let older = Manifest::sample(&github.config_url("acme"));
        let younger = older.clone().named("twin").spec(json!({
            "scaleSetName": "linux", "labels": ["of-the-twin"], "minRunners": 1,
        }));
        lab.apply(&older).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let before = at_github(&github, "linux");
        tokio::time::sleep(ONE_SECOND).await;

        lab.apply(&younger).await;
        let twin = lab.until_is("twin", "Registered", "False", Some("NameTaken")).await;
        assert!(
            is(&twin, "Stalled", "True", Some("NameTaken")) && is(&twin, "Ready", "False", Some("NameTaken"))
        );
        let said = &condition(&twin, "Registered").unwrap().message;
        assert!(said.contains(&format!("{}/linux", lab.namespace)), "{said}");
        lab.event("twin", "NameTaken").await;
        lab.delete("twin").await;
        lab.until_gone("twin", PATIENCE).await;
        assert_eq!(at_github(&github, "linux"), before, "the older has what it had");
        no_request_to(&github, &[Endpoint::UpdateScaleSet, Endpoint::DeleteScaleSet, Endpoint::JitConfig]);

        lab.apply(&younger).await;
        lab.until_is("twin", "Registered", "False", Some("NameTaken")).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        lab.until_is("twin", "Ready", "True", None).await;
        assert_eq!(at_github(&github, "linux").1, ["linux", "of-the-twin"]);
        lab.until_phases("twin", (0, 1, 0)).await;
        lab.delete("twin").await;
        lab.until_gone("twin", PATIENCE).await;
        assert_eq!(github.look(|s| (s.scale_sets().count(), s.runners().count())), (0, 0));
    })
    .await;
}

#[tokio::test]
async fn of_two_clusters_the_second_waits_and_leaves_no_trace() {
    lab("first-cluster", async |first| {
        let github = github(first).await;
        let _controller = first.start();
        first.apply(&Manifest::sample(&github.config_url("acme"))).await;
        first.until_is("linux", "Ready", "True", None).await;
        let before = at_github(&github, "linux");
        in_another_cluster("second-cluster", async |second| {
            let _controller = second.start_candidate("the-second");
            let manifest = Manifest::sample(&github.config_url("acme"))
                .spec(json!({"labels": ["of-the-second"], "minRunners": 1}));
            second.apply(&manifest).await;
            let set = second.until_is("linux", "Listening", "False", Some("SessionConflict")).await;
            let said = &condition(&set, "Listening").unwrap().message;
            assert!(said.contains("paddock-e2e"), "{said}");
            second.until_is("linux", "Ready", "False", Some("SessionConflict")).await;
            second.delete("linux").await;
            second.until_gone("linux", PATIENCE).await;
            assert_eq!(at_github(&github, "linux"), before, "the first has what it had");
            no_request_to(
                &github,
                &[Endpoint::UpdateScaleSet, Endpoint::DeleteScaleSet, Endpoint::JitConfig],
            );

            second.apply(&manifest).await;
            second.until_is("linux", "Listening", "False", Some("SessionConflict")).await;
            first.delete("linux").await;
            first.until_gone("linux", PATIENCE).await;
            second.until_is("linux", "Ready", "True", None).await;
            assert_eq!(at_github(&github, "linux").1, ["linux", "of-the-second"]);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_forged_session_closes_none_of_another_cluster() {
    lab("listens", async |first| {
        let github = github(first).await;
        let _controller = first.start();
        first.apply(&Manifest::sample(&github.config_url("acme"))).await;
        first.until_is("linux", "Ready", "True", None).await;
        let (id, labels, session) = at_github(&github, "linux");
        in_another_cluster("forges", async |second| {
            second.apply(&Manifest::sample(&github.config_url("acme"))).await;
            let forged = json!({"id": session, "owner": "paddock-e2e", "since": "2026-01-01T00:00:00Z"});
            forge(second, "linux", status(json!({"scaleSetId": id, "session": forged}))).await;
            let _controller = second.start_candidate("the-second");
            second.until_is("linux", "Listening", "False", Some("SessionConflict")).await;
            assert_eq!(at_github(&github, "linux"), (id, labels, session));
            no_request_to(&github, &[Endpoint::CloseSession]);
        })
        .await;
    })
    .await;
}

/// A status with all that the schema requires.
fn status(with: Value) -> Value {
    let mut status = json!({
        "desiredRunners": 0, "currentRunners": 0, "pendingRunners": 0, "idleRunners": 0, "busyRunners": 0,
    });
    status.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    status
}

#[tokio::test]
async fn a_forged_scale_set_id_renames_closes_and_deletes_nothing_of_another_s() {
    lab("forged-id", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let sample = Manifest::sample(&github.config_url("acme"));
        lab.apply(&sample.clone().named("victim")).await;
        lab.apply(&sample).await;
        lab.until_is("victim", "Ready", "True", None).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let ((victim, labels, session), (own, ..)) =
            (at_github(&github, "victim"), at_github(&github, "linux"));
        // A clean end: nothing but the proof stands between the forger and the other's scale set.
        first.terminate().await;
        let forged = json!({"id": session, "owner": "paddock-e2e", "since": "2026-01-01T00:00:00Z"});
        forge(lab, "linux", json!({"scaleSetId": victim, "session": forged})).await;
        github.clear_requests();

        let _second = lab.start();
        lab.until("linux", "it shows its own scale set again", |set| {
            set.status.as_ref().unwrap().scale_set_id == Some(own) && is(set, "Ready", "True", None)
        })
        .await;
        lab.until_is("victim", "Ready", "True", None).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        let (id, kept, now) = at_github(&github, "victim");
        assert_eq!((id, kept), (victim, labels));
        assert!(now.is_some(), "the other listens");
        let closed = github.requests(Endpoint::CloseSession);
        assert!(closed.iter().all(|r| r.scale_set != Some(victim) || r.status != Some(204)), "{closed:?}");
        no_request_to(&github, &[Endpoint::UpdateScaleSet]);
        assert_eq!(github.look(|s| s.scale_sets().count()), 1);
    })
    .await;
}

#[tokio::test]
async fn a_forged_runner_deregisters_none_of_another_s() {
    lab("forged-runner", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let sample = Manifest::sample(&github.config_url("acme")).spec(json!({"scaleDown": {"delay": "1s"}}));
        lab.apply(&sample.clone().named("victim").spec(json!({"minRunners": 1}))).await;
        lab.apply(&sample).await;
        lab.until_phases("victim", (0, 1, 0)).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let runner = lab.get("victim").await.status.unwrap().runners[0].clone();
        first.terminate().await;
        let forged = json!({
            "name": runner.name, "phase": "Idle", "backend": runner.backend, "host": runner.host,
            "since": "2026-01-01T00:00:00Z", "outdated": false,
        });
        forge(lab, "linux", json!({"runners": [forged]})).await;
        github.clear_requests();

        let _second = lab.start();
        let asked = |r: &testkit::github::Request| r.query.as_ref().is_some_and(|q| q.contains(&runner.name));
        let looked = github.wait_until(PATIENCE, |s| s.requests().to(Endpoint::GetRunner).any(asked)).await;
        looked.expect("GitHub is asked whose it is");
        lab.until("linux", "what was forged is given up", |set| {
            set.status.as_ref().is_some_and(|s| s.current_runners == 0 && s.runners.is_empty())
        })
        .await;
        no_request_to(&github, &[Endpoint::RemoveRunner]);
        assert!(github.look(|s| s.runner(&runner.name).is_some()), "the other's is registered");
        lab.until_phases("victim", (0, 1, 0)).await;
        assert_eq!(lab.timeline.count("die"), 0);
    })
    .await;
}

#[tokio::test]
async fn a_name_that_changed_while_no_controller_ran_is_changed_in_place() {
    lab("renamed-unseen", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        let (id, ..) = at_github(&github, "linux");
        first.kill().await;
        lab.apply(&manifest.spec(json!({"scaleSetName": "heavy"}))).await;
        let _second = lab.start();
        lab.until("linux", "it has its new name", |set| {
            let named = set.status.as_ref().and_then(|s| s.scale_set_name.as_deref()) == Some("heavy");
            named && is(set, "Ready", "True", None)
        })
        .await;
        assert_eq!(at_github(&github, "heavy").0, id);
        assert_eq!(github.look(|s| s.scale_sets().count()), 1);
    })
    .await;
}

#[tokio::test]
async fn what_another_has_taken_over_is_not_deleted_under_it() {
    lab("taken-over", async |lab| {
        let github = github(lab).await;
        let first = lab.start();
        let manifest =
            Manifest::sample(&github.config_url("acme")).spec(json!({"timeouts": {"drain": "1s"}}));
        lab.apply(&manifest).await;
        lab.until_is("linux", "Ready", "True", None).await;
        first.terminate().await;
        github.occupy_session("linux", "a-stranger").unwrap();
        let before = at_github(&github, "linux");
        lab.delete("linux").await;

        let _second = lab.start();
        lab.until_gone("linux", PATIENCE).await;
        assert_eq!(at_github(&github, "linux"), before);
        let note = lab.event("linux", "LeftBehind").await;
        assert!(note.contains("owned by `a-stranger`"), "{note}");
    })
    .await;
}
