//! Large objects: who fills the API server with them fills no controller.

use futures::{StreamExt, stream};
use harness::{Lab, Manifest, PATIENCE, eventually, lab_on_own_server};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::memory;

const CONFIG_MAPS: usize = 500;
const SCALE_SETS: usize = 1_000;
/// Annotations may have 256 KiB in all.
const ANNOTATION: usize = 250_000;
/// The value of a variable may have 32 KiB.
const VARIABLE: usize = 32_000;
/// How many objects are written at a time.
const AT_A_TIME: usize = 16;

/// None of the sets comes to a GitHub: that each is known, its spec read, is enough.
#[tokio::test]
async fn large_objects_fit_in_the_shipped_memory_limit() {
    lab_on_own_server("large", async |lab| {
        lab.secret("github", [("github_token", "t")]).await;
        let maps = stream::iter(0..CONFIG_MAPS).map(|n| fill(lab, n));
        maps.buffer_unordered(AT_A_TIME).collect::<()>().await;
        let sets = stream::iter(0..SCALE_SETS).map(|n| declare(lab, n));
        sets.buffer_unordered(AT_A_TIME).collect::<()>().await;
        let controller = lab.start_at_level("info");
        let all_known = async || {
            let (_, metrics) = controller.get("/metrics").await;
            let known = metrics.lines().filter(|line| line.starts_with("gha_max_runners{")).count();
            (known == SCALE_SETS).then_some(())
        };
        eventually("the controller knows all scale sets", 5 * PATIENCE, all_known).await;
        let (peak, limit) = (memory::peak(&controller), memory::shipped_limit());
        println!("{} of {} MiB", peak >> 20, limit >> 20);
        assert!(peak < limit, "{} MiB of {} MiB", peak >> 20, limit >> 20);
    })
    .await;
}

async fn fill(lab: &Lab, n: usize) {
    let api: Api<ConfigMap> = Api::namespaced(lab.client.clone(), &lab.namespace);
    let metadata = json!({"name": format!("large-{n}"), "annotations": {"large": "a".repeat(ANNOTATION)}});
    let map = serde_json::from_value(json!({"metadata": metadata})).unwrap();
    api.create(&PostParams::default(), &map).await.unwrap();
}

async fn declare(lab: &Lab, n: usize) {
    let variable = |name: &str| json!({"name": name, "value": "v".repeat(VARIABLE)});
    let set = Manifest::sample("http://127.0.0.1:9/acme").named(&format!("large-{n}"));
    let set = set.docker(json!({"env": [variable("ONE"), variable("TWO")]})).0;
    let set = serde_json::from_value(set).unwrap();
    lab.sets().create(&PostParams::default(), &set).await.unwrap();
}
