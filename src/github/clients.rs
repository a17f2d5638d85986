//! One client for all sets of the same URL, credential and network: they share its admin token and its connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Client, ClientConfig, Deadlines, Error, ScaleSetService};

/// The clients in use. One that nobody holds any more goes away.
#[derive(Default)]
pub struct Clients {
    deadlines: Deadlines,
    /// Keyed by content; the key, which holds the credential, goes with the client.
    shared: Mutex<HashMap<ClientConfig, Weak<Client>>>,
}

impl Clients {
    /// Clients whose calls end within `deadlines`.
    pub fn new(deadlines: Deadlines) -> Self {
        Clients { deadlines, shared: Mutex::default() }
    }

    /// The client for this configuration: the one in use, or a new one. No request is made.
    ///
    /// # Errors
    /// [`Error::Config`] for a URL, key, proxy or CA bundle that cannot be used.
    pub fn get(&self, config: &ClientConfig) -> Result<Arc<dyn ScaleSetService>, Error> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|_, client| client.strong_count() > 0);
        if let Some(client) = shared.get(config).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(Client::new(config, self.deadlines)?);
        shared.insert(config.clone(), Arc::downgrade(&client));
        Ok(client)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}
