//! The operations on task definitions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::definition_rules as rules;
use super::page::{self, Page};
use super::refusal::{own, reported};
use super::state::{Definition, DefinitionStatus, State, Tag};
use super::tags;
use super::wire::{Refusal, failure, read};

const MOST_DELETED: usize = 10;

/// Registers the next revision of a family.
pub(super) fn register(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let tags: Vec<Tag> = body.get("tags").map_or(Ok(Vec::new()), read)?;
    tags::check(&tags)?;
    let family = body["family"].as_str().unwrap_or_default();
    let shown = rules::check(family, body)?;
    let revision = state.definitions.next_revision(family);
    let (region, account) = (&state.config.region, &state.config.account);
    let definition = state.definitions.put(Definition {
        arn: format!("arn:aws:ecs:{region}:{account}:task-definition/{family}:{revision}"),
        family: family.to_owned(),
        revision,
        status: DefinitionStatus::Active,
        body: shown,
        tags,
        registered_at: state.clock.now(),
        deregistered_at: None,
        delete_requested_at: None,
    });
    state.touch();
    Ok(json!({ "taskDefinition": state.view_definition(&definition), "tags": definition.tags }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OneDefinition {
    task_definition: String,
    #[serde(default)]
    include: Vec<String>,
}

pub(super) fn describe(state: &State, body: &Value) -> Result<Value, Refusal> {
    let request: OneDefinition = read(body)?;
    let definition =
        state.definitions.find(&request.task_definition).ok_or_else(reported::definition_unknown)?;
    let mut answer = json!({ "taskDefinition": state.view_definition(definition) });
    if request.include.iter().any(|field| field == "TAGS") {
        answer["tags"] = json!(definition.tags);
    }
    Ok(answer)
}

pub(super) fn deregister(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: OneDefinition = read(body)?;
    if !names_revision(&request.task_definition) {
        return Err(Refusal::client("Revision is missing."));
    }
    let found = state.definitions.find(&request.task_definition).ok_or_else(reported::definition_unknown)?;
    let mut definition = Definition::clone(found);
    if definition.status == DefinitionStatus::Active {
        definition.status = DefinitionStatus::Inactive;
        definition.deregistered_at = Some(state.clock.now());
    }
    let definition = state.definitions.put(definition);
    state.touch();
    Ok(json!({ "taskDefinition": state.view_definition(&definition) }))
}

fn names_revision(name: &str) -> bool {
    let name = name.rsplit_once(":task-definition/").map_or(name, |(_, rest)| rest);
    name.split_once(':').is_some_and(|(_, revision)| revision.parse::<u32>().is_ok())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Delete {
    task_definitions: Vec<String>,
}

/// Deletes INACTIVE revisions; each is gone once no task uses it.
pub(super) fn delete(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: Delete = read(body)?;
    if request.task_definitions.is_empty() || request.task_definitions.len() > MOST_DELETED {
        return Err(own::too_many("taskDefinitions", MOST_DELETED));
    }
    let (mut deleted, mut failures) = (Vec::new(), Vec::new());
    for name in &request.task_definitions {
        match state.definitions.find(name) {
            Some(found) if !names_revision(name) || found.status == DefinitionStatus::Active => {
                failures.push(failure(Some(&found.arn), reported::definition_still_active(), None));
            }
            Some(found) => {
                let mut definition = Definition::clone(found);
                definition.status = DefinitionStatus::DeleteInProgress;
                definition.delete_requested_at = Some(state.clock.now());
                let definition = state.definitions.put(definition);
                deleted.push(state.view_definition(&definition));
            }
            None => failures.push(failure(Some(name), "The specified task definition was not found.", None)),
        }
    }
    state.touch();
    Ok(json!({ "taskDefinitions": deleted, "failures": failures }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    family_prefix: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    next_token: Option<String>,
    max_results: Option<i64>,
}

/// Lists revisions by family and number. `familyPrefix` is a whole family's name, whatever it is called.
pub(super) fn list(state: &mut State, body: &Value) -> Result<Value, Refusal> {
    let request: List = read(body)?;
    let status = match request.status.as_deref() {
        None | Some("ACTIVE") => DefinitionStatus::Active,
        Some("INACTIVE") => DefinitionStatus::Inactive,
        Some("DELETE_IN_PROGRESS") => DefinitionStatus::DeleteInProgress,
        Some(_) => return Err(own::malformed("status")),
    };
    let family = |definition: &Definition| {
        request.family_prefix.as_ref().is_none_or(|family| definition.family == *family)
    };
    let shown = state.definitions.iter().filter(|d| d.status == status && family(d));
    let mut arns: Vec<String> = shown.map(|definition| definition.arn.clone()).collect();
    if request.sort.as_deref() == Some("DESC") {
        arns.reverse();
    }
    let filters = format!("{:?} {:?} {:?}", request.family_prefix, request.status, request.sort);
    let filter = page::fingerprint(&filters);
    let page = Page::read(request.max_results, request.next_token.as_deref(), &filter)?;
    Ok(page.cut(arns, state.config.page_size, "taskDefinitionArns"))
}
