//! All ECS clusters of one process: each account and each cluster is known once, however many scale sets use it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio_util::task::AbortOnDropHandle;

use super::account::{Access, Account, Credentials};
use super::cluster::{Cluster, Timing};
use super::endpoint;
use super::watch::watch;
use crate::backend::{HostKey, Requeuer};

/// All ECS clusters of one process.
#[derive(Debug)]
pub(super) struct Clusters {
    owner: String,
    requeuer: Requeuer,
    timing: Timing,
    accounts: Mutex<HashMap<Access, Weak<Account>>>,
    watched: Mutex<HashMap<(Access, String), Weak<Watched>>>,
}

/// A cluster that is looked at until nobody uses it any more.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) cluster: Arc<Cluster>,
    _watch: Option<AbortOnDropHandle<std::convert::Infallible>>,
}

impl Clusters {
    /// Knows no cluster yet. `owner` is the id of the Kubernetes cluster.
    pub(super) fn new(owner: &str, requeuer: Requeuer, timing: Timing) -> Clusters {
        let owner = owner.to_owned();
        Clusters { owner, requeuer, timing, accounts: Mutex::default(), watched: Mutex::default() }
    }

    /// A cluster, looked at from now on at the latest. Must be called within a Tokio runtime.
    pub(super) fn cluster(&self, access: &Access, name: &str) -> Arc<Watched> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|_, cluster| cluster.strong_count() > 0);
        let key = (access.clone(), endpoint::short_name(name).to_owned());
        if let Some(cluster) = watched.get(&key).and_then(Weak::upgrade) {
            return cluster;
        }
        let account = self.account(access);
        let cluster = Cluster::new(name, account, &self.owner, self.requeuer.clone(), self.timing);
        let cluster = Arc::new(cluster);
        let readable = access.credentials != Credentials::Unread;
        let watch = readable.then(|| AbortOnDropHandle::new(tokio::spawn(watch(Arc::clone(&cluster)))));
        let known = Arc::new(Watched { cluster, _watch: watch });
        watched.insert(key, Arc::downgrade(&known));
        known
    }

    /// The clusters that are known, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Watched>> {
        let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.values().filter_map(Weak::upgrade).collect()
    }

    /// The clusters that are known by a key: more than one where several credentials reach it, or where accounts have clusters
    /// of one name.
    pub(super) fn of_key(&self, key: &HostKey) -> Vec<Arc<Watched>> {
        let mut known = self.all();
        known.retain(|watched| watched.key() == *key);
        known
    }

    fn account(&self, access: &Access) -> Arc<Account> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        accounts.retain(|_, account| account.strong_count() > 0);
        if let Some(account) = accounts.get(access).and_then(Weak::upgrade) {
            return account;
        }
        let account = Arc::new(Account::new(access.clone()));
        accounts.insert(access.clone(), Arc::downgrade(&account));
        account
    }
}

impl Watched {
    /// The key of the cluster.
    pub(super) fn key(&self) -> HostKey {
        endpoint::key(&self.cluster.account.access.region, &self.cluster.name)
    }
}
