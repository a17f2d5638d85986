//! What one backend of a scale set has on a host: its engine, its image there, and how its last starts went.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tracing::debug;

use super::endpoint::Endpoint;
use super::engines::{Engines, Followed};
use super::housekeeping::{HelperImage, Opened, Volume, Wish, Wishing, not_ready};
use super::image::{Image, Wanted};
use super::membership::Membership;
use super::network::Network;
use super::slots::User;
use super::template::{DockerTemplate, HostSpec};
use super::view::Link;
use crate::api::{NETWORK_OF_SET, Reason};
use crate::backend::host_failure::HostFailure;
use crate::backend::{Availability, Error};
use crate::runner::Identity;

/// What a backend has on a host.
pub(super) struct HostBinding {
    pub(super) followed: Arc<Followed>,
    /// The runner's, and its private engine's if it is to have one.
    images: Vec<Arc<Image>>,
    /// Bounds how many of the backend's hosts pull at a time.
    pulls: Arc<Semaphore>,
    failure: HostFailure,
    pub(super) membership: Membership,
    /// What it wishes of the host's housekeeping. None where the spec names the host no more.
    pub(super) wishing: Option<Wishing>,
    /// What its scale set's runners share.
    pub(super) volume: Option<Volume>,
    network: Network,
    /// Whether its runners are on that network.
    on_network: bool,
    opened: Opened,
}

impl HostBinding {
    /// Binds a backend to a host, and follows its engine from now on at the latest. The error says why it cannot be one.
    pub(super) fn new(
        spec: &HostSpec,
        (backend, identity): (&str, &Identity),
        template: &DockerTemplate,
        engines: &Engines,
        pulls: &Arc<Semaphore>,
    ) -> Result<Self, String> {
        let endpoint = Endpoint::parse(&spec.endpoint)?;
        if let Some(why) = template.refusal() {
            return Err(why);
        }
        let logins = template.images.credentials.as_ref();
        let wanted = |image: &String| Wanted {
            reference: image.clone(),
            platform: template.images.platform.clone(),
            policy: template.images.policy,
            login: logins.and_then(|logins| logins.for_image(image)).cloned(),
        };
        let of_engine = template.has_private_engine().then_some(&template.images.engine);
        let followed = engines.engine(endpoint, &spec.login);
        let user = User {
            scale_set_uid: identity.scale_set_uid.clone(),
            backend: backend.to_owned(),
            siblings: Vec::new(),
            max_runners: spec.max_runners,
        };
        let helper = HelperImage {
            reference: template.images.runner.clone(),
            platform: template.images.platform.clone(),
        };
        let volume =
            template.shared_volume.as_ref().map(|shared| Volume::of(identity, shared.ttl, helper.clone()));
        let wish = |rules| Wish { rules, image: helper, volume: volume.clone() };
        let wish = template.housekeeping.clone().map(wish);
        Ok(HostBinding {
            wishing: wish.map(|wish| Wishing::new(followed.wishes(), wish)),
            volume,
            network: Network::of(identity),
            on_network: template.network.as_deref() == Some(NETWORK_OF_SET),
            opened: Opened::default(),
            images: [&template.images.runner]
                .into_iter()
                .chain(of_engine)
                .map(|i| followed.image(wanted(i)))
                .collect(),
            pulls: Arc::clone(pulls),
            failure: HostFailure::default(),
            membership: Membership::new(&followed.engine, user),
            followed,
        })
    }

    /// Whether the host takes starts, how many slots there are on it and how many are free, and why it takes none, in words.
    pub(super) fn state(&self) -> (Availability, (u32, u32), String) {
        let engine = &self.followed.engine;
        let state = engine.host.state();
        let Some(view) = engine.view_of(&state) else {
            return (Availability::Unreachable, (0, 0), String::new());
        };
        if let Link::Down { why, .. } = &view.link {
            return (Availability::Unreachable, (0, 0), why.clone());
        }
        let (all, free) = (self.membership.all(&state), self.membership.free(&state));
        let (availability, message) =
            self.failure.state(view.connections).unwrap_or_else(|| self.image_availability());
        let message = match (message.is_empty(), free) {
            (false, _) => message,
            (true, 0) => self.membership.full(&state),
            (true, _) => self.wishing.as_ref().map(Wishing::message).unwrap_or_default(),
        };
        (availability, (all, free), message)
    }

    /// Sees to it that the shared volume is there, if there is to be one.
    pub(super) async fn ready_volume(&self) -> Result<(), Error> {
        let Some(volume) = &self.volume else { return Ok(()) };
        let docker = self.followed.engine.client()?.docker;
        volume.ready(&docker, &self.opened).await.map_err(not_ready)
    }

    /// Removes the shared volume, if there is to be one.
    pub(super) async fn discard_volume(&self) -> Result<(), Error> {
        let Some(volume) = &self.volume else { return Ok(()) };
        volume.discard(&self.followed.engine.client()?.docker).await
    }

    /// Sees to it that the scale set's network is there, if its runners are to be on it, and returns its id.
    pub(super) async fn ready_network(&self) -> Result<Option<String>, Error> {
        match self.on_network {
            true => self.network.ready(&self.followed.engine).await.map(Some),
            false => Ok(None),
        }
    }

    /// Removes the scale set's network, if it is there. Where its runners are not on it, it may be there by an earlier policy: no
    /// deletion waits then for a host that does not tell.
    pub(super) async fn discard_network(&self) -> Result<(), Error> {
        match self.network.discard(&self.followed.engine).await {
            Err(error) if !self.on_network => {
                debug!(%error, "whether there is a network of the scale set is not known");
                Ok(())
            }
            discarded => discarded,
        }
    }

    /// What the host is for the first image that is not ready there, and why, in words.
    fn image_availability(&self) -> (Availability, String) {
        let all = self.images.iter().map(|image| image.readiness().state().availability());
        let unready = all.into_iter().find(|(availability, _)| *availability != Availability::Ready);
        unready.unwrap_or((Availability::Ready, String::new()))
    }

    /// Begins to make the images ready, unless that goes on, is done, or failed too recently.
    pub(super) fn prepare(&self) {
        self.images.iter().for_each(|image| image.prepare(&self.followed.engine, &self.pulls));
    }

    /// Makes sure before a start that moved tags are seen, where the policy asks for that.
    pub(super) async fn refresh(&self) -> Result<(), Error> {
        for image in &self.images {
            image.refresh(&self.followed.engine).await?;
        }
        Ok(())
    }

    /// Notes that a start succeeded: the host is well.
    pub(super) fn note_success(&self) {
        self.images.iter().for_each(|image| image.readiness().used());
        self.failure.clear();
    }

    /// Notes what the failure of a start says of the host.
    pub(super) fn note_failure(&self, error: &Error) {
        match error {
            Error::NoCapacity(why) => match why.reason {
                // Which one, only the engine's words say; each is looked for again.
                Reason::ImageMissing => self.images.iter().for_each(|i| i.readiness().missing(&why.message)),
                Reason::ImagePullFailed => {}
                reason => self.failure.lacks(reason, &why.message),
            },
            Error::Refused(message) => {
                let connection = self.followed.engine.look(|view| view.connections).unwrap_or_default();
                self.failure.refused(connection, message);
            }
            Error::Unreachable(_) | Error::Gone => self.followed.engine.suspect(),
        }
    }
}
