//! A client of the wire, as thin as can be: what goes out and what comes back is seen as it is.

#![allow(clippy::expect_used, clippy::panic, dead_code)]

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use testkit::github::{DEFAULT_TOKEN, SimGithub, SimGithubBuilder};

/// Long enough for a busy machine; nothing waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A simulated GitHub whose polls are held for no longer than a test can bear.
pub fn github() -> SimGithubBuilder {
    SimGithub::builder().long_poll(Duration::from_millis(300))
}

/// The two REST hops behind it, and the way to the service.
pub struct Wire {
    http: Client,
    base: String,
    pub admin: String,
}

/// An open session.
pub struct Queue {
    pub http: Client,
    pub id: String,
    pub url: String,
    pub token: String,
    pub opened: Value,
}

/// Status and body; an empty body is null.
pub async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The name that counts in an error.
pub fn exception(body: &Value) -> &str {
    let name = body["typeName"].as_str().unwrap_or_default();
    name.split(',').next().and_then(|name| name.rsplit('.').next()).unwrap_or_default()
}

impl Wire {
    pub async fn connect(github: &SimGithub, org: &str) -> Self {
        let http = Client::new();
        let api = format!("{}/api/v3", github.url());
        let url = format!("{api}/orgs/{org}/actions/runners/registration-token");
        let (status, token) = read(
            http.post(url).bearer_auth(DEFAULT_TOKEN).header("Content-Length", 0).send().await.expect("sent"),
        )
        .await;
        assert_eq!(status, 201, "{token}");
        let request = http
            .post(format!("{api}/actions/runner-registration"))
            .header("Authorization", format!("RemoteAuth {}", token["token"].as_str().expect("a token")))
            .json(&json!({ "url": github.config_url(org), "runner_event": "register" }));
        let (status, admin) = read(request.send().await.expect("sent")).await;
        assert_eq!(status, 200, "{admin}");
        let text = |name: &str| admin[name].as_str().expect("text").to_owned();
        Self { http, base: text("url"), admin: text("token") }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let separator = if path.contains('?') { '&' } else { '?' };
        let url = format!("{}_apis/{path}{separator}api-version=6.0-preview", self.base);
        self.http.request(method, url).bearer_auth(&self.admin)
    }

    /// `acquirejobs`, with whatever token.
    pub async fn acquire(&self, set: i64, token: &str, ids: &[i64]) -> (u16, Value) {
        let url =
            format!("{}_apis/runtime/runnerscalesets/{set}/acquirejobs?api-version=6.0-preview", self.base);
        read(self.http.post(url).bearer_auth(token).json(ids).send().await.expect("sent")).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, path);
        let request = if body.is_null() { request.header("Content-Length", 0) } else { request.json(&body) };
        read(request.send().await.expect("sent")).await
    }

    /// A scale set of this name; gives its id.
    pub async fn scale_set(&self, name: &str) -> i64 {
        let body = json!({ "name": name, "runnerGroupId": 1 });
        let (status, set) = self.call(Method::POST, "runtime/runnerscalesets", body).await;
        assert_eq!(status, 200, "{set}");
        set["id"].as_i64().expect("an id")
    }

    pub async fn try_open(&self, set: i64, owner: &str) -> (u16, Value) {
        let body = json!({ "sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": owner });
        self.call(Method::POST, &format!("runtime/runnerscalesets/{set}/sessions"), body).await
    }

    pub async fn open(&self, set: i64, owner: &str) -> Queue {
        let (status, opened) = self.try_open(set, owner).await;
        assert_eq!(status, 200, "{opened}");
        let text = |name: &str| opened[name].as_str().expect("text").to_owned();
        Queue {
            http: self.http.clone(),
            id: text("sessionId"),
            url: text("messageQueueUrl"),
            token: text("messageQueueAccessToken"),
            opened,
        }
    }

    pub async fn close(&self, set: i64, session: &str) -> (u16, Value) {
        self.call(Method::DELETE, &format!("runtime/runnerscalesets/{set}/sessions/{session}"), Value::Null)
            .await
    }

    pub async fn try_mint(&self, set: i64, name: &str) -> (u16, Value) {
        let body = json!({ "name": name, "workFolder": "_work" });
        self.call(Method::POST, &format!("runtime/runnerscalesets/{set}/generatejitconfig"), body).await
    }

    /// A JIT configuration.
    pub async fn mint(&self, set: i64, name: &str) -> String {
        let (status, jit) = self.try_mint(set, name).await;
        assert_eq!(status, 200, "{jit}");
        jit["encodedJITConfig"].as_str().expect("text").to_owned()
    }
}

/// A message: its id, the type and job id of each entry, its statistics.
pub struct Message {
    pub id: i64,
    pub entries: Vec<Value>,
    pub statistics: Value,
}

impl Message {
    pub fn from(body: &Value) -> Self {
        assert_eq!(body["messageType"], "RunnerScaleSetJobMessages");
        Self {
            id: body["messageId"].as_i64().expect("an id"),
            entries: serde_json::from_str(body["body"].as_str().expect("text")).expect("an array"),
            statistics: body["statistics"].clone(),
        }
    }

    pub fn kinds(&self) -> Vec<&str> {
        self.entries.iter().map(|e| e["messageType"].as_str().expect("text")).collect()
    }
}

impl Queue {
    pub fn poll_request(&self, last: i64, capacity: i64) -> RequestBuilder {
        let separator = if self.url.contains('?') { '&' } else { '?' };
        let last = if last > 0 { format!("{separator}lastMessageId={last}") } else { String::new() };
        self.http
            .get(format!("{}{last}", self.url))
            .bearer_auth(&self.token)
            .header("X-ScaleSetMaxCapacity", capacity)
            .header("Accept", "application/json; api-version=6.0-preview")
    }

    pub async fn try_poll(&self, last: i64, capacity: i64) -> (u16, Value) {
        read(self.poll_request(last, capacity).send().await.expect("sent")).await
    }

    /// Polls until a message comes.
    pub async fn poll(&self, last: i64, capacity: i64) -> Message {
        let message = async {
            loop {
                let (status, body) = self.try_poll(last, capacity).await;
                match status {
                    200 => return Message::from(&body),
                    202 => {}
                    _ => panic!("{status}: {body}"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, message).await.expect("a message in time")
    }

    /// Polls for the next message and deletes it.
    pub async fn receive(&self, capacity: i64) -> Message {
        let message = self.poll(0, capacity).await;
        assert_eq!(self.acknowledge(message.id).await, 204);
        message
    }

    pub async fn acknowledge(&self, message: i64) -> u16 {
        let url = self.url.replacen("/message", &format!("/message/{message}"), 1);
        let response = self.http.delete(url).bearer_auth(&self.token).send().await.expect("sent");
        response.status().as_u16()
    }
}
