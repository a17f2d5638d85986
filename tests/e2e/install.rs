//! What a person types to install Paddock.

use harness::lab;

const CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/");
const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");

#[tokio::test]
async fn the_folder_of_crds_can_be_applied_as_it_is() {
    lab("crds", async |lab| {
        let said = lab.kubectl(&["apply", "-f", CRDS]).await;
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("customresourcedefinition.apiextensions.k8s.io/runnerscalesets.paddock.dev")
        );
        let again = lab.kubectl(&["apply", "-f", CRDS]).await;
        assert!(again.trim_end().ends_with(" unchanged"), "{again}");
        let kustomized = lab.kubectl(&["kustomize", DEPLOY]).await;
        for kind in ["CustomResourceDefinition", "ClusterRole", "Deployment"] {
            assert!(kustomized.contains(&format!("\nkind: {kind}\n")), "{kind} is not in deploy/");
        }
        for part in ["name: paddock-policy", "- --policy=/etc/paddock/policy.yaml", "mountPath: /etc/paddock"]
        {
            assert!(kustomized.contains(part), "{part} is not in deploy/");
        }
    })
    .await;
}
