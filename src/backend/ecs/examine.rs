//! What a cluster has for a backend, for people who ask. Nothing is registered.

use super::account::Kind;
use super::binding::Binding;
use super::call::{CallError, failure};
use super::template::Definition;
use crate::backend::{Error, Examination};

/// Asks for the task definition, in a cluster that answers.
pub(super) async fn examine(binding: &Binding) -> Result<Examination, Error> {
    binding.answers()?;
    let definition = match (&binding.template.definition, &binding.revisions) {
        (Definition::Managed(_), Some(revisions)) => revisions.examine().await?,
        (Definition::Existing(name), _) => existing(binding, name).await?,
        (Definition::Managed(_), None) => String::new(),
    };
    Ok(Examination { about: format!("Amazon ECS; {definition}"), lacks: Vec::new() })
}

async fn existing(binding: &Binding, name: &str) -> Result<String, Error> {
    let account = &binding.cluster().account;
    account.admit(Kind::DefinitionRead).await;
    let request = account.client().await.describe_task_definition().task_definition(name);
    let answer = request.send().await.map_err(CallError::from).map_err(|error| match error {
        CallError::Answered { code, message } if code == "ClientException" => {
            Error::Refused(format!("the task definition {name}: {message}"))
        }
        error => failure(account, &error),
    })?;
    let containers = answer.task_definition().map(|definition| definition.container_definitions());
    let wanted = &binding.template.container;
    let has = containers.unwrap_or_default().iter().any(|container| container.name() == Some(wanted));
    if !has {
        return Err(Error::Refused(format!(
            "the task definition {name} has no container of the name {wanted}: ecs.containerName names another"
        )));
    }
    Ok(format!("the task definition {name} is there"))
}
