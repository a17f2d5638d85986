//! What the engine itself prunes: dangling images, and its build cache.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{PruneBuildOptionsBuilder, PruneImagesOptionsBuilder};
use bollard::{BollardRequest, Docker};

use crate::backend::Error;
use crate::backend::docker::failure::call;

/// For a prune of many large files.
const PRUNE: Duration = Duration::from_secs(600);
/// The version of the API from which on the size of the cache to keep is `max-used-space`; before it was `keep-storage`.
const MAX_USED_SPACE: (usize, usize) = (1, 48);

/// What was removed: how many things, and how many bytes that freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pruned {
    pub(super) things: usize,
    pub(super) bytes: u64,
}

/// Removes the images without a name that no container uses.
pub(super) async fn images(docker: &Docker) -> Result<Pruned, Error> {
    let filters = HashMap::from([("dangling", vec!["true"])]);
    let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
    let pruned = call("pruning images", PRUNE, docker.prune_images(Some(options))).await?;
    let images = pruned.images_deleted.into_iter().flatten().filter(|image| image.deleted.is_some());
    Ok(Pruned { things: images.count(), bytes: bytes(pruned.space_reclaimed) })
}

/// Cuts the build cache to a size: what was used least recently goes, and nothing that a build uses.
pub(super) async fn build_cache_over(docker: &Docker, budget: u64) -> Result<Pruned, Error> {
    let version = docker.client_version();
    let is_old = (version.major_version, version.minor_version) < MAX_USED_SPACE;
    let docker = if is_old { docker.clone().with_request_modifier(in_old_words) } else { docker.clone() };
    let options = PruneBuildOptionsBuilder::new().all(true);
    // Zero would be no limit.
    prune_cache(&docker, options.max_used_space(i64::try_from(budget.max(1)).unwrap_or(i64::MAX))).await
}

/// Removes the build cache that was not used for so long.
pub(super) async fn build_cache_unused(docker: &Docker, unused: Duration) -> Result<Pruned, Error> {
    let filters = HashMap::from([("until", vec![format!("{}s", unused.as_secs())])]);
    let options = PruneBuildOptionsBuilder::new().all(true);
    let options = if unused.is_zero() { options } else { options.filters(&filters) };
    prune_cache(docker, options).await
}

async fn prune_cache(docker: &Docker, options: PruneBuildOptionsBuilder) -> Result<Pruned, Error> {
    let pruned = call("pruning the build cache", PRUNE, docker.prune_build(Some(options.build()))).await?;
    let things = pruned.caches_deleted.unwrap_or_default().len();
    Ok(Pruned { things, bytes: bytes(pruned.space_reclaimed) })
}

/// bollard 0.21 has the new word alone, which an older engine passes over: it would prune all.
fn in_old_words(mut request: BollardRequest) -> BollardRequest {
    let uri = request.uri().to_string().replace("max-used-space=", "keep-storage=");
    if let Ok(uri) = uri.parse() {
        *request.uri_mut() = uri;
    }
    request
}

fn bytes(reclaimed: Option<i64>) -> u64 {
    u64::try_from(reclaimed.unwrap_or_default()).unwrap_or_default()
}
