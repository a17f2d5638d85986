//! The volume that the runners of a scale set share on a host: made, swept by the last use of its files, removed with its set.

use std::collections::HashSet;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptions;
use tokio::sync::Mutex;

use super::helper::{Helper, HelperImage};
use crate::api::Reason;
use crate::backend::Error;
use crate::backend::docker::destroy::unless_gone;
use crate::backend::docker::failure::{call, meaning, within};
use crate::backend::docker::owned::Owned;
use crate::runner::Identity;

/// For a call about a volume.
const CALL: Duration = Duration::from_secs(60);
/// Where a helper sees it.
const INSIDE: &str = "/paddock-shared";
/// Relatime notes a file's reading if it is the first since a change, or the first in this time.
const RELATIME: Duration = Duration::from_secs(24 * 3600);

/// Lets everyone write in the root, whatever the image's user: it alone, and not what is in it.
const OPEN_ROOT: &str = r#"exec chmod 0777 "$1""#;

/// `DIRECTORY SECONDS RELATIME`: removes what has not been used for so many seconds, and folders that were empty for so long. A use
/// is a reading or a writing, as far as the file system notes readings: with `relatime` a file that was read since it changed may
/// have been read again up to RELATIME seconds after what is noted, so it is given as long. Prints bytes that were freed, a line
/// for each batch.
const SWEEP: &str = r#"
cd "$1" || exit 1
while read -r _ at _ options _; do [ "$at" != "$1" ] || mounted=$options; done </proc/mounts
case ,$mounted, in *,relatime,*) unnoted=$3 ;; *) unnoted=0 ;; esac
export now="$(date +%s)" ttl="$2" unnoted
export batch='
described=$(stat -c "%X %Y %b %x/%y/%z" -- "$@" 2>/dev/null) || {
  [ $# -eq 1 ] || for file; do sh -c "$batch" batch "$file"; done # one of them has vanished
  exit 0
}
freed=0
while read -r read changed blocks times; do
  file=$1
  shift
  used=$changed
  [ "$read" -le "$changed" ] || used=$read
  keep=$ttl
  rest=${times#*/}
  if [ "${times%%/*}" \> "${rest%%/*}" ] && [ "${times%%/*}" \> "${rest#*/}" ]; then keep=$((ttl + unnoted)); fi
  if [ $((now - used)) -ge "$keep" ]; then
    set -- "$@" "$file"
    freed=$((freed + blocks * 512))
  fi
done <<END
$described
END
[ $# -eq 0 ] || { rm -f -- "$@" && echo "$freed"; }
'
find . -xdev ! -type d -exec sh -c "$batch" batch {} + 2>/dev/null
[ "$ttl" -lt 60 ] || find . -xdev -depth -mindepth 1 -type d -mmin "+$((ttl / 60))" -exec rmdir {} + 2>/dev/null
exit 0
"#;

/// A volume that the runners of a scale set share on each host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SharedVolume {
    /// Where runners see it.
    pub mount_path: String,
    /// Files that were not used for so long go. Zero: none does.
    pub ttl: Duration,
    /// Whether runners can only read.
    pub read_only: bool,
}

/// The shared volume of one scale set on an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(super) owned: Owned,
    pub(super) ttl: Duration,
    pub(super) image: HelperImage,
    cluster: String,
}

/// The volumes whose root was opened since this process began, by name and time of creation.
pub(crate) type Opened = Mutex<HashSet<(String, Option<String>)>>;

impl Volume {
    /// The volume of a scale set.
    pub(crate) fn of(owner: &Identity, ttl: Duration, image: HelperImage) -> Volume {
        Volume { owned: Owned::by(owner), ttl, image, cluster: owner.cluster.clone() }
    }

    pub(super) fn name(&self) -> &str {
        &self.owned.name
    }

    /// The mount of it in a container.
    pub(crate) fn mount(&self, path: &str, read_only: bool) -> Mount {
        Mount {
            typ: Some(MountType::VOLUME),
            source: Some(self.owned.name.clone()),
            target: Some(path.to_owned()),
            read_only: Some(read_only),
            volume_options: Some(MountVolumeOptions {
                // What an image has at that path is no part of a cache that outlives the image.
                no_copy: Some(true),
                labels: Some(self.owned.labels.clone()),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        }
    }

    /// Sees to it that it is there, and that runners can write in it.
    pub(crate) async fn ready(&self, docker: &Docker, opened: &Opened) -> Result<(), Error> {
        let mut opened = opened.lock().await;
        let request = VolumeCreateRequest {
            name: Some(self.owned.name.clone()),
            labels: Some(self.owned.labels.clone()),
            ..VolumeCreateRequest::default()
        };
        // One of that name is answered as it is.
        let found = call("making a volume", CALL, docker.create_volume(request)).await?;
        if !self.owned.is(&found.labels) {
            return Err(Error::Refused(format!("volume {} is there and not this scale set's", self.name())));
        }
        let known = (found.name, found.created_at.map(|at| at.to_string()));
        if !opened.contains(&known) {
            self.helper(OPEN_ROOT, Vec::new(), &["FOWNER"]).run(docker).await?;
            opened.insert(known);
        }
        Ok(())
    }

    /// Removes files whose time has come, and answers how many bytes that freed. One that is not there has none.
    pub(super) async fn sweep(&self, docker: &Docker) -> Result<u64, Error> {
        if !self.exists(docker).await? {
            return Ok(0);
        }
        let times = [self.ttl, RELATIME].map(|time| time.as_secs().to_string()).into();
        let printed = self.helper(SWEEP, times, &["DAC_OVERRIDE", "FOWNER"]).run(docker).await?;
        let freed = printed.lines().filter_map(|line| line.trim().parse::<u64>().ok());
        Ok(freed.fold(0, u64::saturating_add))
    }

    /// Removes it with all that is in it, if it is there.
    pub(crate) async fn discard(&self, docker: &Docker) -> Result<(), Error> {
        if !self.exists(docker).await? {
            return Ok(());
        }
        let removal = docker.remove_volume(self.name(), None::<RemoveVolumeOptions>);
        call("removing a volume", CALL, unless_gone(removal)).await
    }

    async fn exists(&self, docker: &Docker) -> Result<bool, Error> {
        match within(CALL, docker.inspect_volume(self.name())).await {
            Err(EngineError::DockerResponseServerError { status_code: 404, .. }) => Ok(false),
            found => found.map(|volume| self.owned.is(&volume.labels)).map_err(|error| meaning(&error)),
        }
    }

    fn helper<'a>(&'a self, script: &'a str, more: Vec<String>, capabilities: &'a [&'a str]) -> Helper<'a> {
        Helper {
            cluster: &self.cluster,
            image: &self.image,
            script,
            arguments: [INSIDE.to_owned()].into_iter().chain(more).collect(),
            mount: self.mount(INSIDE, false),
            capabilities,
        }
    }
}

/// What is to be swept: each volume once, by the longest of the times that backends of its set wish for it; none of which a
/// backend wants nothing removed.
pub(super) fn to_sweep<'a>(wished: impl Iterator<Item = &'a Volume>) -> Vec<Volume> {
    let mut volumes: Vec<Volume> = Vec::new();
    let longer =
        |a: Duration, b: Duration| if a.is_zero() || b.is_zero() { Duration::ZERO } else { a.max(b) };
    for volume in wished {
        match volumes.iter_mut().find(|known| known.owned == volume.owned) {
            Some(known) => known.ttl = longer(known.ttl, volume.ttl),
            None => volumes.push(volume.clone()),
        }
    }
    volumes.retain(|volume| !volume.ttl.is_zero());
    volumes
}

/// Reports of a mistaken engine are [`Reason::EngineError`]; this one names the volume.
pub(crate) fn not_ready(error: Error) -> Error {
    match error {
        Error::NoCapacity(why) => Error::no_capacity(
            Reason::EngineError,
            format!("the shared volume is not ready: {}", why.message),
        ),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(cluster: &str, uid: &str, set: &str) -> Identity {
        Identity { cluster: cluster.into(), scale_set_uid: uid.into(), scale_set: set.into() }
    }

    fn volume(owner: &Identity, hours: u64) -> Volume {
        let image = HelperImage { reference: "runner:1".into(), platform: None };
        Volume::of(owner, Duration::from_secs(hours * 3600), image)
    }

    #[test]
    fn a_volume_of_two_backends_is_swept_once_and_by_the_milder_wish() {
        let (a, b) = (owner("c", "a", "ci/a"), owner("c", "b", "ci/b"));
        let swept = |wished: &[Volume]| -> Vec<u64> {
            to_sweep(wished.iter()).iter().map(|volume| volume.ttl.as_secs() / 3600).collect()
        };
        assert_eq!(swept(&[volume(&a, 1), volume(&a, 5), volume(&b, 2)]), [5, 2]);
        assert_eq!(swept(&[volume(&a, 1), volume(&a, 0), volume(&b, 2)]), [2], "0: never");
    }
}
