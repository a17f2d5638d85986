//! What an engine is like, for people who ask.

use rustix::fs::statvfs;

use super::endpoint::Endpoint;
use super::engine::Engine;
use super::failure::{ANSWER, call};
use crate::backend::{Error, Examination, Lack};

/// The API of the oldest engine that is supported, 20.10.
const OLDEST_API: (u32, u32) = (1, 41);

/// Asks an engine that is connected.
pub(super) async fn examine(engine: &Engine) -> Result<Examination, Error> {
    let docker = engine.client()?.docker;
    let version = call("asking for the engine's version", ANSWER, docker.version()).await?;
    let about = call("asking for the engine's description", ANSWER, docker.info()).await?;
    let (release, api) = (version.version.unwrap_or_default(), version.api_version.unwrap_or_default());
    let mut lacks = Vec::new();
    if is_old(&api) {
        let (major, minor) = OLDEST_API;
        lacks.push(Lack::Version(format!(
            "Docker {release} has the API {api}; the oldest that is supported is {major}.{minor} (Docker 20.10)"
        )));
    }
    if let (Endpoint::Unix(_), Some(root)) = (&engine.endpoint, about.docker_root_dir) {
        lacks.extend(lack_of_disk(&root));
    }
    Ok(Examination { about: format!("Docker {release} (API {api})"), lacks })
}

/// What is not understood is not old.
fn is_old(api: &str) -> bool {
    let parsed =
        api.split_once('.').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    parsed.is_some_and(|api: (u32, u32)| api < OLDEST_API)
}

/// Only the disk of one's own machine is seen, and no engine tells of its own.
fn lack_of_disk(root: &str) -> Option<Lack> {
    let disk = statvfs(root).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Lack::of_disk(root, bytes(disk.f_blocks), bytes(disk.f_bavail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_before_20_10_is_too_old() {
        for (api, old) in [("1.40", true), ("1.41", false), ("1.51", false), ("2.0", false), ("", false)] {
            assert_eq!(is_old(api), old, "{api}");
        }
    }
}
