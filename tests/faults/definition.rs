//! The definition of RunnerScaleSet goes under a controller that runs, and comes back.

use harness::{Controller, Lab, PATIENCE, api_server, eventually, github, lab_on_own_server};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DeleteParams;
use kube::{Api, CustomResourceExt};
use paddock::api::RunnerScaleSet;
use serde_json::json;
use testkit::github::{JobId, JobResult, JobSpec, JobStatus, SimGithub};

use crate::load::manifest;

/// What is said of it.
const GONE: &str = "the definition of RunnerScaleSet is not installed";

/// Deletes the definition, as somebody does who strips the finalizers of what is in the way.
async fn remove_definition(lab: &Lab) {
    let definitions: Api<CustomResourceDefinition> = Api::all(lab.client.clone());
    let name = RunnerScaleSet::crd_name();
    definitions.delete(name, &DeleteParams::default()).await.unwrap();
    eventually("the definition is gone", PATIENCE, async || {
        for set in lab.sets().list_metadata(&Default::default()).await.map(|l| l.items).unwrap_or_default() {
            let stripped = kube::api::Patch::Merge(json!({"metadata": {"finalizers": null}}));
            let _ = lab.sets().patch(&set.metadata.name.unwrap(), &Default::default(), &stripped).await;
        }
        definitions.get_opt(name).await.unwrap().is_none().then_some(())
    })
    .await;
}

async fn until_not_ready(controller: &Controller) {
    eventually("/readyz says why it fails", PATIENCE, async || {
        let (status, said) = controller.get("/readyz").await;
        (status == 503 && said.contains(GONE)).then_some(())
    })
    .await;
}

async fn until_ready(controller: &Controller) {
    eventually("/readyz is well", PATIENCE, async || {
        (controller.get("/readyz").await.0 == 200).then_some(())
    })
    .await;
}

fn times_told(controller: &Controller) -> usize {
    controller.log().lines().filter(|line| line.contains(GONE)).count()
}

/// Lines for people: warnings and errors.
fn complaints(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
}

async fn busy_job(lab: &Lab, github: &SimGithub) -> JobId {
    lab.apply(&manifest(&github.config_url("acme"))).await;
    lab.until_is("linux", "Ready", "True", None).await;
    let job = github.queue_job(JobSpec::new("acme/app", ["linux"]));
    github.wait_until(PATIENCE, |s| s.job(job).unwrap().status == JobStatus::Running).await.unwrap();
    lab.until_phases("linux", (0, 0, 1)).await;
    job
}

#[tokio::test]
async fn a_definition_that_goes_is_told_once_and_waited_for_while_runners_run_on() {
    lab_on_own_server("definition", async |lab| {
        let github = github(lab).await;
        remove_definition(lab).await;
        let controller = lab.start();
        until_not_ready(&controller).await;
        assert_eq!(times_told(&controller), 1, "at its start");
        api_server::install_crd(&lab.client).await;
        until_ready(&controller).await;

        let job = busy_job(lab, &github).await;
        let before = controller.log().len();
        remove_definition(lab).await;
        until_not_ready(&controller).await;
        assert_eq!(controller.get("/healthz").await.0, 200);
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.timeline
            .until("the runner ends by itself", |events| events.iter().any(|e| e.action == "die"))
            .await;
        assert_eq!(lab.timeline.count("kill"), 0, "nobody stopped it");
        let told = controller.log().split_off(before);
        assert!(complaints(&told).len() < 5, "a flood: {told}");
        assert_eq!(times_told(&controller), 2, "and when it went");

        api_server::install_crd(&lab.client).await;
        until_ready(&controller).await;
        let job = busy_job(lab, &github).await;
        github.finish_job(job, JobResult::Succeeded).unwrap();
        lab.until_phases("linux", (0, 0, 0)).await;
        lab.delete("linux").await;
        lab.until_gone("linux", PATIENCE).await;
        println!("{}", complaints(&controller.log()).join("\n"));
    })
    .await;
}

#[tokio::test]
async fn one_that_stands_by_tells_of_it_too() {
    lab_on_own_server("definition-standby", async |lab| {
        lab.permit_leader_election().await;
        let (first, second) = (lab.start_candidate("paddock-0"), lab.start_candidate("paddock-1"));
        for controller in [&first, &second] {
            until_ready(controller).await;
        }
        remove_definition(lab).await;
        for controller in [&first, &second] {
            until_not_ready(controller).await;
        }
        api_server::install_crd(&lab.client).await;
        for controller in [&first, &second] {
            until_ready(controller).await;
        }
    })
    .await;
}
