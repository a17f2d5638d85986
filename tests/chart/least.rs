//! Each right of the chart is needed: without it something breaks, which says so by the right's name.

use std::collections::BTreeSet;

use futures::StreamExt;
use harness::{Authority, Controller, Lab, Manifest, PATIENCE, found, github, is, lab};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use testkit::github::{JobSpec, JobStatus, SimGithub};
use tokio::select;

use crate::rights;

/// So many controllers run at once.
const AT_ONCE: usize = 4;

/// Where it is told that a right is missing.
enum Told {
    /// In a line of the log that has these words.
    Log(&'static str),
    /// In the message of this condition.
    Condition(&'static str),
}

use Told::{Condition, Log};

/// Each verb that the chart's roles have on a resource, and what breaks without it.
const NEEDED: [(&str, &str, Told); 17] = [
    ("list", "runnerscalesets", Log("RunnerScaleSets cannot be listed")),
    ("watch", "runnerscalesets", Log("a watch failed")),
    // The finalizer is added; and when it is removed, an object that was changed meanwhile is read again.
    ("patch", "runnerscalesets", Log("a reconcile failed")),
    ("get", "runnerscalesets", Log("a reconcile failed")),
    ("patch", "runnerscalesets/status", Log("could not be written")),
    ("get", "secrets", Condition("Reconciling")),
    ("list", "secrets", Log("a watch failed")),
    ("watch", "secrets", Log("a watch failed")),
    ("get", "configmaps", Condition("Reconciling")),
    ("list", "configmaps", Log("a watch failed")),
    ("watch", "configmaps", Log("a watch failed")),
    ("create", "events", Log("an event could not be published")),
    // That it is registered is told twice, which is a count on the first event.
    ("patch", "events", Log("an event could not be published")),
    ("create", "leases", Log("the Lease cannot be acquired")),
    ("get", "leases", Log("the Lease cannot be acquired")),
    ("update", "leases", Log("the Lease cannot be renewed")),
    ("get", "namespaces", Log("cannot read the kube-system namespace")),
];

/// One rule for each resource and verb.
fn single_rules(role: &Value) -> impl Iterator<Item = (String, String, Value)> {
    let words =
        |rule: &Value, field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let rules: Vec<Value> = role["rules"].as_array().cloned().unwrap_or_default();
    rules.into_iter().flat_map(move |rule| {
        let pairs = words(&rule, "verbs").into_iter().flat_map({
            let resources = words(&rule, "resources");
            move |verb| resources.clone().into_iter().map(move |resource| (verb.clone(), resource))
        });
        pairs.map(move |(verb, resource)| {
            let mut single = rule.clone();
            single["verbs"] = json!([verb]);
            single["resources"] = json!([resource]);
            (verb, resource, single)
        })
    })
}

/// The account and the roles of a release, one verb on one resource taken out.
async fn rights_without(lab: &Lab, lacking: Option<(&str, &str)>) -> Vec<Value> {
    let values = json!({"watchNamespaces": [lab.namespace]});
    let mut rights = rights::rendered(&lab.namespace, &lab.namespace, &values).await;
    for role in rights.iter_mut().filter(|object| object["rules"].is_array()) {
        let kept = single_rules(role).filter(|(verb, resource, _)| lacking != Some((verb, resource)));
        role["rules"] = kept.map(|(_, _, rule)| rule).collect();
    }
    rights
}

#[tokio::test]
async fn every_right_of_the_chart_has_its_row() {
    for values in [json!({}), json!({"watchNamespaces": ["ci"]})] {
        let rights = rights::rendered("paddock", "paddock", &values).await;
        let given: BTreeSet<(String, String)> = rights
            .iter()
            .flat_map(|role| single_rules(role).map(|(verb, resource, _)| (verb, resource)))
            .collect();
        let rows: BTreeSet<(String, String)> =
            NEEDED.iter().map(|(verb, resource, _)| ((*verb).to_owned(), (*resource).to_owned())).collect();
        assert_eq!(given, rows, "{values}");
    }
}

/// A life that needs every right: a scale set with a CA bundle is made, is registered twice, has a job, and goes while others
/// write to it.
async fn whole_life(lab: &Lab, github: &SimGithub) {
    let certificate = format!("--from-literal=ca.crt={}", Authority::new("tests").pem());
    lab.kubectl(&["create", "configmap", "ca", &certificate]).await;
    let bundle = json!({"github": {"caBundleRef": {"kind": "ConfigMap", "name": "ca", "key": "ca.crt"}}});
    lab.apply(&Manifest::sample(&github.config_url("acme")).spec(bundle)).await;
    let first = lab.until_is("linux", "Ready", "True", None).await.status.unwrap().scale_set_id;
    github.vanish_scale_set("linux").unwrap();
    lab.until("linux", "it is made anew at GitHub", |set| {
        set.status.as_ref().is_some_and(|s| s.scale_set_id != first) && is(set, "Ready", "True", None)
    })
    .await;
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]).lasting(std::time::Duration::ZERO));
    github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Completed).await.unwrap();
    lab.delete("linux").await;
    // Without a pause: one of these is to come between the controller's look at its finalizer and the removal of that.
    let others_write = async {
        for count in 0.. {
            let change = json!({"metadata": {"annotations": {"tests/count": count.to_string()}}});
            let change = Patch::Merge(change);
            if lab.sets().patch_metadata("linux", &PatchParams::default(), &change).await.is_err() {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, others_write).await;
    lab.until_gone("linux", PATIENCE).await;
}

/// Waits until it is told where it should be that the account may not do that.
async fn until_told(lab: &Lab, controller: &Controller, verb: &str, resource: &str, told: &Told) -> bool {
    let refusal = format!("cannot {verb} resource \"{resource}\"");
    // A whole life may pass before.
    let is_told = found(5 * PATIENCE, async || {
        let said = match told {
            Log(words) => controller
                .log()
                .lines()
                .any(|line| line.contains(words) && line.replace("\\\"", "\"").contains(&refusal)),
            Condition(type_) => {
                let set = lab.sets().get_opt("linux").await.unwrap();
                set.as_ref()
                    .and_then(|set| harness::condition(set, type_))
                    .is_some_and(|c| c.message.contains(&refusal))
            }
        };
        said.then_some(())
    });
    is_told.await.is_some()
}

async fn breaks_without(verb: &str, resource: &str, told: &Told) {
    println!("without {verb} {resource}");
    lab(&format!("no-{verb}-{}", resource.replace('/', "-")), async |lab| {
        let github = github(lab).await;
        let rights = rights_without(lab, Some((verb, resource))).await;
        rights::apply(&rights).await;
        rights::run_as(lab, &format!("{}-paddock", lab.namespace)).await;
        let controller = match resource {
            "namespaces" => lab.start_candidate_of_the_cluster("paddock-0"),
            _ => lab.start_candidate("paddock-0"),
        };
        let told = select! {
            told = until_told(lab, &controller, verb, resource, told) => told,
            // It may have come to its end just as it was told.
            () = whole_life(lab, &github) => until_told(lab, &controller, verb, resource, told).await,
        };
        assert!(told, "nothing breaks without {verb} {resource}: take it out of the chart");
        drop(controller);
        rights::remove(rights).await;
        // It may be there, on its way, or gone.
        let stripped = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let _ = lab.sets().delete("linux", &Default::default()).await;
        let _ = lab.sets().patch("linux", &PatchParams::default(), &stripped).await;
        lab.until_gone("linux", PATIENCE).await;
    })
    .await;
}

#[tokio::test]
async fn whatever_right_is_taken_away_something_breaks_and_names_it() {
    let rows = futures::stream::iter(&NEEDED);
    rows.for_each_concurrent(AT_ONCE, async |(verb, resource, told)| {
        breaks_without(verb, resource, told).await
    })
    .await;
}

#[tokio::test]
async fn with_all_of_them_the_same_life_is_lived_and_nothing_is_refused() {
    lab("all-rights", async |lab| {
        let github = github(lab).await;
        let rights = rights_without(lab, None).await;
        rights::apply(&rights).await;
        rights::run_as(lab, &format!("{}-paddock", lab.namespace)).await;
        let controller = lab.start_candidate("paddock-0");
        whole_life(lab, &github).await;
        let log = controller.log();
        assert!(!log.to_lowercase().contains("forbidden"), "{log}");
        controller.terminate().await;
        rights::remove(rights).await;
    })
    .await;
}
