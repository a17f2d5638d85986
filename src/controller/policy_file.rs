//! The file with the operator's policy: read at the start, and again when it changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info};

use super::context::Context;
use crate::api::{InvalidPolicy, OperatorPolicy};

/// Between two looks. Contents are compared: a volume of a ConfigMap changes by a link, which a watcher of the file misses.
const LOOK: Duration = Duration::from_secs(2);

/// Why a file gives no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It cannot be read.
    #[error("--policy {0}: {1}")]
    Unread(String, io::Error),
    /// It is no policy.
    #[error("--policy {0}: {1}")]
    Invalid(String, InvalidPolicy),
}

/// A file, and what was in it at the last look.
pub(super) struct PolicyFile {
    path: PathBuf,
    /// None while it could not be read.
    content: Option<String>,
}

impl PolicyFile {
    /// Reads the policy.
    pub async fn open(path: &Path) -> Result<(PolicyFile, OperatorPolicy), PolicyError> {
        let content = read(path).await?;
        let policy = parse(path, &content)?;
        Ok((PolicyFile { path: path.to_owned(), content: Some(content) }, policy))
    }

    /// Puts each policy in force that the file has from now on, until the process stops. One that cannot be read or understood
    /// is told once, and the last good one stays.
    pub async fn follow(mut self, ctx: Arc<Context>) {
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = ctx.stopping.cancelled() => return,
            }
            let read = read(&self.path).await;
            let content = read.as_ref().ok().cloned();
            if content == self.content {
                continue;
            }
            self.content = content;
            match read.and_then(|content| parse(&self.path, &content)) {
                Ok(policy) => {
                    info!("the operator's policy changed");
                    ctx.shared.metrics.policy_valid(true);
                    ctx.put_in_force(policy);
                }
                Err(error) => {
                    error!(%error, "the operator's policy as it was before stays in force");
                    ctx.shared.metrics.policy_valid(false);
                }
            }
        }
    }
}

/// Reads a policy once.
///
/// # Errors
/// The file cannot be read, or is no policy.
pub async fn read_policy(path: &Path) -> Result<OperatorPolicy, PolicyError> {
    parse(path, &read(path).await?)
}

async fn read(path: &Path) -> Result<String, PolicyError> {
    tokio::fs::read_to_string(path).await.map_err(|e| PolicyError::Unread(path.display().to_string(), e))
}

fn parse(path: &Path, content: &str) -> Result<OperatorPolicy, PolicyError> {
    OperatorPolicy::from_yaml(content).map_err(|e| PolicyError::Invalid(path.display().to_string(), e))
}
