//! The end of a scale set at GitHub.

use std::time::Duration;

use tokio::time::timeout;

use super::handle::ScaleSetHandle;
use super::shared::Shared;
use crate::github::{self, ScaleSetService};

/// How long one try to delete the scale set may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// The scale set at GitHub that is this object's own, and no elder's.
pub fn own_scale_set(set: &ScaleSetHandle, shared: &Shared) -> Option<i64> {
    let own = set.state().github.registration.own()?;
    let anothers = shared.registry.elder(set).is_some() || shared.registry.is_an_elders_own(set, own);
    (!anothers).then_some(own)
}

/// Deletes the scale set, once its message session has shown that nobody else has taken it over meanwhile.
///
/// # Errors
/// Those of GitHub; [`github::Error::SessionConflict`] where another has its session.
pub async fn delete_at_github(set: &ScaleSetHandle, id: i64, shared: &Shared) -> Result<(), github::Error> {
    let (service, open, left_behind) = {
        let state = set.state();
        let left_behind = state.github.session.as_ref().map(|session| session.id.clone());
        (state.github.service.clone(), state.github.registration.session_open, left_behind)
    };
    let Some(service) = service else {
        return Err(github::Error::Config("there are no credentials for GitHub".to_owned()));
    };
    let deleting = async {
        if open {
            return service.delete_scale_set(id).await;
        }
        delete_in_a_session(&*service, id, &shared.owner, left_behind.as_deref()).await
    };
    let silence = || Err(github::Error::Transient("no answer within the deadline".to_owned()));
    timeout(DEADLINE, deleting).await.unwrap_or_else(|_| silence())
}

async fn delete_in_a_session(
    service: &dyn ScaleSetService,
    id: i64,
    owner: &str,
    left_behind: Option<&str>,
) -> Result<(), github::Error> {
    let session = match service.open_session(id, owner, left_behind).await {
        Ok(session) => session,
        Err(github::Error::ScaleSetGone) => return Ok(()),
        Err(error) => return Err(error),
    };
    let deleted = service.delete_scale_set(id).await;
    if deleted.is_err() {
        // It would be in the way of the next try.
        let _ = service.close(&session).await;
    }
    deleted
}
