//! The program `sim-github` and its control API.

#![allow(clippy::expect_used)]

mod support;

use std::process::Stdio;

use reqwest::{Client, Method};
use serde_json::{Value, json};
use support::read;
use testkit::github::DEFAULT_TOKEN;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

struct Program {
    url: String,
    http: Client,
    _process: Child,
}

impl Program {
    async fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sim-github"));
        let mut process =
            command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("spawned");
        let mut lines = BufReader::new(process.stdout.take().expect("its output")).lines();
        let url = lines.next_line().await.expect("readable").expect("its address");
        Self { url, http: Client::new(), _process: process }
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.request(method, format!("{}/_control/{path}", self.url));
        let request = if body.is_null() { request } else { request.json(&body) };
        read(request.send().await.expect("sent")).await
    }

    async fn registration_token(&self) -> u16 {
        let url = format!("{}/orgs/acme/actions/runners/registration-token", self.url);
        let request = self.http.post(url).bearer_auth(DEFAULT_TOKEN).header("Content-Length", 0);
        read(request.send().await.expect("sent")).await.0
    }
}

#[tokio::test]
async fn jobs_are_queued_canceled_and_waited_for() {
    let github = Program::start(&["--model", "ghes", "--long-poll-ms", "100"]).await;
    let job = json!({ "repository": "acme/app", "labels": ["fleet"], "durationMs": 100, "exitCode": 1 });
    let (status, queued) = github.control(Method::POST, "jobs?count=2", job).await;
    let ids = queued["ids"].as_array().expect("ids").clone();
    assert_eq!((status, ids.len()), (201, 2));
    assert_eq!(github.control(Method::GET, "wait?completed=1&timeoutMs=10", Value::Null).await.0, 408);
    assert_eq!(github.control(Method::POST, &format!("jobs/{}/finish", ids[0]), Value::Null).await.0, 409);
    assert_eq!(github.control(Method::POST, "jobs/99/cancel", Value::Null).await.0, 404);
    assert_eq!(github.control(Method::POST, &format!("jobs/{}/cancel", ids[0]), Value::Null).await.0, 204);
    let (status, state) = github.control(Method::GET, "wait?completed=1", Value::Null).await;
    assert_eq!((status, &state["jobs"][0]["result"]), (200, &json!("canceled")));
    assert_eq!(
        (&state["jobs"][1]["status"], &state["jobs"][1]["durationMs"]),
        (&json!("queued"), &json!(100))
    );
}

#[tokio::test]
async fn faults_come_and_go_and_requests_are_counted() {
    let github = Program::start(&[]).await;
    let fault =
        json!({ "endpoint": "registrationToken", "remaining": 1, "effect": { "answer": { "status": 503 } } });
    assert_eq!(github.control(Method::POST, "faults", fault.clone()).await.0, 204);
    assert_eq!((github.registration_token().await, github.registration_token().await), (503, 201));
    assert_eq!(github.control(Method::POST, "faults", fault).await.0, 204);
    assert_eq!(github.control(Method::DELETE, "faults", Value::Null).await.0, 204);
    assert_eq!(github.registration_token().await, 201);
    let (_, log) = github.control(Method::GET, "requests?endpoint=registrationToken", Value::Null).await;
    let statuses: Vec<&Value> =
        log["requests"].as_array().expect("a list").iter().map(|r| &r["status"]).collect();
    assert_eq!(statuses, [503, 201, 201]);
    assert_eq!(log["counts"]["registrationToken"], 3);
    assert_eq!(github.control(Method::PUT, "tokens", json!(["another"])).await.0, 204);
    assert_eq!(github.registration_token().await, 401);
    assert_eq!(github.control(Method::POST, "scalesets/none/vanish", Value::Null).await.0, 404);
    assert_eq!(github.control(Method::GET, "nothing", Value::Null).await.0, 404);
}
