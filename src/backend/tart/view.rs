//! What is known of one Mac by one way of reaching it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tokio::time::Instant;

use super::index::Index;
use crate::backend::Error;

/// What is known of one Mac by one way of reaching it.
#[derive(Debug)]
pub(super) struct View {
    /// `TART_HOME`, empty for Tart's own default: VMs of one name in two of them are two.
    pub(super) home: String,
    pub(super) index: Index,
    /// What a VM can be cloned from.
    pub(super) images: BTreeSet<String>,
    /// Why it does not answer; none while it does.
    pub(super) down: Option<String>,
    /// Since when it has not answered; none while it does.
    pub(super) down_since: Option<Instant>,
    /// When it last answered a whole listing.
    pub(super) listed_at: Option<Timestamp>,
    /// Connections so far: what a host refused is tried again when it comes back, maybe changed.
    pub(super) connections: u64,
}

impl View {
    pub(super) fn new(home: &str) -> View {
        View {
            home: home.to_owned(),
            index: Index::default(),
            images: BTreeSet::new(),
            down: Some("not connected yet".to_owned()),
            down_since: Some(Instant::now()),
            listed_at: None,
            connections: 0,
        }
    }

    /// Whether the host answers.
    pub(super) fn answers(&self) -> Result<(), Error> {
        self.down.as_ref().map_or(Ok(()), |why| Err(Error::Unreachable(why.clone())))
    }
}
