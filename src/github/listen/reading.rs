//! How far a session has been read.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::github::{Error, Message, ScaleSetService, Session};
use crate::runner::JobEvent;

/// Acknowledgements that are owed at most. Older ones are given up: a later session brings their messages back.
const MOST_OWED: usize = 100;

/// Offered jobs that wait to be acquired at most. What is left out is looked for later.
const MOST_OFFERED: usize = 10_000;

/// How far a session has been read, and what it still owes GitHub.
pub(super) struct Reading {
    pub session: Session,
    pub last_message_id: i64,
    /// Offered jobs that are to be acquired.
    pub offered: BTreeSet<i64>,
    /// Recorded messages that are to be acknowledged.
    pub recorded: BTreeSet<i64>,
    /// When jobs that are offered were last looked for.
    pub looked_for_offers: Option<Instant>,
    /// When statistics last came.
    pub counted: Instant,
    /// When the session last showed that it lives.
    pub alive: Instant,
    /// Answers in a row that came at once and brought nothing.
    pub hasty: u32,
}

impl Reading {
    pub fn new(session: Session) -> Self {
        Reading {
            session,
            last_message_id: 0,
            offered: BTreeSet::new(),
            recorded: BTreeSet::new(),
            looked_for_offers: None,
            counted: Instant::now(),
            alive: Instant::now(),
            hasty: 0,
        }
    }

    pub fn renewed(&mut self, session: Session) {
        self.session = session;
        self.counted = Instant::now();
        self.alive = Instant::now();
    }

    /// Notes what a recorded message leaves to do.
    pub fn take(&mut self, message: &Message) {
        self.last_message_id = self.last_message_id.max(message.id);
        self.recorded.insert(message.id);
        if self.recorded.len() > MOST_OWED {
            self.recorded.pop_first();
        }
        if message.statistics.is_some() {
            self.counted = Instant::now();
        }
        let offered = message.events.iter().filter_map(|event| match event {
            JobEvent::Available { request_id, .. } if *request_id > 0 => Some(*request_id),
            _ => None,
        });
        self.offered.extend(offered.take(MOST_OFFERED.saturating_sub(self.offered.len())));
    }

    pub async fn acquire(&mut self, service: &dyn ScaleSetService) -> Result<(), Error> {
        let ids: Vec<i64> = self.offered.iter().copied().collect();
        let granted = service.acquire(&self.session, &ids).await?;
        tracing::debug!(offered = ids.len(), granted = granted.len(), "jobs acquired");
        // What was not granted is another's by now.
        self.offered.clear();
        Ok(())
    }

    pub async fn acknowledge(&mut self, service: &dyn ScaleSetService) -> Result<(), Error> {
        while let Some(id) = self.recorded.first().copied() {
            service.acknowledge(&self.session, id).await?;
            self.recorded.remove(&id);
        }
        Ok(())
    }
}
