//! `paddock check --connect` and `paddock doctor` on real parts: an API server, Docker engines, Macs behind a real sshd, and a
//! simulated GitHub and ECS.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod connect;
mod findings;

use std::process::Stdio;

use harness::{Lab, PERMISSIVE, api_server, stand_ins};
use serde_json::{Value, json};
use testkit::ecs::{ClusterSpec, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY, Delays, Lag, SimEcs};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Among the arguments: the default policy in place of the permissive one.
const STRICT: &str = "strict";

/// What the program printed as JSON, and its exit code. Its standard input is `input`.
async fn paddock(lab: &Lab, arguments: &[&str], input: &str) -> (Option<i32>, Value) {
    let policy = lab.folder().join("doctor-policy.yaml");
    let text = if arguments.contains(&STRICT) { "" } else { PERMISSIVE };
    std::fs::write(&policy, text).unwrap();
    let arguments: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != STRICT).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paddock"));
    command.args(arguments).args(["-o", "json", "--namespace", &lab.namespace, "--cluster-id", &lab.cluster]);
    command.arg("--kubeconfig").arg(api_server::kubeconfig()).arg("--policy").arg(policy);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let read = serde_json::from_str(&printed);
    let told = String::from_utf8_lossy(&output.stderr);
    (output.status.code(), read.unwrap_or_else(|_| panic!("{printed}\n{told}")))
}

/// An account with a cluster `runners`, and the Secret `aws` for it.
async fn ecs(lab: &Lab) -> SimEcs {
    let keys = [("aws_access_key_id", DEFAULT_ACCESS_KEY), ("aws_secret_access_key", DEFAULT_SECRET_KEY)];
    lab.secret("aws", keys).await;
    let ecs = SimEcs::builder()
        .cluster(ClusterSpec::new("runners"))
        .subnet("subnet-1")
        .subnet("subnet-0123456789abcdef0")
        .delays(Delays::each(std::time::Duration::from_millis(100)))
        .lag(Lag::both(std::time::Duration::from_millis(200)))
        .runner(stand_ins::fake_runner().await);
    ecs.start().await.unwrap()
}

/// A backend of ECS in that cluster.
fn of_ecs(ecs: &SimEcs, changes: Value) -> Value {
    let block = json!({
        "region": ecs.region(), "cluster": "runners", "endpointUrl": ecs.url(),
        "credentialsSecretRef": {"name": "aws"}, "launchType": "FARGATE", "subnets": ["subnet-1"],
        "managedTaskDefinition": {},
    });
    json!({"name": "aws", "ecs": harness::merged(block, changes)})
}
