//! The objects for Argo CD and Flux: taken as their definitions have them, and what the two then make of a scale set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use harness::{Lab, Manifest, github, lab, lab_on_own_server};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder with the judge and the definitions, made once.
async fn tools() -> &'static Path {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        let output = Command::new(format!("{ROOT}/tests/deploy/tools/build")).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    };
    BUILT.get_or_init(build).await
}

/// What a program prints that reads `input`.
async fn run(command: &mut Command, input: &str) -> String {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn manifests(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{ROOT}/deploy/gitops/{path}")).unwrap();
    text.split("\n---\n").map(|manifest| serde_saphyr::from_str(manifest).unwrap()).collect()
}

#[tokio::test]
async fn argo_cd_and_flux_take_their_objects_and_the_chart_their_values() {
    lab_on_own_server("gitops-objects", async |lab| {
        let crds = tools().await.join("crds");
        lab.kubectl(&["apply", "--server-side", "--filename", crds.to_str().unwrap()]).await;
        lab.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]).await;
        for (folder, namespace, objects) in [("argocd", "argocd", 3), ("flux", "flux-system", 4)] {
            lab.kubectl(&["create", "namespace", namespace]).await;
            let folder = format!("{ROOT}/deploy/gitops/{folder}");
            let apply = ["apply", "--server-side", "--dry-run=server", "--validate=strict"];
            let which = ["--namespace", namespace, "--filename", &folder];
            let said = lab.kubectl(&[apply, which].concat()).await;
            assert_eq!(said.lines().count(), objects, "{said}");
        }
    })
    .await;
    let application = &manifests("argocd/applications.yaml")[0]["spec"]["source"];
    let release = &manifests("flux/controller.yaml")[1]["spec"];
    assert_eq!(application["path"], release["chart"]["spec"]["chart"]);
    for values in [&application["helm"]["valuesObject"], &release["values"]] {
        let mut helm = Command::new(format!("{ROOT}/.cache/bin/helm"));
        let chart = format!("{ROOT}/{}", application["path"].as_str().unwrap());
        let rendered =
            run(helm.args(["template", "paddock", &chart, "--values", "-"]), &values.to_string()).await;
        assert!(rendered.contains("\nkind: Deployment\n"), "{rendered}");
    }
}

/// What Argo CD shows of a scale set, and what Flux waits for, each with its words.
async fn judged(lab: &Lab, name: &str) -> (String, String) {
    let script = lab.folder().join("health.lua");
    let checks = &manifests("argocd/health.yaml")[0]["data"];
    let check = &checks["resource.customizations.health.paddock.dev_RunnerScaleSet"];
    fs::write(&script, check.as_str().unwrap()).unwrap();
    let object = lab.kubectl(&["get", "rss", name, "--output", "json"]).await;
    let object: Value = serde_json::from_str(&object).unwrap();
    let said = run(Command::new(tools().await.join("judge")).arg(script), &object.to_string()).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    let words = |status: &Value, message: &Value| {
        format!("{} {}", status.as_str().unwrap(), message.as_str().unwrap()).trim().to_owned()
    };
    (words(&said["argo"]["status"], &said["argo"]["message"]), words(&said["flux"], &said["message"]))
}

#[tokio::test]
async fn argo_cd_and_flux_see_a_scale_set_as_it_is() {
    lab("gitops-health", async |lab| {
        let github = github(lab).await;
        let manifest = Manifest::sample(&github.config_url("acme"));
        lab.apply(&manifest).await;
        let new = "Progressing The controller has not applied the latest spec yet.";
        assert_eq!(judged(lab, "linux").await.0, new);

        let controller = lab.start();
        lab.until_is("linux", "Ready", "True", None).await;
        let (argo, flux) = judged(lab, "linux").await;
        assert!(argo == "Healthy" && flux.starts_with("Current"), "{argo}; {flux}");

        lab.apply(&manifest.clone().spec(json!({"suspend": true}))).await;
        lab.until("linux", "the suspension is applied", |set| {
            set.status.as_ref().unwrap().observed_generation == set.metadata.generation
        })
        .await;
        let (argo, flux) = judged(lab, "linux").await;
        assert!(argo == "Suspended It takes no new job." && flux.starts_with("Current"), "{argo}; {flux}");

        let stalled = manifest.clone().named("stalled");
        let secret = json!({"github": {"credentialsSecretRef": {"name": "missing"}}});
        lab.apply(&stalled.spec(secret)).await;
        lab.until_is("stalled", "Stalled", "True", Some("SecretMissing")).await;
        let (argo, flux) = judged(lab, "stalled").await;
        assert!(
            argo.starts_with("Degraded SecretMissing: ") && flux.starts_with("Failed "),
            "{argo}; {flux}"
        );

        controller.kill().await;
        lab.apply(&manifest.spec(json!({"suspend": false, "maxRunners": 3}))).await;
        let (argo, flux) = judged(lab, "linux").await;
        assert!(argo == new && flux.starts_with("InProgress "), "{argo}; {flux}");
    })
    .await;
}

#[tokio::test]
async fn argo_cd_and_flux_wait_for_a_github_that_does_not_answer() {
    lab("gitops-outage", async |lab| {
        lab.secret("github", [("github_token", "token")]).await;
        lab.apply(&Manifest::sample("http://127.0.0.1:1/acme")).await;
        let _controller = lab.start();
        lab.until_is("linux", "Registered", "False", Some("Unreachable")).await;
        let (argo, flux) = judged(lab, "linux").await;
        assert!(argo.starts_with("Progressing ") && flux.starts_with("InProgress "), "{argo}; {flux}");
        assert!(argo.contains("Unreachable"), "{argo}");
    })
    .await;
}
