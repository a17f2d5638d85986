//! `deploy/` by kustomize, with each choice of its components; and what is there for monitoring.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness::{Lab, lab};
use serde_json::json;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What a person adds to `components` in `deploy/kustomization.yaml`.
const COMPONENTS: [&str; 2] = ["docker-socket", "network-policy"];

/// A folder that takes `deploy/` in with these components. Kustomize takes no absolute paths.
fn overlay(lab: &Lab, components: &[&str]) -> String {
    let folder = lab.folder().join(format!("with-{}", components.join("-and-")));
    fs::create_dir(&folder).unwrap();
    let depth = folder.strip_prefix(ROOT).unwrap().components().count();
    let deploy = Path::new(&"../".repeat(depth)).join("deploy");
    let components: Vec<_> = components.iter().map(|component| deploy.join(component)).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [deploy], "components": components,
    });
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
    folder.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_api_server_takes_the_manifests_with_each_choice_of_components() {
    lab("kustomize", async |lab| {
        for (components, objects) in
            [(&COMPONENTS[..0], 9), (&COMPONENTS[..1], 9), (&COMPONENTS[1..], 10), (&COMPONENTS[..], 10)]
        {
            let folder = overlay(lab, components);
            let apply =
                ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"];
            // The manifests name their namespace, which that of the lab must not contradict.
            let which = ["--namespace", "paddock-system", "--kustomize", &folder];
            let said = lab.kubectl(&[&apply as &[&str], &which].concat()).await;
            assert_eq!(said.lines().count(), objects, "{components:?}: {said}");
            let built = lab.kubectl(&["kustomize", &folder]).await;
            assert_eq!(built.contains("path: /var/run\n"), components.contains(&"docker-socket"));
            assert_eq!(built.contains("\nkind: NetworkPolicy\n"), components.contains(&"network-policy"));
        }
    })
    .await;
}

#[test]
fn monitoring_without_helm_has_the_chart_s_files_and_a_configuration_that_prometheus_takes() {
    for (link, file) in
        [("prometheus/alerts.yaml", "alerts.yaml"), ("grafana/dashboard.json", "dashboard.json")]
    {
        let chart = Path::new(ROOT).join("charts/paddock/files").join(file);
        assert_eq!(fs::canonicalize(format!("{ROOT}/deploy/{link}")).unwrap(), chart, "one source for both");
    }
    // Debian's Prometheus is built without the discovery of Kubernetes.
    let config = fs::read_to_string(format!("{ROOT}/deploy/prometheus/prometheus.yaml")).unwrap();
    let (before, rest) = config.split_once("    kubernetes_sd_configs:\n").unwrap();
    let (_, after) = rest.split_once("    relabel_configs:\n").unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(format!("{ROOT}/deploy/prometheus/alerts.yaml"), folder.join("alerts.yaml")).unwrap();
    fs::write(folder.join("prometheus.yaml"), format!("{before}    relabel_configs:\n{after}")).unwrap();
    let mut promtool = Command::new(format!("{ROOT}/.cache/bin/promtool"));
    let check = promtool.args(["check", "config", "prometheus.yaml"]).current_dir(folder).output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success() && said.contains("rules found"), "{check:?}");
}
