//! How one simulated GitHub is configured: everything that waits takes its duration from here.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::SimGithub;
use super::auth::{App, KeyError};

/// The token that a simulated GitHub accepts when its builder names no other.
pub const DEFAULT_TOKEN: &str = "ghp_simulated0123456789";

/// The two ways in which GitHub hands jobs to a scale set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// github.com: jobs are assigned directly, as far as the capacity header of each poll allows.
    Broker,
    /// GitHub Enterprise Server: jobs are offered, and assigned once the client acquires them.
    Ghes,
}

/// What a [`SimGithubBuilder`] has been told.
#[derive(Debug, Clone)]
pub(super) struct Config {
    pub model: Model,
    pub bind: SocketAddr,
    pub public_url: Option<String>,
    pub runner_url: Option<String>,
    pub tokens: Vec<String>,
    pub apps: Vec<App>,
    pub runner_groups: Vec<String>,
    pub long_poll: Duration,
    pub unclaimed_after: Duration,
    pub attempts: u32,
    pub silence: Duration,
    pub session_lapse: Option<Duration>,
    pub linger: Option<Duration>,
    pub admin_ttl: Duration,
    pub drop_extra_labels: bool,
    pub byte_order_mark: bool,
    pub small_jit: bool,
    pub job_ids: bool,
    pub fresh_refusals: u32,
    pub length_required: bool,
}

impl Config {
    /// The path that precedes `_apis` in service URLs: a client that drops it gets a 404.
    pub fn service_prefix(&self) -> &'static str {
        match self.model {
            Model::Broker => "/rest",
            Model::Ghes => "/_services/pipelines",
        }
    }

    /// The number before the first message id: the broker counts from 100000001.
    pub fn message_id_base(&self) -> i64 {
        match self.model {
            Model::Broker => 100_000_000,
            Model::Ghes => 0,
        }
    }
}

/// Builds a [`SimGithub`]. Defaults follow what is known of github.com.
#[derive(Debug, Clone)]
#[must_use]
pub struct SimGithubBuilder {
    config: Config,
}

/// Why a simulated GitHub did not start.
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

impl SimGithubBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config {
                model: Model::Broker,
                bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                public_url: None,
                runner_url: None,
                tokens: Vec::new(),
                apps: Vec::new(),
                runner_groups: vec!["Default".to_owned()],
                long_poll: Duration::from_secs(50),
                unclaimed_after: Duration::from_mins(5),
                attempts: 3,
                silence: Duration::from_mins(10),
                session_lapse: None,
                linger: None,
                admin_ttl: Duration::from_mins(17),
                drop_extra_labels: false,
                byte_order_mark: false,
                small_jit: false,
                job_ids: true,
                fresh_refusals: 0,
                length_required: true,
            },
        }
    }

    #[cfg(test)]
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// The job-assignment model. Default: [`Model::Broker`].
    pub fn model(mut self, model: Model) -> Self {
        self.config.model = model;
        self
    }

    /// Where to listen. Default: a free port of 127.0.0.1.
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.config.bind = address;
        self
    }

    /// The base of every URL handed to clients. Default: `http://` and the bound address.
    pub fn public_url(mut self, url: impl Into<String>) -> Self {
        self.config.public_url = Some(url.into().trim_end_matches('/').to_owned());
        self
    }

    /// The base URL written into JIT configurations, where runners reach GitHub another way (a container behind a bridge).
    /// Default: the public URL.
    pub fn runner_url(mut self, url: impl Into<String>) -> Self {
        self.config.runner_url = Some(url.into().trim_end_matches('/').to_owned());
        self
    }

    /// Accepts a personal access token; call it again for more. Default: [`DEFAULT_TOKEN`].
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.config.tokens.push(token.into());
        self
    }

    /// Accepts a GitHub App. `issuer` is the app id or the client id that its JWT names; `key_pem` is its public or private
    /// RSA key. [`super::app_private_key`] has one made for the occasion.
    ///
    /// # Errors
    ///
    /// When `key_pem` is no RSA key.
    pub fn app(
        mut self,
        issuer: impl Into<String>,
        installation_id: i64,
        key_pem: &str,
    ) -> Result<Self, KeyError> {
        self.config.apps.push(App::new(issuer.into(), installation_id, key_pem)?);
        Ok(self)
    }

    /// Adds a runner group beside `Default` (id 1); ids count on from 2.
    pub fn runner_group(mut self, name: impl Into<String>) -> Self {
        self.config.runner_groups.push(name.into());
        self
    }

    /// How long a poll is held without news. Default: 50 s.
    pub fn long_poll(mut self, hold: Duration) -> Self {
        self.config.long_poll = hold;
        self
    }

    /// After how long an assignment that no runner claimed is canceled and queued again. Default: 5 min (ARC 4602).
    pub fn unclaimed_after(mut self, interval: Duration) -> Self {
        self.config.unclaimed_after = interval;
        self
    }

    /// How often an unclaimed job is assigned before GitHub gives up on it. Default: 3.
    pub fn assignment_attempts(mut self, attempts: u32) -> Self {
        self.config.attempts = attempts;
        self
    }

    /// How long a runner may be silent: then its job fails, and an idle one counts as offline. Default: 10 min.
    pub fn silence(mut self, silence: Duration) -> Self {
        self.config.silence = silence;
        self
    }

    /// After how long without a poll a session stands in nobody's way any more. Default: never; the real time is not known.
    pub fn session_lapse(mut self, lapse: Duration) -> Self {
        self.config.session_lapse = Some(lapse);
        self
    }

    /// Keeps a runner's registration, still busy, for this long after its job. Default: it goes with the job.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = Some(linger);
        self
    }

    /// Life of an admin token, in whole seconds. Default: 17 min.
    pub fn admin_token_ttl(mut self, ttl: Duration) -> Self {
        self.config.admin_ttl = ttl;
        self
    }

    /// Silently keeps only the first label of a scale set, as GHES before 3.21 does.
    pub fn drop_extra_labels(mut self) -> Self {
        self.config.drop_extra_labels = true;
        self
    }

    /// Precedes every JSON body with a byte-order mark, as the service sometimes does.
    pub fn byte_order_mark(mut self) -> Self {
        self.config.byte_order_mark = true;
        self
    }

    /// Leaves the RSA key out of JIT configurations: a few hundred bytes instead of the true size of about 4.4 KB.
    pub fn small_jit(mut self) -> Self {
        self.config.small_jit = true;
        self
    }

    /// Sends messages without `jobId`, as GHES did before the middle of 2025: `runnerRequestId` alone names a job.
    pub fn without_job_ids(mut self) -> Self {
        self.config.job_ids = false;
        self
    }

    /// Refuses each registration token so many times, with 401 and 403 in turn, before it opens the service: github.com
    /// does so for some seconds after a token was made (ARC 3377, 3724).
    pub fn refuse_fresh_tokens(mut self, times: u32) -> Self {
        self.config.fresh_refusals = times;
        self
    }

    /// Takes a POST, PATCH or PUT that does not tell the length of its body. GitHub answers 411; this is for clients that
    /// are known to leave it out.
    pub fn length_optional(mut self) -> Self {
        self.config.length_required = false;
        self
    }

    /// Starts it. It stops when the last clone of the handle is dropped.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub async fn start(mut self) -> Result<SimGithub, StartError> {
        if self.config.tokens.is_empty() {
            self.config.tokens.push(DEFAULT_TOKEN.to_owned());
        }
        SimGithub::start(self.config).await
    }
}
