//! A release: installed, upgraded with another definition of RunnerScaleSet, taken away.

use std::fs;
use std::path::Path;

use harness::{Lab, Manifest, PATIENCE, eventually, lab, lab_on_own_server};
use serde_json::json;
use tokio::process::Command;

use crate::helm::{self, CHART};

/// A copy of the chart whose definition has no short name.
fn previous_chart(folder: &Path) -> String {
    let copy = folder.join("paddock-chart");
    let copied = std::process::Command::new("cp").arg("-r").arg(CHART).arg(&copy).status().unwrap();
    assert!(copied.success());
    let definition = copy.join("files/runnerscaleset.yaml");
    let text = fs::read_to_string(&definition).unwrap();
    let changed = text.replace("\n    shortNames:\n    - rss\n", "\n");
    assert_ne!(changed, text);
    fs::write(definition, changed).unwrap();
    copy.to_str().unwrap().to_owned()
}

async fn short_names(lab: &Lab) -> String {
    let path = "jsonpath={.spec.names.shortNames[*]}";
    lab.kubectl(&["get", "crd", "runnerscalesets.paddock.dev", "--output", path]).await
}

#[tokio::test]
async fn an_upgrade_takes_the_definition_and_an_uninstall_leaves_it_and_the_scale_sets() {
    lab_on_own_server("chart", async |lab| {
        let admin = lab.server_folder().join("kubeconfig");
        let helm = async |arguments: &[&str]| {
            helm::helm(&admin, &[arguments, &["--namespace", &lab.namespace]].concat()).await
        };
        lab.kubectl(&["delete", "crd", "runnerscalesets.paddock.dev"]).await;
        let previous = previous_chart(lab.folder());
        helm(&["install", "paddock", &previous, "--set", "image.tag=1"]).await;
        assert_eq!(short_names(lab).await, "");
        let sample =
            Manifest::sample("https://github.com/acme").spec(json!({"github": {"allowInsecure": false}}));
        let sample = sample.docker(json!({"network": "bridge"})).0.to_string();
        let namespace = ["--namespace", lab.namespace.as_str()];
        let apply = [&["apply", "--filename", "-"], &namespace as &[&str]].concat();
        // The definition is established soon after it was installed.
        eventually("the scale set is taken", PATIENCE, async || {
            helm::kubectl(&admin, &apply, &sample).await.ok()
        })
        .await;
        helm(&["upgrade", "paddock", CHART, "--set", "image.tag=2"]).await;
        assert_eq!(short_names(lab).await, "rss");
        lab.kubectl(&["get", "rss", "linux"]).await;
        helm(&["uninstall", "paddock"]).await;
        lab.kubectl(&["get", "rss", "linux"]).await;
        let left =
            lab.kubectl(&["get", "deployments,serviceaccounts,configmaps,roles", "--output", "name"]).await;
        assert!(!left.contains("paddock-leader") && !left.contains("deployment"), "{left}");
        // The definition that was kept is taken up by the next release.
        helm(&["install", "paddock", CHART]).await;
    })
    .await;
}

/// The pod of `helm test` has the Service's address from a variable that begins with the Service's name.
#[tokio::test]
async fn what_helm_test_runs_knows_a_controller_that_is_ready() {
    for (release, variable) in [("paddock", "$(PADDOCK_PORT)"), ("my-build", "$(MY_BUILD_PADDOCK_PORT)")] {
        let objects = helm::objects(release, "paddock", &json!({})).await;
        let arguments = &helm::find(&objects, "Pod", "-test")["spec"]["containers"][0]["args"];
        assert_eq!(*arguments, json!(["probe", variable]));
    }
    let probe = async |address: &str| {
        let program = env!("CARGO_BIN_EXE_paddock");
        Command::new(program).args(["probe", address]).output().await.unwrap().status.code()
    };
    lab("probe", async |lab| {
        let controller = lab.start();
        let address = format!("tcp://{}", controller.address().await);
        eventually("it is ready", PATIENCE, async || (probe(&address).await == Some(0)).then_some(())).await;
        controller.kill().await;
        assert_eq!(probe(&address).await, Some(1));
    })
    .await;
}
