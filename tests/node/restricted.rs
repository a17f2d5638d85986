//! The controller where the strictest of the Pod Security Standards is enforced, with an engine that is reached over the network.

use serde_json::json;
use testkit::github::JobStatus;

use crate::site::{PATIENCE, Site};

#[tokio::test]
async fn under_the_strictest_pod_security_the_controller_serves_an_engine_elsewhere() {
    let site = Site::new().await;
    site.sh("kubectl create namespace paddock").await;
    site.sh("kubectl label namespace paddock pod-security.kubernetes.io/enforce=restricted").await;
    let image = "--set image.repository=paddock.test/paddock --set image.tag=1";
    let lab = "--set 'policy.rules[0].insecureHttp=true'";
    site.sh(&format!("helm install paddock charts/paddock -n paddock {image} {lab} --wait --timeout 180s"))
        .await;
    site.sh("helm test paddock -n paddock").await;

    let endpoint = format!("tcp://{}", site.engine_by_a_port().await);
    let hosts = json!({"hosts": [{"name": "rack-1", "endpoint": endpoint}]});
    site.declare_file(&site.sample_with(hosts)).await;
    let jobs = site.queue(2);
    site.until_jobs(PATIENCE, &jobs, JobStatus::Running).await;
    site.until_busy(2).await;
    site.finish(&jobs).await;
    let gone = "kubectl -n ci get rss linux -o jsonpath='{.status.currentRunners}{.status.backends[0].hosts[0].name}'";
    site.until(gone, "0rack-1").await;
    site.remove_all().await;
}
