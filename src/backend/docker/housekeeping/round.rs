//! A round of housekeeping on one host: what has come of age goes; and when the disk is too full, what may go does, cheapest first.

use std::time::Duration;

use bollard::Docker;
use bollard::models::{Mount, MountType, MountVolumeOptions};
use jiff::Timestamp;
use tracing::{debug, info, warn};

use super::report::{Freed, Report, Store};
use super::rules::{Rules, Space};
use super::stores::Pruned;
use super::wishes::Agreed;
use super::{builders, helper, stores};
use crate::api::Reason;
use crate::backend::Error;
use crate::backend::docker::failure::{ANSWER, call};
use crate::backend::docker::host::Host;

/// Where a helper sees the engine's disk.
const INSIDE: &str = "/paddock-disk";
/// Build cache goes by how long it was not used: a week, a day, an hour, and what no build uses now.
const UNUSED: [Duration; 4] =
    [Duration::from_secs(7 * 86400), Duration::from_secs(86400), Duration::from_secs(3600), Duration::ZERO];

/// A step by which the disk is made free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Images,
    /// One after the other.
    Builders(Duration),
    /// What was not used for so long.
    BuildCache(Duration),
    SharedFiles,
}

/// The steps that are permitted, cheapest first.
fn steps(rules: &Rules) -> Vec<Step> {
    let images = rules.images.then_some(Step::Images);
    let builders = rules.builders.map(Step::Builders);
    let cache = UNUSED.into_iter().filter(|_| rules.build_cache.is_some()).map(Step::BuildCache);
    images.into_iter().chain(builders).chain(cache).chain([Step::SharedFiles]).collect()
}

/// A round on one host, by what its users agree to.
pub(super) struct Round<'a> {
    pub(super) host: &'a Host,
    pub(super) docker: &'a Docker,
    pub(super) cluster: &'a str,
    pub(super) agreed: &'a Agreed,
}

impl Round<'_> {
    /// Removes what has come of age, and the helpers of a controller that died. What it did by then is in `report` even if the
    /// future is dropped.
    pub(super) async fn clean(&self, report: &mut Report) {
        let left = async { helper::remove_left(self.docker, self.cluster, self.now().await?).await };
        if let Err(error) = left.await {
            debug!(%error, "helpers that were left cannot be looked for");
        }
        let rules = &self.agreed.rules;
        if rules.images {
            self.step(Step::Images, report).await;
        }
        if let Some(max_age) = rules.builders {
            while self.remove_builder(max_age, false, report).await {}
        }
        if let Some(budget) = rules.build_cache {
            self.quiet().await;
            note(report, Store::BuildCache, stores::build_cache_over(self.docker, budget).await);
        }
        self.step(Step::SharedFiles, report).await;
    }

    /// Makes the disk free where it is too full, as far as it must and may.
    pub(super) async fn guard(&self, report: &mut Report) {
        let Some(guard) = &self.agreed.rules.disk_guard else { return };
        let Some(mut space) = self.space().await else { return };
        if !guard.is_low(space) {
            return;
        }
        info!(space = space.describe(), "the disk is too full: housekeeping makes room");
        for step in steps(&self.agreed.rules) {
            loop {
                let more = self.step(step, report).await;
                space = self.space().await.unwrap_or(space);
                if guard.is_met(space) {
                    return;
                }
                if !more {
                    break;
                }
            }
        }
        let low = format!("{}, and housekeeping may remove no more there", space.describe());
        report.low = guard.is_low(space).then_some(low);
    }

    /// Takes a step. Answers whether it may be taken again.
    async fn step(&self, step: Step, report: &mut Report) -> bool {
        self.quiet().await;
        match step {
            Step::Images => note(report, Store::Images, stores::images(self.docker).await),
            Step::Builders(max_age) => return self.remove_builder(max_age, true, report).await,
            Step::BuildCache(unused) => {
                note(report, Store::BuildCache, stores::build_cache_unused(self.docker, unused).await);
            }
            Step::SharedFiles => self.sweep(report).await,
        }
        false
    }

    /// Removes the oldest builder that may go. Answers whether there was one.
    async fn remove_builder(&self, max_age: Duration, under_pressure: bool, report: &mut Report) -> bool {
        self.quiet().await;
        let removal = async {
            let known = builders::list(self.docker).await?;
            let to_remove = builders::to_remove(known, max_age, under_pressure, self.now().await?);
            let Some(oldest) = to_remove.first() else { return Ok(None) };
            // No call of the engine tells what a builder takes.
            let before = self.space().await;
            let is_gone = oldest.remove(self.docker).await?;
            let after = if is_gone { self.space().await } else { before };
            let freed =
                before.zip(after).map(|(before, after)| after.available.saturating_sub(before.available));
            Ok::<_, Error>(is_gone.then_some(freed.unwrap_or_default()))
        };
        match removal.await {
            Ok(Some(bytes)) => {
                note(report, Store::Builders, Ok(Pruned { things: 1, bytes }));
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn!(%error, "a builder cannot be removed");
                false
            }
        }
    }

    async fn sweep(&self, report: &mut Report) {
        for volume in &self.agreed.volumes {
            self.quiet().await;
            match volume.sweep(self.docker).await {
                Ok(0) => {}
                Ok(bytes) => {
                    let volume = Some(volume.name().to_owned());
                    report.freed.push(Freed { store: Store::SharedFiles, bytes, volume });
                }
                Err(error) if lacks_image(&error) => {}
                Err(error) => warn!(volume = volume.name(), %error, "a shared volume cannot be swept"),
            }
        }
    }

    /// Waits until no start is under way on the host: the engine works on few things at a time.
    async fn quiet(&self) {
        while self.host.state().slots.any_held() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// The engine's own time.
    async fn now(&self) -> Result<Timestamp, Error> {
        let about = call("asking for the engine's time", ANSWER, self.docker.info()).await?;
        let now = about.system_time.and_then(|time| time.parse().ok());
        now.ok_or_else(|| Error::no_capacity(Reason::EngineError, "the engine does not tell its time"))
    }

    /// How full the disk with the engine's data is, as a volume on it shows. None where no image is there that can tell.
    async fn space(&self) -> Option<Space> {
        for image in &self.agreed.images {
            let mount = Mount {
                typ: Some(MountType::VOLUME),
                target: Some(INSIDE.to_owned()),
                volume_options: Some(MountVolumeOptions {
                    no_copy: Some(true),
                    ..MountVolumeOptions::default()
                }),
                ..Mount::default()
            };
            let (script, arguments) = (r#"exec df -Pk "$1""#, vec![INSIDE.to_owned()]);
            let cluster = self.cluster;
            let helper = helper::Helper { cluster, image, script, arguments, mount, capabilities: &[] };
            match helper.run(self.docker).await {
                Ok(printed) => match Space::read(&printed) {
                    Some(space) => return Some(space),
                    None => {
                        warn!(image = image.reference, "its df cannot be read: the disk is not watched by it")
                    }
                },
                Err(error) if error.to_string().contains("no space left on device") => {
                    return Some(Space::FULL);
                }
                Err(error) if lacks_image(&error) => {}
                Err(error) => warn!(image = image.reference, %error, "the disk cannot be looked at"),
            }
        }
        None
    }
}

/// Whether an image is not on the host: it is not pulled for this.
fn lacks_image(error: &Error) -> bool {
    matches!(error, Error::NoCapacity(why) if why.reason == Reason::ImageMissing)
}

fn note(report: &mut Report, store: Store, pruned: Result<Pruned, Error>) {
    match pruned {
        Ok(Pruned { things: 0, bytes: 0 }) => {}
        Ok(Pruned { bytes, .. }) => report.freed.push(Freed { store, bytes, volume: None }),
        Err(error) => warn!(store = store.as_str(), %error, "housekeeping cannot clean up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_goes_first_and_what_is_not_wanted_is_left_out() {
        let hour = Duration::from_secs(3600);
        let all = Rules {
            builders: Some(hour),
            images: true,
            build_cache: Some(1),
            disk_guard: None,
            interval: hour,
        };
        let cache = UNUSED.map(Step::BuildCache);
        let expected = [&[Step::Images, Step::Builders(hour)], &cache[..], &[Step::SharedFiles]].concat();
        assert_eq!(steps(&all), expected);
        let no_images = Rules { images: false, build_cache: None, ..all };
        assert_eq!(steps(&no_images), [Step::Builders(hour), Step::SharedFiles]);
    }
}
