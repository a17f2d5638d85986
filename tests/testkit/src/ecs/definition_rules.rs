//! The rules of RegisterTaskDefinition, and what AWS adds to what is registered.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::fargate;
use super::refusal::{own, reported};
use super::wire::Refusal;

const MOST_CONTAINERS: usize = 10;
const BODY_BYTES: usize = 64 * 1024;
/// Seconds; Fargate kills a container after so long at most.
const FARGATE_STOP_TIMEOUT: u64 = 120;

/// Checks a registration; gives the members as DescribeTaskDefinition shows them.
pub(super) fn check(family: &str, body: &Value) -> Result<Value, Refusal> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if family.is_empty() {
        return Err(Refusal::client("Family should not be null or empty."));
    }
    if family.len() > 255 || !family.chars().all(word) {
        return Err(Refusal::client("Family contains invalid characters."));
    }
    if body.to_string().len() > BODY_BYTES {
        return Err(Refusal::client("The task definition is larger than 64 KiB."));
    }
    let mut shown = body.clone();
    if let Some(members) = shown.as_object_mut() {
        members.remove("tags");
    }
    for (name, parse) in
        [("cpu", fargate::read_cpu as fn(&str) -> Option<i64>), ("memory", fargate::read_memory)]
    {
        if let Some(text) = body[name].as_str() {
            let number =
                parse(text).ok_or_else(|| Refusal::client(format!("Invalid '{name}' setting for task.")))?;
            shown[name] = json!(number.to_string());
        }
    }
    check_containers(&shown)?;
    fill(&mut shown);
    let refused_by =
        [("FARGATE", fargate_refusal(&shown)), ("EXTERNAL", external_refusal(&shown)), ("EC2", None)];
    for wanted in body["requiresCompatibilities"].as_array().into_iter().flatten() {
        match refused_by.iter().find(|(name, _)| wanted == name) {
            Some((_, Some(refusal))) => return Err(refusal.clone()),
            Some((_, None)) => {}
            None => return Err(own::malformed("requiresCompatibilities")),
        }
    }
    let fits = |name: &str| refused_by.iter().any(|(other, refusal)| *other == name && refusal.is_none());
    let compatible: Vec<&str> =
        ["EC2", "FARGATE", "EXTERNAL"].into_iter().filter(|name| fits(name)).collect();
    shown["compatibilities"] = json!(compatible);
    Ok(shown)
}

fn containers(body: &Value) -> impl Iterator<Item = &Value> {
    body["containerDefinitions"].as_array().into_iter().flatten()
}

fn check_containers(body: &Value) -> Result<(), Refusal> {
    let count = containers(body).count();
    if count == 0 {
        return Err(Refusal::client("Container list cannot be empty."));
    }
    if count > MOST_CONTAINERS {
        return Err(own::too_many("containerDefinitions", MOST_CONTAINERS));
    }
    let mut names = BTreeSet::new();
    for container in containers(body) {
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            return Err(Refusal::client("Container.name should not be null or empty."));
        }
        if !names.insert(name) {
            return Err(Refusal::client(format!("The container name '{name}' is used twice.")));
        }
        if container["image"].as_str().unwrap_or_default().is_empty() {
            return Err(reported::container_without_image());
        }
        let has = |field: &str| container[field].as_i64().is_some();
        if body["memory"].is_null() && !has("memory") && !has("memoryReservation") {
            return Err(reported::container_without_memory(name));
        }
    }
    for dependency in containers(body).flat_map(|c| c["dependsOn"].as_array().into_iter().flatten()) {
        let name = dependency["containerName"].as_str().unwrap_or_default();
        if !names.contains(name) {
            return Err(Refusal::client(format!(
                "The container '{name}' of dependsOn is not in the task definition."
            )));
        }
    }
    if containers(body).all(|container| container["essential"] == false) {
        return Err(Refusal::client("At least one container must be essential."));
    }
    Ok(())
}

/// Adds the members that AWS shows even where they were not given.
fn fill(body: &mut Value) {
    for container in body["containerDefinitions"].as_array_mut().into_iter().flatten() {
        let Some(members) = container.as_object_mut() else { continue };
        members.entry("cpu").or_insert(json!(0));
        members.entry("essential").or_insert(json!(true));
        for list in ["portMappings", "environment", "mountPoints", "volumesFrom", "systemControls"] {
            members.entry(list).or_insert(json!([]));
        }
    }
    if let Some(members) = body.as_object_mut() {
        members.entry("volumes").or_insert(json!([]));
        members.entry("placementConstraints").or_insert(json!([]));
    }
}

/// Why a definition cannot run on Fargate.
fn fargate_refusal(body: &Value) -> Option<Refusal> {
    if body["networkMode"] != "awsvpc" {
        return Some(reported::fargate_network_mode());
    }
    let number = |name: &str| body[name].as_str().and_then(|text| text.parse::<i64>().ok());
    let Some(cpu) = number("cpu") else { return Some(reported::fargate_needs("cpu")) };
    let Some(memory) = number("memory") else { return Some(reported::fargate_needs("memory")) };
    if let Err(refusal) = fargate::check_size(cpu, memory) {
        return Some(refusal);
    }
    let size = body["ephemeralStorage"]["sizeInGiB"].as_i64();
    if size.is_some_and(|size| !(21..=200).contains(&size)) {
        return Some(own::out_of_range("ephemeralStorage.sizeInGiB", 21, 200));
    }
    for container in containers(body) {
        if container["privileged"] == true {
            return Some(Refusal::client("Fargate does not support privileged containers."));
        }
        if container["logConfiguration"]["logDriver"] == "awslogs" && body["executionRoleArn"].is_null() {
            return Some(reported::fargate_awslogs_role());
        }
        if container["stopTimeout"].as_u64().is_some_and(|seconds| seconds > FARGATE_STOP_TIMEOUT) {
            return Some(own::out_of_range("stopTimeout", 2, 120));
        }
    }
    None
}

/// Why a definition cannot run on EXTERNAL instances.
fn external_refusal(body: &Value) -> Option<Refusal> {
    let efs =
        body["volumes"].as_array().into_iter().flatten().any(|v| !v["efsVolumeConfiguration"].is_null());
    if body["networkMode"] == "awsvpc" {
        return Some(Refusal::client("EXTERNAL does not support network mode 'awsvpc'."));
    }
    efs.then(|| Refusal::client("EXTERNAL does not support EFS volumes."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fargate() -> Value {
        json!({
            "networkMode": "awsvpc", "cpu": "1 vCPU", "memory": "2 GB", "requiresCompatibilities": ["FARGATE"],
            "containerDefinitions": [{ "name": "runner", "image": "runner:1" }],
        })
    }

    #[test]
    fn a_definition_for_fargate_is_shown_with_numbers_and_defaults() {
        let shown = check("linux", &fargate()).expect("accepted");
        assert_eq!((&shown["cpu"], &shown["memory"]), (&json!("1024"), &json!("2048")));
        assert_eq!(shown["compatibilities"], json!(["EC2", "FARGATE"]));
        assert_eq!(shown["containerDefinitions"][0]["essential"], true);
    }

    #[test]
    fn what_fargate_cannot_run_is_refused_for_fargate_only() {
        let spoilt: [(&str, Value); 4] = [
            ("/networkMode", json!("bridge")),
            ("/memory", json!("512")),
            ("/cpu", Value::Null),
            ("/containerDefinitions/0", json!({ "name": "r", "image": "i", "privileged": true })),
        ];
        for (place, value) in spoilt {
            let mut body = fargate();
            *body.pointer_mut(place).expect("a member") = value;
            assert!(check("linux", &body).is_err(), "{place}");
            body["requiresCompatibilities"] = json!(["EC2"]);
            assert!(check("linux", &body).is_ok(), "{place}");
        }
    }

    #[test]
    fn an_incomplete_definition_is_refused() {
        let with = |containers: Value| json!({ "containerDefinitions": containers });
        for body in [
            with(json!([])),
            with(json!([{ "name": "r", "memory": 1 }])),
            with(json!([{ "image": "i", "memory": 1 }])),
            with(json!([{ "name": "r", "image": "i" }])),
            with(json!([{ "name": "r", "image": "i", "memory": 1, "essential": false }])),
            with(
                json!([{ "name": "r", "image": "i", "memory": 1, "dependsOn": [{ "containerName": "x" }] }]),
            ),
        ] {
            assert!(check("linux", &body).is_err(), "{body}");
        }
        let good = with(json!([{ "name": "r", "image": "i", "memory": 1 }]));
        assert_eq!(check("linux", &good).expect("accepted")["compatibilities"], json!(["EC2", "EXTERNAL"]));
        assert!(check("", &good).is_err() && check("with space", &good).is_err());
    }
}
