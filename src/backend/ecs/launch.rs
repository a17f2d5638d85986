//! One start: the call that runs a task, made again until it is known what became of it. ECS remembers the token of a call, so
//! that a second one is answered with the task of the first.

use std::time::Duration;

use aws_sdk_ecs::operation::run_task::RunTaskOutput;
use aws_sdk_ecs::types::{
    AssignPublicIp, AwsVpcConfiguration, CapacityProviderStrategyItem, ContainerOverride, KeyValuePair,
    LaunchType, NetworkConfiguration, Tag, TaskOverride,
};
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::account::Kind;
use super::binding::{Binding, Place};
use super::call::{CallError, failure, meaning, shortened};
use super::classify::{Meaning, Source, classify};
use super::task::{Marks, RUNNER, SCALE_SET_UID, Stage, Task, id_of, launch_step};
use crate::api::Reason;
use crate::api::{self, JIT_CONFIG_ENV, VERSION_EXIT_CODE_ENV};
use crate::backend::Error;
use crate::runner::{Identity, JitConfiguration};
use crate::time::{Backoff, Plus};

/// The most characters of a call's overrides, written as JSON.
const OVERRIDES: usize = 8192;
/// What is answered, and may go well later, is tried for so long.
const TRIED_FOR: Duration = Duration::from_secs(60);
/// A call whose answer was lost may have run a task: it is made again for so long.
const ASKED_FOR: Duration = Duration::from_secs(600);
/// Before a call is made again.
const AGAIN: Backoff = Backoff { first: Duration::from_millis(500), last: Duration::from_secs(10) };

/// A runner to be started.
pub(super) struct Launch<'a> {
    pub(super) binding: &'a Binding,
    /// The runner's name.
    pub(super) runner: String,
    pub(super) jit: JitConfiguration,
    /// The task definition to be run.
    pub(super) definition: String,
}

impl Launch<'_> {
    /// Refuses what ECS would: its answer must not be waited for with a registration in hand.
    pub(super) fn check(&self) -> Result<(), Error> {
        let environment = self.environment();
        let pairs: Vec<_> =
            environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let container = &self.binding.template.container;
        let overrides = json!({"containerOverrides": [{"name": container, "environment": pairs}]});
        let characters = overrides.to_string().chars().count();
        if characters <= OVERRIDES {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the runner's environment has {characters} characters as JSON, its JIT configuration among them, and ECS takes \
             {OVERRIDES}: make the variables of ecs.managedTaskDefinition.env whose values come from Secrets smaller"
        )))
    }

    /// Runs the task on a place that was admitted to be called once. `may_be_called` is false where it is still to be asked.
    pub(super) async fn run(&self, place: &Place, mut admitted: bool) -> Result<Task, Error> {
        let begun = Instant::now();
        let (mut attempts, mut lost) = (0, false);
        loop {
            if !std::mem::take(&mut admitted) {
                admit(self.binding, place).await;
            }
            let error = match self.call(place).await {
                Ok(answer) => return self.task(place, &answer),
                Err(error) => self.without_secrets(error),
            };
            attempts += 1;
            let meaning = meaning(&error);
            lost |= matches!(error, CallError::Lost(_));
            if meaning == Meaning::Throttled {
                self.binding.cluster().account.throttled(Kind::Modify);
            }
            let again = matches!(meaning, Meaning::Throttled | Meaning::Transient);
            let tried_for = if lost { ASKED_FOR } else { TRIED_FOR };
            if !again || begun.plus(tried_for) <= Instant::now() {
                return Err(failure(&self.binding.cluster().account, &error));
            }
            debug!(runner = self.runner, %error, "RunTask is asked again");
            tokio::time::sleep(AGAIN.after(attempts)).await;
        }
    }

    async fn call(&self, place: &Place) -> Result<RunTaskOutput, CallError> {
        let (binding, template) = (self.binding, &self.binding.template);
        let cluster = binding.cluster();
        let mut request = cluster
            .account
            .client()
            .await
            .run_task()
            .cluster(&cluster.name)
            .task_definition(&self.definition)
            .count(1)
            .client_token(self.token(place))
            .started_by(&cluster.started_by)
            .overrides(self.overrides())
            .set_tags(Some(self.tags()))
            .set_platform_version(template.platform_version.clone())
            .set_launch_type(template.launch_type.map(launch_type));
        if let Some(provider) = place.provider() {
            let item = CapacityProviderStrategyItem::builder().capacity_provider(provider).weight(1).build();
            request = request.set_capacity_provider_strategy(item.ok().map(|item| vec![item]));
        }
        if let Some(network) = &template.network {
            let public_ip =
                if network.public_ip { AssignPublicIp::Enabled } else { AssignPublicIp::Disabled };
            let vpc = AwsVpcConfiguration::builder()
                .set_subnets(Some(network.subnets.clone()))
                .set_security_groups(
                    Some(network.security_groups.clone()).filter(|groups| !groups.is_empty()),
                )
                // The other launch types refuse to be told.
                .set_assign_public_ip(template.on_fargate(place.provider()).then_some(public_ip));
            let network = NetworkConfiguration::builder().set_awsvpc_configuration(vpc.build().ok());
            request = request.network_configuration(network.build());
        }
        Ok(request.send().await?)
    }

    /// The task that an answer tells of, or why there is none.
    fn task(&self, place: &Place, answer: &RunTaskOutput) -> Result<Task, Error> {
        let binding = self.binding;
        if let Some((task, arn)) = answer.tasks().first().and_then(|task| Some((task, task.task_arn()?))) {
            let step = task.last_status().and_then(launch_step);
            let stage = step.map_or(Stage::Running, Stage::Launching);
            return Ok(Task {
                id: id_of(arn).to_owned(),
                runner: self.runner.clone(),
                scale_set_uid: binding.identity.scale_set_uid.clone(),
                tags: Some(Marks {
                    scale_set: binding.identity.scale_set.clone(),
                    backend: binding.backend.clone(),
                    template_hash: binding.template_hash.clone(),
                }),
                definition: task.task_definition_arn().unwrap_or(&self.definition).to_owned(),
                container: binding.template.container.clone(),
                provider: task.capacity_provider_name().or(place.provider()).map(str::to_owned),
                created_at: Timestamp::now(),
                stage,
            });
        }
        let Some(why) = answer.failures().first() else {
            let message = "ECS ran no task and did not say why".to_owned();
            return Err(Error::no_capacity(Reason::NoCapacity, message));
        };
        let (word, detail) = (why.reason().unwrap_or_default(), why.detail().unwrap_or_default());
        let told = if detail.is_empty() {
            shortened(word)
        } else {
            format!("{}: {}", shortened(word), shortened(detail))
        };
        match classify(Source::Failure, word, detail) {
            Meaning::Refused(change) => Err(Error::Refused(format!("{told} ({change})"))),
            Meaning::NoCapacity | Meaning::Gone => Err(Error::no_capacity(Reason::NoCapacity, told)),
            _ => {
                if binding.cluster().account.is_news(&told) {
                    warn!(
                        reason = told,
                        "RunTask fails for what is not known here: it is taken for a want of capacity"
                    );
                }
                Err(Error::no_capacity(Reason::NoCapacity, told))
            }
        }
    }

    /// The same for the same runner on the same place, and no other: at most 64 characters.
    fn token(&self, place: &Place) -> String {
        let Identity { cluster, scale_set_uid, .. } = &self.binding.identity;
        let words = [cluster, scale_set_uid, &self.runner, place.provider().unwrap_or_default()];
        let digest = Sha256::digest(words.join("\n").as_bytes());
        digest.iter().take(30).map(|byte| format!("{byte:02x}")).collect()
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        let own = [
            (JIT_CONFIG_ENV, self.jit.expose()),
            (VERSION_EXIT_CODE_ENV, "1"),
            (RUNNER, self.runner.as_str()),
            (SCALE_SET_UID, self.binding.identity.scale_set_uid.as_str()),
        ];
        let names = own.map(|(name, _)| name);
        let users = self.binding.template.secret_env.iter();
        let users = users.map(|(name, value)| (name.as_str(), value.as_str()));
        own.into_iter().chain(users.filter(|(name, _)| !names.contains(name))).collect()
    }

    fn overrides(&self) -> TaskOverride {
        let pair = |(name, value)| KeyValuePair::builder().name(name).value(value).build();
        let environment: Vec<KeyValuePair> = self.environment().into_iter().map(pair).collect();
        let container = &self.binding.template.container;
        let runner = ContainerOverride::builder().name(container).set_environment(Some(environment)).build();
        TaskOverride::builder().container_overrides(runner).build()
    }

    fn tags(&self) -> Vec<Tag> {
        let binding = self.binding;
        let own = [
            (Identity::CLUSTER, binding.identity.cluster.as_str()),
            (Identity::SCALE_SET_UID, &binding.identity.scale_set_uid),
            (Identity::SCALE_SET, &binding.identity.scale_set),
            (Identity::RUNNER, &self.runner),
            (Identity::TEMPLATE_HASH, &binding.template_hash),
            (Identity::BACKEND, &binding.backend),
        ];
        let users = binding.template.tags.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        own.into_iter()
            .chain(users)
            .map(|(key, value)| Tag::builder().key(key).value(value).build())
            .collect()
    }

    /// What ECS or something on the way says may quote what was sent.
    fn without_secrets(&self, error: CallError) -> CallError {
        let secrets = self.binding.template.secret_env.iter().map(|(_, value)| value.as_str());
        let clean = |mut text: String| {
            for secret in secrets.clone().chain([self.jit.expose()]).filter(|secret| !secret.is_empty()) {
                text = text.replace(secret, "…");
            }
            text
        };
        match error {
            CallError::Answered { code, message } => CallError::Answered { code, message: clean(message) },
            CallError::Lost(message) => CallError::Lost(clean(message)),
            CallError::NoCredentials(message) => CallError::NoCredentials(clean(message)),
        }
    }
}

/// Waits until the account takes one more start on a place.
pub(super) async fn admit(binding: &Binding, place: &Place) {
    let account = &binding.cluster().account;
    if let Some(kind) = binding.template.fargate_limit(place.provider()) {
        account.admit(kind).await;
    }
    account.admit(Kind::Modify).await;
}

fn launch_type(launch_type: api::LaunchType) -> LaunchType {
    match launch_type {
        api::LaunchType::Fargate => LaunchType::Fargate,
        api::LaunchType::Ec2 => LaunchType::Ec2,
        api::LaunchType::External => LaunchType::External,
    }
}
