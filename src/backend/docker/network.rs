//! The network that is a scale set's alone on an engine: made at the first start there, removed with its set.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{self, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;

use super::destroy::{REMOVE, unless_gone};
use super::engine::Engine;
use super::failure::{ANSWER, CREATE, call};
use super::owned::Owned;
use crate::api::Reason;
use crate::backend::Error;
use crate::runner::Identity;

/// The network of one scale set on an engine.
#[derive(Debug)]
pub(super) struct Network(Owned);

impl Network {
    pub(super) fn of(owner: &Identity) -> Network {
        Network(Owned::by(owner))
    }

    /// Sees to it that it is there. Returns its id, as an engine may have several networks of a name.
    pub(super) async fn ready(&self, engine: &Engine) -> Result<String, Error> {
        let docker = engine.client()?.docker;
        // Nothing in the engine keeps two starts from making one each.
        let _turn = engine.host.networks.lock().await;
        let found = self.namesakes(&docker).await?;
        let anothers = !found.is_empty();
        if let Some(id) = self.own(found).next() {
            return Ok(id);
        }
        let Owned { name, labels } = &self.0;
        if anothers {
            let why = format!("network {name} is there and not this scale set's");
            return Err(Error::no_capacity(Reason::NetworkMissing, why));
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        Ok(call("making a network", CREATE, docker.create_network(request)).await?.id)
    }

    /// Removes it, if it is there.
    pub(super) async fn discard(&self, engine: &Engine) -> Result<(), Error> {
        let docker = engine.client()?.docker;
        let found = self.namesakes(&docker).await?;
        for id in self.own(found) {
            call("removing a network", REMOVE, unless_gone(docker.remove_network(&id))).await?;
        }
        Ok(())
    }

    /// The networks of its name, whosever they are.
    async fn namesakes(&self, docker: &Docker) -> Result<Vec<models::Network>, Error> {
        let name = self.0.name.as_str();
        // An engine takes it for a pattern.
        let filters = HashMap::from([("name", vec![name])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let mut found = call("a listing of networks", ANSWER, docker.list_networks(Some(options))).await?;
        found.retain(|network| network.name.as_deref() == Some(name));
        Ok(found)
    }

    /// The ids of those that are its set's.
    fn own(&self, found: Vec<models::Network>) -> impl Iterator<Item = String> {
        let own = found
            .into_iter()
            .filter(|network| network.labels.as_ref().is_some_and(|labels| self.0.is(labels)));
        own.filter_map(|network| network.id)
    }
}
