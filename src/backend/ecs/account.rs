//! An AWS account as one credential reaches it in one region: a client, and how many calls it takes.

use std::collections::HashSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::sts::AssumeRoleProvider;
use aws_sdk_ecs::Client;
use aws_sdk_ecs::config::retry::RetryConfig;
use aws_sdk_ecs::config::timeout::TimeoutConfig;
use aws_sdk_ecs::config::{AppName, Builder, Credentials as Keys, Region};
use tokio::sync::OnceCell;

use super::bucket::{Bucket, Limit};

/// For a connection to ECS.
const CONNECT: Duration = Duration::from_secs(5);
/// For one call and its answer.
const ANSWER: Duration = Duration::from_secs(20);
/// So many answers that nobody knows are told of at most.
const MOST_UNKNOWN: usize = 100;

/// How an account is reached. Never printed wholly: it may hold keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Access {
    /// The region.
    pub(super) region: String,
    /// Where the API is, if not where AWS has it.
    pub(super) endpoint: Option<String>,
    /// Who calls.
    pub(super) credentials: Credentials,
    /// The role that is assumed for all calls.
    pub(super) role: Option<String>,
}

/// Who calls.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum Credentials {
    /// What the AWS provider chain finds around the controller.
    Chain,
    /// The keys of a Secret.
    Keys {
        /// `aws_access_key_id`
        id: String,
        /// `aws_secret_access_key`
        secret: String,
        /// `aws_session_token`
        token: Option<String>,
    },
    /// Those of a Secret that has not been read: nothing can be asked.
    Unread,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// An account. One for each [`Access`] in the process.
pub(super) struct Account {
    pub(super) access: Access,
    client: OnceCell<Client>,
    buckets: Buckets,
    /// Answers that the table does not know and that were told of.
    unknown: Mutex<HashSet<String>>,
}

/// The kinds of call that AWS counts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// RunTask and StopTask.
    Modify,
    /// RunTask on Fargate, which has a limit of its own: one on demand, one on Spot.
    Fargate {
        /// On Spot.
        spot: bool,
    },
    /// ListTasks and DescribeTasks.
    Read,
    /// Registering and deregistering task definitions.
    DefinitionModify,
    /// Listing and describing task definitions.
    DefinitionRead,
}

struct Buckets {
    modify: Bucket,
    fargate: Bucket,
    fargate_spot: Bucket,
    read: Bucket,
    definition_modify: Bucket,
    definition_read: Bucket,
}

impl Account {
    pub(super) fn new(access: Access) -> Account {
        let bucket = |burst, per_second| Bucket::new(Limit { burst, per_second });
        Account {
            access,
            client: OnceCell::new(),
            buckets: Buckets {
                modify: bucket(100, 40),
                fargate: bucket(100, 20),
                fargate_spot: bucket(100, 20),
                read: bucket(100, 20),
                definition_modify: bucket(20, 1),
                definition_read: bucket(50, 20),
            },
            unknown: Mutex::default(),
        }
    }

    /// The client, made at the first use. The provider chain is not asked before the first call.
    pub(super) async fn client(&self) -> &Client {
        self.client.get_or_init(|| client(&self.access)).await
    }

    /// Waits until the account takes one more call of a kind.
    pub(super) async fn admit(&self, kind: Kind) {
        self.bucket(kind).take().await;
    }

    /// Notes that the account took no more calls of a kind.
    pub(super) fn throttled(&self, kind: Kind) {
        self.bucket(kind).drain();
    }

    /// Whether an answer that the table does not know is to be told of: the first time it comes.
    pub(super) fn is_news(&self, answer: &str) -> bool {
        let mut unknown = self.unknown.lock().unwrap_or_else(PoisonError::into_inner);
        unknown.len() < MOST_UNKNOWN && unknown.insert(answer.to_owned())
    }

    fn bucket(&self, kind: Kind) -> &Bucket {
        match kind {
            Kind::Modify => &self.buckets.modify,
            Kind::Fargate { spot: false } => &self.buckets.fargate,
            Kind::Fargate { spot: true } => &self.buckets.fargate_spot,
            Kind::Read => &self.buckets.read,
            Kind::DefinitionModify => &self.buckets.definition_modify,
            Kind::DefinitionRead => &self.buckets.definition_read,
        }
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("access", &self.access).finish_non_exhaustive()
    }
}

async fn client(access: &Access) -> Client {
    let timeouts =
        TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(ANSWER).build();
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(access.region.clone()))
        .timeout_config(timeouts);
    if let Ok(name) = AppName::new("paddock") {
        loader = loader.app_name(name);
    }
    if let Credentials::Keys { id, secret, token } = &access.credentials {
        loader = loader.credentials_provider(Keys::new(id, secret, token.clone(), None, "Secret"));
    }
    let shared = loader.load().await;
    // Calls are tried again by those who make them, who know what a second one would do.
    let mut config = Builder::from(&shared).retry_config(RetryConfig::disabled());
    if let Some(role) = &access.role {
        let assumed =
            AssumeRoleProvider::builder(role).session_name("paddock").configure(&shared).build().await;
        config = config.credentials_provider(assumed);
    }
    if let Some(endpoint) = &access.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_printed() {
        let (id, secret, token) =
            ("planted-id".to_owned(), "planted-secret".to_owned(), Some("planted-token".to_owned()));
        let access = Access {
            region: "eu-west-1".to_owned(),
            endpoint: None,
            credentials: Credentials::Keys { id, secret, token },
            role: None,
        };
        let printed = format!("{access:?} {:?}", Account::new(access.clone()));
        assert!(printed.contains("eu-west-1") && !printed.contains("planted"), "{printed}");
    }
}
