//! How far a session has been read.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::github::{Error, Message, ScaleSetService, Session};
use crate::runner::{JobEvent, Statistics};

/// Acknowledgements that are owed at most. Older ones are given up: a later session brings their messages back.
const MOST_OWED: usize = 100;

/// Offered jobs that are remembered at most. When those are acquired, GitHub is asked for the others.
const MOST_OFFERED: usize = 1_000;

/// GitHub counts a job as assigned at the latest so long after it was granted, or the message of that is lost.
const GRANTED_COUNT: Duration = Duration::from_secs(60);

/// How far a session has been read, and what it still owes GitHub.
pub(super) struct SessionCursor {
    pub session: Session,
    pub last_message_id: i64,
    /// Offered jobs that are to be acquired.
    pub offered: BTreeSet<i64>,
    /// Jobs assigned to the set, by GitHub's last count.
    assigned: u32,
    /// The last count had nothing at all, and was left aside: it is believed the second time.
    doubted: bool,
    /// Jobs that were granted and that the last count does not have yet.
    granted: u32,
    /// When a job was last granted.
    granted_at: Instant,
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

impl SessionCursor {
    pub fn new(session: Session) -> Self {
        let mut cursor = SessionCursor {
            session,
            last_message_id: 0,
            offered: BTreeSet::new(),
            assigned: 0,
            doubted: false,
            granted: 0,
            granted_at: Instant::now(),
            recorded: BTreeSet::new(),
            looked_for_offers: None,
            counted: Instant::now(),
            alive: Instant::now(),
            hasty: 0,
        };
        cursor.count_anew();
        cursor
    }

    /// Takes over the counts that came with the session.
    fn count_anew(&mut self) {
        if let Some(statistics) = self.session.statistics
            && self.count(statistics)
        {
            self.granted = statistics.acquired;
        }
    }

    /// Takes over GitHub's counts; answers whether they are believed. GitHub has been seen to answer nothing but zeros
    /// while jobs were assigned.
    fn count(&mut self, statistics: Statistics) -> bool {
        self.doubted = statistics == Statistics::default() && self.assigned > 0 && !self.doubted;
        if !self.doubted {
            self.assigned = statistics.assigned;
        }
        !self.doubted
    }

    pub fn renewed(&mut self, session: Session) {
        self.session = session;
        self.count_anew();
        self.counted = Instant::now();
        self.alive = Instant::now();
    }

    /// Notes what a recorded message leaves to do.
    pub fn take(&mut self, message: &Message) {
        let news = message.id > self.last_message_id;
        if news {
            let assigned = |e: &&JobEvent| matches!(e, JobEvent::Assigned { .. });
            let assigned = message.events.iter().filter(assigned).count();
            self.granted = self.granted.saturating_sub(u32::try_from(assigned).unwrap_or(u32::MAX));
        }
        self.last_message_id = self.last_message_id.max(message.id);
        self.recorded.insert(message.id);
        if self.recorded.len() > MOST_OWED {
            self.recorded.pop_first();
        }
        // What comes again confirms nothing.
        if let Some(statistics) = message.statistics.filter(|_| news) {
            self.count(statistics);
            self.counted = Instant::now();
        }
        self.offered.extend(message.events.iter().filter_map(|event| match event {
            JobEvent::Available { request_id, .. } if *request_id > 0 => Some(*request_id),
            _ => None,
        }));
        self.bound_offered();
    }

    /// Notes offered jobs that no message told of.
    pub fn offer(&mut self, request_ids: impl IntoIterator<Item = i64>) {
        self.offered.extend(request_ids);
        self.bound_offered();
    }

    fn bound_offered(&mut self) {
        while self.offered.len() > MOST_OFFERED {
            self.offered.pop_last();
        }
    }

    /// Acquires offered jobs, oldest first, until `capacity` jobs are in hand.
    pub async fn acquire(&mut self, service: &dyn ScaleSetService, capacity: u32) -> Result<(), Error> {
        if self.granted_at.elapsed() > GRANTED_COUNT {
            self.granted = 0;
        }
        loop {
            let room = capacity.saturating_sub(self.assigned.saturating_add(self.granted));
            let ids: Vec<i64> = self.offered.iter().copied().take(room as usize).collect();
            if ids.is_empty() {
                return Ok(());
            }
            let granted = service.acquire(&self.session, &ids).await?;
            tracing::debug!(asked = ids.len(), granted = granted.len(), "jobs acquired");
            self.granted_at = Instant::now();
            self.granted = self.granted.saturating_add(u32::try_from(granted.len()).unwrap_or(u32::MAX));
            // What was not granted is another's by now.
            self.offered.retain(|id| !ids.contains(id));
        }
    }

    pub async fn acknowledge(&mut self, service: &dyn ScaleSetService) -> Result<(), Error> {
        while let Some(id) = self.recorded.first().copied() {
            service.acknowledge(&self.session, id).await?;
            self.recorded.remove(&id);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(id: i64, statistics: Statistics) -> Message {
        Message { id, statistics: Some(statistics), events: Vec::new(), unreadable: 0 }
    }

    #[test]
    fn a_message_that_comes_again_does_not_confirm_a_count_of_nothing_at_all() {
        let session = Session {
            id: String::new(),
            scale_set_id: 1,
            owner: String::new(),
            queue_url: String::new(),
            queue_token: String::new(),
            statistics: None,
        };
        let mut cursor = SessionCursor::new(session);
        cursor.take(&message(1, Statistics { assigned: 2, ..Statistics::default() }));
        cursor.take(&message(2, Statistics::default()));
        cursor.take(&message(2, Statistics::default()));
        assert_eq!(cursor.assigned, 2);
        cursor.take(&message(3, Statistics::default()));
        assert_eq!(cursor.assigned, 0, "the next does");
    }
}
