//! A client of the wire, as thin as can be.

use reqwest::Client;
use serde_json::{Value, json};
use testkit::ecs::{DEFAULT_ACCESS_KEY, SimEcs};

pub struct Wire {
    http: Client,
    url: String,
    region: String,
}

impl Wire {
    pub fn new(ecs: &SimEcs) -> Self {
        Self { http: Client::new(), url: ecs.url().to_owned(), region: ecs.region().to_owned() }
    }

    /// Status and body of one call.
    pub async fn try_call(&self, operation: &str, body: &Value) -> (u16, Value) {
        let scope = format!("{DEFAULT_ACCESS_KEY}/20261124/{}/ecs/aws4_request", self.region);
        let request = self
            .http
            .post(&self.url)
            .header("Content-Type", "application/x-amz-json-1.1")
            .header("X-Amz-Target", format!("AmazonEC2ContainerServiceV20141113.{operation}"))
            .header(
                "Authorization",
                format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"),
            );
        let response = request.body(body.to_string()).send().await.expect("sent");
        let status = response.status().as_u16();
        let body = response.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    pub async fn call(&self, operation: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(operation, &body).await;
        assert_eq!(status, 200, "{operation}: {answer}");
        answer
    }

    /// Registers the family `linux`, for every launch type's network mode `mode`.
    pub async fn register(&self, mode: &str) {
        let mut definition = json!({
            "family": "linux", "cpu": "256", "memory": "512", "networkMode": mode,
            "containerDefinitions": [{ "name": "runner", "image": "runner:1" }],
        });
        if mode == "awsvpc" {
            definition["requiresCompatibilities"] = json!(["FARGATE"]);
        }
        self.call("RegisterTaskDefinition", definition).await;
    }

    /// Runs one task on Fargate with these members beside the necessary ones; gives its ARN.
    pub async fn run(&self, members: Value) -> String {
        let mut request = json!({
            "taskDefinition": "linux",
            "networkConfiguration": { "awsvpcConfiguration": { "subnets": ["subnet-1"] } },
        });
        if members.get("capacityProviderStrategy").is_none() {
            request["launchType"] = json!("FARGATE");
        }
        for (name, value) in members.as_object().expect("members") {
            request[name] = value.clone();
        }
        let answer = self.call("RunTask", request).await;
        answer["tasks"][0]["taskArn"].as_str().unwrap_or_else(|| panic!("no task: {answer}")).to_owned()
    }

    pub async fn describe(&self, arn: &str) -> Value {
        self.call("DescribeTasks", json!({ "tasks": [arn], "include": ["TAGS"] })).await["tasks"][0].clone()
    }

    /// Every page of a listing.
    pub async fn list(&self, mut filters: Value) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        loop {
            let page = self.call("ListTasks", filters.clone()).await;
            pages.push(serde_json::from_value(page["taskArns"].clone()).expect("ARNs"));
            match page.get("nextToken") {
                Some(token) => filters["nextToken"] = token.clone(),
                None => return pages,
            }
        }
    }
}
