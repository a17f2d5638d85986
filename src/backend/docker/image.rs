//! Images on a host: pulled by policy, once for all who wait for the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::credentials::Login;
use super::engine::Engine;
use super::failure::{call, meaning};
use crate::api::{PullPolicy, Reason};
use crate::backend::Error;
use crate::backend::image::{ImageState, Readiness};

/// For an image's description.
const INSPECTION: Duration = Duration::from_secs(15);
/// The progress of a pull is told this often at most: each time writes the status of every scale set on the host.
const REPORT: Duration = Duration::from_secs(60);

/// What is wanted of an image. Who want the same share its pulls and its back-off.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) reference: String,
    pub(super) platform: Option<String>,
    pub(super) policy: PullPolicy,
    pub(super) login: Option<Login>,
}

/// An image on one engine.
#[derive(Debug)]
pub(super) struct Image {
    wanted: Wanted,
    readiness: Readiness,
}

impl Image {
    pub(super) fn new(wanted: Wanted) -> Self {
        Image { readiness: Readiness::new(&wanted.reference), wanted }
    }

    /// What is known of it.
    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Begins to make it ready, unless that goes on, is done, or failed too recently. A pull takes one of `pulls`.
    pub(super) fn prepare(self: &Arc<Self>, engine: &Arc<Engine>, pulls: &Arc<Semaphore>) {
        self.begin(engine, Some(pulls), ImageState::may_begin);
    }

    /// Makes sure before a start that a moved tag is seen, where the policy asks for that. Who comes while a pull is
    /// under way waits for that one.
    pub(super) async fn refresh(self: &Arc<Self>, engine: &Arc<Engine>) -> Result<(), Error> {
        if self.wanted.policy != PullPolicy::Always {
            return Ok(());
        }
        self.begin(engine, None, |state| *state == ImageState::Ready || state.may_begin());
        self.readiness.settled().await
    }

    fn begin(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        pulls: Option<&Arc<Semaphore>>,
        may: impl Fn(&ImageState) -> bool,
    ) {
        if self.readiness.begin(may) {
            let (image, engine, pulls) = (Arc::clone(self), Arc::clone(engine), pulls.cloned());
            tokio::spawn(async move {
                let result = image.ensure(&engine, pulls.as_deref()).await;
                image.readiness.settle(result);
                engine.host.requeue_all();
            });
        }
    }

    async fn ensure(&self, engine: &Engine, pulls: Option<&Semaphore>) -> Result<(), Error> {
        let docker = engine.client()?.docker;
        let Wanted { reference, policy, .. } = &self.wanted;
        match policy {
            PullPolicy::Always => self.pull_in_turn(engine, &docker, pulls).await,
            PullPolicy::IfNotPresent if self.present(&docker).await? => Ok(()),
            PullPolicy::IfNotPresent => self.pull_in_turn(engine, &docker, pulls).await,
            PullPolicy::Never if self.present(&docker).await? => Ok(()),
            PullPolicy::Never => Err(Error::no_capacity(
                Reason::ImageMissing,
                format!("image {reference} is not on the host, and pullPolicy is Never"),
            )),
        }
    }

    async fn present(&self, docker: &Docker) -> Result<bool, Error> {
        match call("an image's description", INSPECTION, docker.inspect_image(&self.wanted.reference)).await {
            Ok(image) => Ok(self.wanted.platform.as_deref().is_none_or(|platform| is_for(&image, platform))),
            Err(Error::NoCapacity(why)) if why.reason == Reason::ImageMissing => Ok(false),
            Err(Error::Unreachable(why)) => Err(Error::Unreachable(why)),
            Err(error) => Err(Error::no_capacity(
                Reason::ImageMissing,
                format!("image {}: {error}", self.wanted.reference),
            )),
        }
    }

    /// Pulls it, unless somebody else just did. With `Always` it is pulled all the same: then it is for the registry to say
    /// whether these credentials may have it, and of the image only what is new is sent.
    async fn pull_in_turn(
        &self,
        engine: &Engine,
        docker: &Docker,
        pulls: Option<&Semaphore>,
    ) -> Result<(), Error> {
        let Wanted { reference, policy, .. } = &self.wanted;
        self.readiness.tell(&format!("image {reference} is pulled on other hosts first"));
        // The semaphore is never closed. Who has the turn here never waits for this: it comes first.
        let _one_of_few = match pulls {
            Some(pulls) => pulls.acquire().await.ok(),
            None => None,
        };
        self.readiness.tell(&format!("waiting for another pull of image {reference}"));
        let turn = engine.host.pull_turn(reference);
        let _turn = turn.lock().await;
        if *policy == PullPolicy::IfNotPresent && self.present(docker).await? {
            return Ok(());
        }
        self.pull(engine, docker).await
    }

    async fn pull(&self, engine: &Engine, docker: &Docker) -> Result<(), Error> {
        let Wanted { reference, platform, login, .. } = &self.wanted;
        info!(image = reference, endpoint = %engine.endpoint, "pulling image");
        let begun = Instant::now();
        self.pull_through(engine, docker, &pull_options(reference, platform.as_deref()), login.as_ref())
            .await
            .map_err(|error| match error {
                Error::Unreachable(why) => Error::Unreachable(why),
                error => Error::no_capacity(
                    Reason::ImagePullFailed,
                    format!(
                        "image {reference} cannot be pulled: {error}{}",
                        about_login(&error, login.is_some())
                    ),
                ),
            })?;
        let seconds = begun.elapsed().as_secs_f64();
        info!(image = reference, endpoint = %engine.endpoint, seconds, "image pulled");
        Ok(())
    }

    async fn pull_through(
        &self,
        engine: &Engine,
        docker: &Docker,
        options: &bollard::query_parameters::CreateImageOptions,
        login: Option<&Login>,
    ) -> Result<(), Error> {
        let login = login.map(Login::credentials);
        let mut lines = std::pin::pin!(docker.create_image(Some(options.clone()), None, login));
        let pulling = format!("pulling image {}", self.wanted.reference);
        self.readiness.tell(&pulling);
        let (mut progress, mut report) = (Progress::default(), Report::at(Instant::now()));
        let stalled = engine.patience.stalled;
        let silent = |_| {
            let why = format!("nothing was heard of the pull for {} s", stalled.as_secs());
            Error::no_capacity(Reason::ImagePullFailed, why)
        };
        while let Some(line) = tokio::time::timeout(stalled, lines.next()).await.map_err(silent)? {
            progress.add(line.map_err(|error| meaning(&error))?);
            if report.is_due(&progress, Instant::now()) {
                let message = format!("{pulling}{progress}");
                debug!(endpoint = %engine.endpoint, message);
                self.readiness.tell(&message);
                engine.host.requeue_all();
            }
        }
        Ok(())
    }
}

/// What a registry that wants a login, or another one, is to be told by.
fn about_login(error: &Error, given: bool) -> &'static str {
    const WORDS: [&str; 4] =
        ["unauthorized", "no basic auth credentials", "authentication required", "denied"];
    let error = error.to_string().to_ascii_lowercase();
    match (WORDS.iter().any(|words| error.contains(words)), given) {
        (false, _) => "",
        (true, true) => " (the registry does not accept the login in imagePullSecretRef for this image)",
        (true, false) => " (imagePullSecretRef gives no login for this registry)",
    }
}

/// A name without a tag stands for `latest`, as in `docker run`; older engines would fetch all tags of it.
fn pull_options(reference: &str, platform: Option<&str>) -> bollard::query_parameters::CreateImageOptions {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    let named = if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") };
    let options = CreateImageOptionsBuilder::new().from_image(&named);
    platform.into_iter().fold(options, |options, platform| options.platform(platform)).build()
}

/// Whether an image is for a platform, `os/architecture[/variant]`.
fn is_for(image: &ImageInspect, platform: &str) -> bool {
    let mut parts = platform.split('/');
    let is =
        |part: Option<&str>, field: &Option<String>| part.is_none_or(|part| field.as_deref() == Some(part));
    is(parts.next(), &image.os) && is(parts.next(), &image.architecture) && is(parts.next(), &image.variant)
}

/// How far a pull is, over the layers that the engine named so far.
#[derive(Debug, Default)]
struct Progress(HashMap<String, (i64, i64)>);

impl Progress {
    fn add(&mut self, line: CreateImageInfo) {
        let Some(layer) = line.id else { return };
        let detail = line.progress_detail.unwrap_or_default();
        match (line.status.as_deref(), detail.current, detail.total) {
            (Some("Downloading"), Some(current), Some(total)) => {
                self.0.insert(layer, (current, total));
            }
            (Some("Download complete" | "Pull complete"), ..) => {
                self.0.entry(layer).and_modify(|(current, total)| *current = *total);
            }
            _ => {}
        }
    }
}

impl Progress {
    /// Whole tenths of what is to be pulled, and all of it in bytes; none before any of it is known.
    fn tenths(&self) -> Option<(i64, i64)> {
        let current: i64 = self.0.values().map(|(current, _)| current).sum();
        let total: i64 = self.0.values().map(|(_, total)| total).sum();
        (total > 0).then(|| (current.saturating_mul(10) / total, total))
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((tenths, total)) = self.tenths() else { return Ok(()) };
        write!(f, ": {} % of {} MB", tenths * 10, total / 1_000_000)
    }
}

/// When the progress of a pull was last told, and how far it was.
#[derive(Debug)]
struct Report {
    told_at: Instant,
    tenths: i64,
}

impl Report {
    fn at(now: Instant) -> Report {
        Report { told_at: now, tenths: 0 }
    }

    /// Whether there is news to be told now: another tenth, and not too soon after the one before.
    fn is_due(&mut self, progress: &Progress, now: Instant) -> bool {
        let Some((tenths, _)) = progress.tenths() else { return false };
        let due = tenths != self.tenths && now.saturating_duration_since(self.told_at) >= REPORT;
        if due {
            *self = Report { told_at: now, tenths };
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    fn line(layer: &str, status: &str, current: Option<i64>, total: Option<i64>) -> CreateImageInfo {
        let progress_detail = Some(ProgressDetail { current, total });
        let (id, status) = (Some(layer.to_owned()), Some(status.to_owned()));
        CreateImageInfo { id, status, progress_detail, ..CreateImageInfo::default() }
    }

    /// A pull of 100 MB in 1000 s, with a line of progress each second.
    #[test]
    fn progress_is_told_in_whole_tenths_and_once_a_minute_at_most() {
        let begun = Instant::now();
        let (mut progress, mut report, mut told) = (Progress::default(), Report::at(begun), Vec::new());
        for second in 0..=1000u32 {
            progress.add(line("a", "Downloading", Some(i64::from(second) * 100_000), Some(100_000_000)));
            if report.is_due(&progress, begun + Duration::from_secs(second.into())) {
                told.push((second, progress.to_string()));
            }
        }
        let seconds: Vec<u32> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(seconds, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
        assert_eq!(told[3].1, ": 40 % of 100 MB");

        let mut report = Report::at(begun);
        let mut told = Vec::new();
        for second in 0..=100u32 {
            progress.add(line("a", "Downloading", Some(i64::from(second) * 1_000_000), Some(100_000_000)));
            if report.is_due(&progress, begun + Duration::from_secs(second.into())) {
                told.push(second);
            }
        }
        assert_eq!(told, [60], "a fast one");
    }

    #[test]
    fn progress_is_over_all_layers() {
        let mut progress = Progress::default();
        let mut line = |layer: &str, status: &str, current: Option<i64>, total: Option<i64>| {
            progress.add(line(layer, status, current, total));
            progress.to_string()
        };
        assert_eq!(line("a", "Pulling fs layer", None, None), "");
        assert_eq!(line("a", "Downloading", Some(50_000_000), Some(200_000_000)), ": 20 % of 200 MB");
        assert_eq!(line("b", "Downloading", Some(100_000_000), Some(100_000_000)), ": 50 % of 300 MB");
        assert_eq!(line("a", "Download complete", None, None), ": 100 % of 300 MB");
    }

    #[test]
    fn a_name_without_a_tag_stands_for_latest() {
        for (reference, pulled) in [
            ("runner", "runner:latest"),
            ("127.0.0.1:5000/runner", "127.0.0.1:5000/runner:latest"),
            ("runner:1", "runner:1"),
            ("ghcr.io/acme/runner@sha256:00", "ghcr.io/acme/runner@sha256:00"),
        ] {
            assert_eq!(pull_options(reference, None).from_image.as_deref(), Some(pulled));
        }
    }

    #[test]
    fn a_platform_names_as_much_as_it_names() {
        let text = |text: &str| Some(text.to_owned());
        let image = ImageInspect {
            os: text("linux"),
            architecture: text("arm64"),
            variant: text("v8"),
            ..ImageInspect::default()
        };
        for (platform, expected) in
            [("linux", true), ("linux/arm64", true), ("linux/arm64/v8", true), ("linux/amd64", false)]
        {
            assert_eq!(is_for(&image, platform), expected, "{platform}");
        }
    }
}
