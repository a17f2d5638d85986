//! The revisions of a managed task definition: registered when the newest is another, retired when no task uses them. A family
//! that is not ours is never touched.

use std::collections::HashSet;
use std::sync::Arc;

use aws_sdk_ecs::types::{SortOrder, Tag, TaskDefinitionField, TaskDefinitionStatus};
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::account::{Account, Kind};
use super::call::{CallError, failure, meaning};
use super::classify::Meaning;
use super::definition::register;
use super::template::Rendered;
use crate::backend::Error;
use crate::runner::Identity;

/// What is registered of one backend's task definition.
pub(super) struct Revisions {
    account: Arc<Account>,
    wanted: Box<Rendered>,
    container: String,
    family: String,
    identity: Identity,
    backend: String,
    hash: String,
    /// The ARN of the revision that is in use, once it is known. Its lock is held while it is found out.
    current: Mutex<Option<String>>,
    /// Older ones that are still registered; none before they were listed.
    older: Mutex<Option<Vec<String>>>,
}

/// What ECS has as the newest revision of a family.
struct Newest {
    arn: String,
    tags: Vec<Tag>,
}

impl Newest {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key() == Some(key))?.value()
    }
}

impl Revisions {
    /// Those of a backend of a scale set. `hash` is the template's.
    pub(super) fn new(
        account: Arc<Account>,
        wanted: Box<Rendered>,
        container: &str,
        identity: &Identity,
        backend: &str,
        hash: &str,
    ) -> Revisions {
        let family = wanted.family.clone().unwrap_or_else(|| default_family(&identity.scale_set, backend));
        Revisions {
            account,
            wanted,
            container: container.to_owned(),
            family,
            identity: identity.clone(),
            backend: backend.to_owned(),
            hash: hash.to_owned(),
            current: Mutex::default(),
            older: Mutex::default(),
        }
    }

    /// The ARN of the revision to be run, registered now if need be.
    pub(super) async fn current(&self) -> Result<String, Error> {
        let mut current = self.current.lock().await;
        if let Some(arn) = &*current {
            return Ok(arn.clone());
        }
        let arn = match self.newest().await? {
            Some(newest) if !self.owns(&newest) => return Err(self.not_own()),
            Some(newest) if newest.tag(Identity::TEMPLATE_HASH) == Some(&self.hash) => newest.arn,
            _ => self.register().await?,
        };
        *current = Some(arn.clone());
        Ok(arn)
    }

    fn not_own(&self) -> Error {
        Error::Refused(format!(
            "the task definition family {} is not this scale set's: name another in ecs.managedTaskDefinition.family",
            self.family
        ))
    }

    /// Tells in words what is registered, and registers nothing.
    pub(super) async fn examine(&self) -> Result<String, Error> {
        match self.newest().await? {
            Some(newest) if !self.owns(&newest) => Err(self.not_own()),
            Some(newest) => Ok(format!("the newest task definition is {}", newest.arn)),
            None => Ok(format!("no task definition {} is registered yet", self.family)),
        }
    }

    /// Forgets what is in use: ECS says that it is not there.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    /// Retires older revisions that are in no task's use. Costs nothing where there are none. What cannot be retired is told of
    /// and left until the next registration.
    pub(super) async fn retire(&self, used: &HashSet<String>) {
        let Some(current) = self.current.lock().await.clone() else { return };
        let mut older = self.older.lock().await;
        let known = match older.take() {
            Some(known) => known,
            None => self.list().await.unwrap_or_else(|error| {
                warn!(family = self.family, %error, "task definitions cannot be listed");
                Vec::new()
            }),
        };
        let mut kept = Vec::new();
        for arn in known.into_iter().filter(|arn| *arn != current) {
            if used.contains(&arn) {
                kept.push(arn);
            } else if let Err(error) = self.retire_one(&arn).await {
                warn!(arn, %error, "an old task definition cannot be retired");
            }
        }
        *older = Some(kept);
    }

    /// Whether a revision was registered for this scale set: of this cluster, namespace and name, whatever its UID.
    fn owns(&self, newest: &Newest) -> bool {
        newest.tag(Identity::CLUSTER) == Some(&self.identity.cluster)
            && newest.tag(Identity::SCALE_SET) == Some(&self.identity.scale_set)
    }

    /// The newest revision that is active. That there is none is believed when a listing says so too: a failed look is no
    /// absence.
    async fn newest(&self) -> Result<Option<Newest>, Error> {
        match self.describe(&self.family).await {
            Ok(newest) => Ok(Some(newest)),
            Err(CallError::Answered { code, message }) if code == "ClientException" => {
                let listed = self.list().await.map_err(|error| failure(&self.account, &error))?;
                match listed.is_empty() {
                    true => Ok(None),
                    false => Err(Error::Unreachable(format!("task definition {}: {message}", self.family))),
                }
            }
            Err(error) => Err(failure(&self.account, &error)),
        }
    }

    async fn describe(&self, name: &str) -> Result<Newest, CallError> {
        self.account.admit(Kind::DefinitionRead).await;
        let request = self.account.client().await.describe_task_definition().task_definition(name);
        let answer = request.include(TaskDefinitionField::Tags).send().await?;
        let definition = answer.task_definition().and_then(|definition| definition.task_definition_arn());
        let arn = definition.ok_or_else(|| CallError::Lost("ECS described no task definition".to_owned()))?;
        Ok(Newest { arn: arn.to_owned(), tags: answer.tags().to_vec() })
    }

    /// The ARNs of the family's active revisions, newest first.
    async fn list(&self) -> Result<Vec<String>, CallError> {
        let mut arns = Vec::new();
        let mut next_token = None;
        loop {
            self.account.admit(Kind::DefinitionRead).await;
            let request = self.account.client().await.list_task_definitions().family_prefix(&self.family);
            let request = request.status(TaskDefinitionStatus::Active).sort(SortOrder::Desc);
            let page = request.set_next_token(next_token).send().await?;
            let of_family = |arn: &&String| family_of(arn) == self.family;
            arns.extend(page.task_definition_arns().iter().filter(of_family).cloned());
            match page.next_token {
                Some(token) if !token.is_empty() => next_token = Some(token),
                _ => return Ok(arns),
            }
        }
    }

    async fn register(&self) -> Result<String, Error> {
        self.account.admit(Kind::DefinitionModify).await;
        let region = &self.account.access.region;
        let request = self.account.client().await.register_task_definition().family(&self.family);
        let request = register(request, &self.wanted, &self.container, region).set_tags(Some(self.tags()));
        let answer = request.send().await.map_err(CallError::from);
        let answer = answer.map_err(|error| failure(&self.account, &error))?;
        let arn = answer.task_definition().and_then(|definition| definition.task_definition_arn());
        let arn = arn.ok_or_else(|| Error::Unreachable("ECS registered no task definition".to_owned()))?;
        info!(arn, hash = self.hash, "task definition registered");
        *self.older.lock().await = None;
        Ok(arn.to_owned())
    }

    fn tags(&self) -> Vec<Tag> {
        let tags = [
            (Identity::CLUSTER, &self.identity.cluster),
            (Identity::SCALE_SET_UID, &self.identity.scale_set_uid),
            (Identity::SCALE_SET, &self.identity.scale_set),
            (Identity::BACKEND, &self.backend),
            (Identity::TEMPLATE_HASH, &self.hash),
        ];
        tags.map(|(key, value)| Tag::builder().key(key).value(value).build()).into()
    }

    /// Deregisters a revision, if its own tags say that it is ours.
    async fn retire_one(&self, arn: &str) -> Result<(), CallError> {
        let revision = match self.describe(arn).await {
            Ok(revision) => revision,
            Err(error) if matches!(meaning(&error), Meaning::Gone) => return Ok(()),
            Err(error) => return Err(error),
        };
        if !self.owns(&revision) || revision.tag(Identity::BACKEND) != Some(&self.backend) {
            return Ok(());
        }
        self.account.admit(Kind::DefinitionModify).await;
        self.account.client().await.deregister_task_definition().task_definition(arn).send().await?;
        info!(arn, "task definition retired");
        Ok(())
    }
}

/// `<namespace>-<name>-<backend>`, in the characters and the length that ECS takes.
fn default_family(scale_set: &str, backend: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    format!("{scale_set}-{backend}").chars().map(fits).take(255).collect()
}

/// The family in the ARN of a task definition.
fn family_of(arn: &str) -> &str {
    let name = arn.rsplit_once('/').map_or(arn, |(_, name)| name);
    name.split_once(':').map_or(name, |(family, _)| family)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_named_after_scale_set_and_backend() {
        assert_eq!(default_family("ci/linux.large", "aws"), "ci-linux-large-aws");
        assert_eq!(
            family_of("arn:aws:ecs:eu-west-1:123456789012:task-definition/ci-linux-aws:7"),
            "ci-linux-aws"
        );
    }
}
