//! The socket of the node's engine in a pod: by the chart and by the manifests, and when the engine makes it anew.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use harness::eventually;
use serde_json::json;
use testkit::github::JobStatus;

use crate::site::{PATIENCE, Site};

/// How long after the engine's return a job may take to be at work.
const RETURN: Duration = Duration::from_secs(120);

#[tokio::test]
async fn a_job_runs_once_the_engine_is_back_with_another_socket() {
    let site = Site::new().await;
    site.install("charts/paddock").await;
    let before = site.queue(1);
    site.until_jobs(PATIENCE, &before, JobStatus::Running).await;
    site.finish(&before).await;

    let socket = || std::fs::metadata(site.socket()).map(|metadata| metadata.ino()).ok();
    let first = socket();
    site.on_node("bash -c 'kill -TERM $(</run/docker.pid)'").await;
    eventually("another socket", PATIENCE, async || socket().filter(|_| socket() != first)).await;
    site.until("docker version --format '{{.Server.APIVersion}}' >/dev/null && echo back", "back").await;

    let after = site.queue(1);
    site.until_jobs(RETURN, &after, JobStatus::Running).await;
    site.finish(&after).await;
    let restarts =
        "kubectl -n paddock get pods -o jsonpath='{.items[*].status.containerStatuses[*].restartCount}'";
    assert_eq!(site.sh(restarts).await, "0 0");
    site.remove_all().await;
}

/// The manifests of `deploy/` with what a person would change in them.
fn overlay(group: &str) -> String {
    let folder = std::env::temp_dir().join("overlay");
    std::fs::create_dir_all(&folder).unwrap();
    let deploy = "../../../../../deploy";
    let groups = r#"{"op": "replace", "path": "/spec/template/spec/securityContext/supplementalGroups", "value": [GROUP]}"#;
    let policy =
        r#"{"op": "replace", "path": "/data/policy.yaml", "value": "rules: [{insecureHttp: true}]"}"#;
    let overlay = json!({
        "resources": [deploy],
        "components": [format!("{deploy}/docker-socket")],
        "images": [{"name": "registry.example.com/paddock", "newName": "paddock.test/paddock", "newTag": "1"}],
        "patches": [
            {"target": {"kind": "Deployment"}, "patch": format!("[{}]", groups.replace("GROUP", group))},
            {"target": {"kind": "ConfigMap"}, "patch": format!("[{policy}]")},
        ],
    });
    std::fs::write(folder.join("kustomization.yaml"), overlay.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_manifests_without_helm_serve_a_nodes_engine_too() {
    let site = Site::new().await;
    let overlay = overlay(&site.group().await);
    site.sh("kubectl label node node --overwrite paddock.dev/docker=").await;
    site.sh(&format!("kubectl apply -k {overlay}")).await;
    site.sh("kubectl -n paddock-system rollout status deployment/paddock --timeout=180s").await;
    site.declare().await;
    let job = site.queue(1);
    site.until_jobs(PATIENCE, &job, JobStatus::Running).await;
    site.finish(&job).await;
    site.sh("kubectl delete rss --all --all-namespaces").await;
    site.sh(&format!("kubectl delete -k {overlay}")).await;
    assert_eq!(site.containers().await, "");
}
