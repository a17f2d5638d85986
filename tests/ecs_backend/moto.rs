//! The backend against moto, another who says how ECS answers. It knows no paging, no client tokens, no states on the way up
//! and no failures: what is left is the straight way, which must come out as in the simulation.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_ecs::types::{Compatibility, ContainerDefinition, NetworkMode};
use aws_sdk_ecs::{Client, Config};
use paddock::backend::ecs::EcsProvider;
use paddock::backend::{Availability, Backend, Requeuer};
use paddock::runner::runner_name;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::stage::{PATIENCE, QUICK, ended, host, identity, instances, resolve, start_on, until};

/// A server that ends with this, and where it is.
async fn moto() -> (Child, String) {
    let install = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/testkit/tests/ecs/python");
    let installed = Command::new(install).stderr(Stdio::inherit()).output().await.unwrap();
    assert!(installed.status.success(), "tests/testkit/tests/ecs/python says what is missing");
    let programs = String::from_utf8(installed.stdout).unwrap();
    let programs = Path::new(programs.trim());
    let mut server = Command::new(programs.join("python"));
    server.arg("-u").arg(programs.join("moto_server")).args(["-H", "127.0.0.1", "-p", "0"]);
    let server = server.stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut server = server.spawn().unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    let url = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("a URL before the end");
            if let Some((_, rest)) = line.split_once("http://") {
                let address = rest.split_whitespace().next().unwrap();
                return format!("http://{address}");
            }
        }
    };
    let url = tokio::time::timeout(PATIENCE, url).await.unwrap();
    // Read on, lest the server blocks on what it has to say.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    // Otherwise each look moves a task one state on, towards its end.
    let transition =
        json!({"model_name": "ecs::task", "transition": {"progression": "manual", "times": 1_000_000}});
    let set = reqwest::Client::new().post(format!("{url}/moto-api/state-manager/set-transition"));
    assert!(set.json(&transition).send().await.unwrap().status().is_success());
    (server, url)
}

/// The first id of a kind that EC2 has by default.
async fn default_of(url: &str, action: &str, element: &str) -> String {
    // What signs a request tells moto which service it is for; it checks no signature.
    let signed = "AWS4-HMAC-SHA256 Credential=AKIAMOTO/20261129/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0";
    let request = reqwest::Client::new().post(url).header("Authorization", signed);
    let request = request.header("Content-Type", "application/x-www-form-urlencoded");
    let answer = request.body(format!("Action={action}&Version=2016-11-15")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let (_, rest) = text.split_once(&format!("<{element}>")).unwrap_or_else(|| panic!("{text}"));
    rest.split_once('<').unwrap().0.to_owned()
}

/// The official client of it.
fn client(url: &str) -> Client {
    let keys = aws_sdk_ecs::config::Credentials::new("AKIAMOTO", "secret", None, None, "test");
    let config = Config::builder()
        .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
        .region(aws_sdk_ecs::config::Region::from_static("eu-west-1"))
        .credentials_provider(keys)
        .endpoint_url(url);
    Client::from_conf(config.build())
}

#[tokio::test]
async fn five_runners_come_up_and_go_on_moto_too() {
    let (_server, url) = moto().await;
    let client = client(&url);
    client.create_cluster().cluster_name("runners").send().await.unwrap();
    let container = ContainerDefinition::builder().name("runner").image("runner:1").memory(512).build();
    let definition = client.register_task_definition().family("theirs").network_mode(NetworkMode::Awsvpc);
    let definition = definition.cpu("256").memory("512").requires_compatibilities(Compatibility::Fargate);
    definition.container_definitions(container).send().await.unwrap();

    let subnet = default_of(&url, "DescribeSubnets", "subnetId").await;
    let group = default_of(&url, "DescribeSecurityGroups", "groupId").await;
    let provider = EcsProvider::with_timing("cluster-1", Requeuer::new(|_| {}), QUICK);
    let spec = json!({"name": "aws", "ecs": {
        "region": "eu-west-1", "cluster": "runners", "endpointUrl": url, "credentialsSecretRef": {"name": "aws"},
        "taskDefinition": "theirs:1", "launchType": "FARGATE", "subnets": [subnet], "securityGroups": [group],
    }});
    let spec = serde_json::from_value(spec).unwrap();
    let backend = resolve(&provider, &spec).await.unwrap().open("aws", &["aws".to_owned()], &identity("set"));
    let backend: &dyn Backend = &*backend;
    until("the cluster takes starts", || (host(backend).availability == Availability::Ready).then_some(()))
        .await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(start_on(backend, "runners", &runner_name("linux")).await.unwrap().id);
    }
    let described =
        client.describe_tasks().cluster("runners").set_tasks(Some(ids.clone())).send().await.unwrap();
    assert_eq!(described.tasks().len(), 5);
    assert!(described.tasks().iter().all(|task| task.started_by() == Some("paddock-cluster-1")));

    let second = EcsProvider::with_timing("cluster-1", Requeuer::new(|_| {}), QUICK);
    let adopted = resolve(&second, &spec).await.unwrap().open("aws", &["aws".to_owned()], &identity("set"));
    until("all are adopted", || (instances(&*adopted).len() == 5).then_some(())).await;

    client.stop_task().cluster("runners").task(&ids[0]).send().await.unwrap();
    ended(backend, &ids[0]).await;
    for id in &ids {
        tokio::time::timeout(Duration::from_secs(30), backend.remove("runners", id)).await.unwrap().unwrap();
    }
    assert!(instances(backend).is_empty());
    let left = client.list_tasks().cluster("runners").desired_status("RUNNING".into()).send().await.unwrap();
    assert_eq!(left.task_arns().len(), 0);
}
