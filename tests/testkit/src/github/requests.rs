//! The log of requests: who asked what, when, and with what answer.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

use super::route::Endpoint;

/// The log keeps this many requests; older ones are forgotten.
const KEPT: usize = 100_000;

/// One request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Counts up from 0.
    pub number: u64,
    /// When it arrived.
    pub at: Timestamp,
    /// What it was for.
    pub endpoint: Endpoint,
    /// The HTTP method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The query, as it came.
    pub query: Option<String>,
    /// The number of the scale set that its path names.
    pub scale_set: Option<i64>,
    /// It has arrived, and is neither answered nor given up by its client.
    pub held: bool,
    /// The status of the answer; none while it is held, and when there was none.
    pub status: Option<u16>,
    /// The header of this name.
    pub user_agent: Option<String>,
    /// The header `X-ScaleSetMaxCapacity`.
    pub capacity: Option<i64>,
    /// The body, as it came.
    pub body: String,
}

/// Requests in the order of arrival, without those of the control API.
#[derive(Debug, Default)]
pub struct RequestLog {
    kept: VecDeque<Request>,
    next: u64,
}

impl RequestLog {
    /// Every request kept.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Request> {
        self.kept.iter()
    }

    /// The requests to one endpoint.
    pub fn to(&self, endpoint: Endpoint) -> impl DoubleEndedIterator<Item = &Request> {
        self.kept.iter().filter(move |r| r.endpoint == endpoint)
    }

    /// How many there were to one endpoint.
    pub fn count(&self, endpoint: Endpoint) -> usize {
        self.to(endpoint).count()
    }

    /// How many clients of GitHub sent in all: not those of runners.
    pub fn total(&self) -> usize {
        self.kept.iter().filter(|r| r.endpoint != Endpoint::Runner).count()
    }

    /// How many polls are held now.
    pub fn polls_held(&self) -> usize {
        self.to(Endpoint::Poll).filter(|r| r.held).count()
    }

    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Logs the arrival of a request; gives its number.
    pub(super) fn begin(&mut self, mut request: Request) -> u64 {
        let number = self.next;
        self.next += 1;
        request.number = number;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(request);
        number
    }

    /// Logs its end.
    pub(super) fn end(&mut self, number: u64, status: Option<u16>) {
        let first = self.kept.front().map_or(number, |r| r.number);
        let index = number.checked_sub(first).and_then(|i| usize::try_from(i).ok());
        if let Some(request) = index.and_then(|i| self.kept.get_mut(i)) {
            request.held = false;
            request.status = status;
        }
    }
}
