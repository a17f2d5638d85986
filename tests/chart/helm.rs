//! Helm and kubectl, as a person runs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The chart's folder.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/paddock");

const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/bin");

/// What a release of this name and namespace consists of, a manifest each; or what Helm says against the values.
pub async fn template(release: &str, namespace: &str, values: &Value) -> Result<Vec<String>, String> {
    let arguments = ["template", release, CHART, "--namespace", namespace, "--values", "-"];
    let manifests = run("helm", &arguments, &values.to_string()).await?;
    Ok(manifests
        .split("---\n")
        .map(str::trim_end)
        .filter(|text| text.contains("\nkind: "))
        .map(str::to_owned)
        .collect())
}

/// The same, read.
pub async fn objects(release: &str, namespace: &str, values: &Value) -> Vec<Value> {
    let manifests = template(release, namespace, values).await.unwrap();
    manifests.iter().map(|manifest| serde_saphyr::from_str(manifest).unwrap()).collect()
}

/// The object of this kind whose name ends so.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |o: &&Value| o["kind"] == kind && o["metadata"]["name"].as_str().unwrap().ends_with(name);
    objects.iter().find(is_it).unwrap_or_else(|| panic!("there is no {kind} *{name}"))
}

/// Helm at work on a cluster.
pub async fn helm(kubeconfig: &Path, arguments: &[&str]) -> String {
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    run("helm", &[&kubeconfig, arguments].concat(), "").await.unwrap()
}

/// kubectl, which reads `input`: what it prints, or its complaint.
pub async fn kubectl(kubeconfig: &Path, arguments: &[&str], input: &str) -> Result<String, String> {
    let kubeconfig = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    run("kubectl", &[&kubeconfig, arguments].concat(), input).await
}

async fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(PathBuf::from(PROGRAMS).join(program))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    // Whoever does not want it closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = child.wait_with_output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(said) }
}
