//! The removal of a container, and of what is beside it.

use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::query_parameters::{RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder};
use futures::StreamExt;

use super::failure::{call, meaning, within};
use crate::backend::Error;

/// On a host that swaps, it takes its time.
pub(super) const REMOVE: Duration = Duration::from_secs(60);

/// What a removal comes to: that it is gone already is as good.
pub(super) async fn unless_gone(
    removal: impl Future<Output = Result<(), EngineError>>,
) -> Result<(), EngineError> {
    match within(REMOVE, removal).await {
        Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
        removed => removed,
    }
}

/// Removes a container, running or not, with its anonymous volumes, and waits until it is gone.
pub(super) async fn destroy(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match within(REMOVE, docker.remove_container(id, Some(options))).await {
        // Someone else's removal of it is under way.
        Err(EngineError::DockerResponseServerError { status_code: 409, .. }) => vanished(docker, id).await,
        Err(EngineError::RequestTimeoutError) => {
            Err(Error::Unreachable(format!("removing a container took longer than {} s", REMOVE.as_secs())))
        }
        removed => removed.map_err(|error| meaning(&error)),
    }
}

async fn vanished(docker: &Docker, id: &str) -> Result<(), Error> {
    let options = WaitContainerOptionsBuilder::new().condition("removed").build();
    let mut waiting = std::pin::pin!(docker.wait_container(id, Some(options)));
    let answer = async {
        match waiting.next().await {
            // The exit code that comes with it says nothing of the removal.
            Some(Err(error @ EngineError::DockerResponseServerError { .. })) => Err(error),
            _ => Ok(()),
        }
    };
    match call("waiting for a removal", REMOVE, answer).await {
        Err(Error::Gone) => Ok(()),
        answer => answer,
    }
}
