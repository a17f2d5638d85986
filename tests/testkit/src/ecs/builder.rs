//! How one simulated ECS is configured: everything that waits takes its duration from here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::auth::Credential;
use super::state::{ClusterSpec, Delays, Lag};
use super::{DEFAULT_ACCESS_KEY, SimEcs};

/// What a [`SimEcsBuilder`] has been told.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub bind: SocketAddr,
    pub region: String,
    pub account: String,
    pub credentials: Vec<Credential>,
    pub roles: Vec<String>,
    pub clusters: Vec<ClusterSpec>,
    pub subnets: Vec<String>,
    pub delays: Delays,
    pub lag: Lag,
    pub throttling: bool,
    pub page_size: usize,
    pub started_by_alone: bool,
    pub stop_timeout: Duration,
    pub spot_notice: Duration,
    pub provisioning_timeout: Duration,
    pub forget_after: Duration,
    pub token_memory: Duration,
    pub runner: Option<PathBuf>,
}

/// Builds a [`SimEcs`]. Defaults follow what is known of AWS.
#[derive(Debug, Clone)]
#[must_use]
pub struct SimEcsBuilder {
    config: Config,
}

/// Why a simulated ECS did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl SimEcsBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config {
                bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                region: "eu-west-1".to_owned(),
                account: "123456789012".to_owned(),
                credentials: Vec::new(),
                roles: Vec::new(),
                clusters: Vec::new(),
                subnets: Vec::new(),
                delays: Delays::fargate(),
                lag: Lag::both(Duration::from_secs(1)),
                throttling: true,
                page_size: super::state::PAGE,
                started_by_alone: false,
                stop_timeout: Duration::from_secs(30),
                spot_notice: Duration::from_mins(2),
                provisioning_timeout: Duration::from_mins(30),
                forget_after: Duration::from_hours(1),
                token_memory: Duration::from_hours(24),
                runner: None,
            },
        }
    }

    /// Where to listen. Default: a free port of 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.config.bind = address;
        self
    }

    /// The region that signatures have to name. Default: `eu-west-1`.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.config.region = region.into();
        self
    }

    /// The account's number. Default: `123456789012`.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.config.account = account.into();
        self
    }

    /// Accepts a credential; call it again for more. Default: [`DEFAULT_ACCESS_KEY`].
    pub fn credential(mut self, credential: Credential) -> Self {
        self.config.credentials.push(credential);
        self
    }

    /// A role that may be assumed; call it again for more. Default: any.
    pub fn role(mut self, arn: impl Into<String>) -> Self {
        self.config.roles.push(arn.into());
        self
    }

    /// A cluster that exists from the start; call it again for more. Default: one named `default`, on Fargate and Fargate
    /// Spot.
    pub fn cluster(mut self, cluster: ClusterSpec) -> Self {
        self.config.clusters.push(cluster);
        self
    }

    /// A subnet that exists; call it again for more. Default: every id that begins with `subnet-`.
    pub fn subnet(mut self, id: impl Into<String>) -> Self {
        self.config.subnets.push(id.into());
        self
    }

    /// How long a task stays in each state. Default: [`Delays::fargate`].
    pub fn delays(mut self, delays: Delays) -> Self {
        self.config.delays = delays;
        self
    }

    /// How late ListTasks and DescribeTasks are. Default: 1 s each.
    pub fn lag(mut self, lag: Lag) -> Self {
        self.config.lag = lag;
        self
    }

    /// Lifts the limits on requests. Default: the documented ones, from real token buckets.
    pub fn without_throttling(mut self) -> Self {
        self.config.throttling = false;
        self
    }

    /// Lets pages of lists be shorter than their `maxResults`, as AWS allows itself. Default: 100.
    pub fn page_size(mut self, size: usize) -> Self {
        self.config.page_size = size.clamp(1, super::state::PAGE);
        self
    }

    /// Refuses `startedBy` together with `desiredStatus`, as the documentation of ListTasks reads. Default: accepted, as
    /// users of AWS report.
    pub fn started_by_alone(mut self) -> Self {
        self.config.started_by_alone = true;
        self
    }

    /// After how long a container that was told to stop is killed, where its definition names no `stopTimeout`. Default: 30 s.
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.config.stop_timeout = timeout;
        self
    }

    /// How long a Spot task stays RUNNING after the notice of its interruption, unless its containers end. Default: 2 min.
    pub fn spot_notice(mut self, notice: Duration) -> Self {
        self.config.spot_notice = notice;
        self
    }

    /// After how long a task in PROVISIONING that waits for an instance fails to start. Default: 30 min.
    pub fn provisioning_timeout(mut self, timeout: Duration) -> Self {
        self.config.provisioning_timeout = timeout;
        self
    }

    /// After how long a stopped task is forgotten. Default: 1 h.
    pub fn forget_after(mut self, time: Duration) -> Self {
        self.config.forget_after = time;
        self
    }

    /// How long a `clientToken` is remembered at most. Default: 24 h.
    pub fn token_memory(mut self, time: Duration) -> Self {
        self.config.token_memory = time;
        self
    }

    /// The program that a task runs as a process, whatever its image: `fake-runner`. Default: none; containers then run
    /// until they are stopped or [`SimEcs::exit_task`] ends them.
    pub fn runner(mut self, program: impl Into<PathBuf>) -> Self {
        self.config.runner = Some(program.into());
        self
    }

    /// Starts the simulation. It stops when the last clone of the handle is dropped.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start(mut self) -> Result<SimEcs, StartError> {
        if self.config.credentials.is_empty() {
            self.config.credentials.push(Credential::new(DEFAULT_ACCESS_KEY));
        }
        if self.config.clusters.is_empty() {
            self.config.clusters.push(ClusterSpec::new("default"));
        }
        SimEcs::start(self.config).await
    }
}
