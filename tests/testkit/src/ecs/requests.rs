//! The log of requests: who asked what, when, and with what answer.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::operation::Operation;

/// The log keeps this many requests; older ones are forgotten.
const KEPT: usize = 100_000;

/// One request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Counts up from 0.
    pub number: u64,
    /// When the request arrived.
    pub at: Timestamp,
    /// The operation asked for.
    pub operation: Operation,
    /// The members of the request; null for STS.
    pub body: Value,
    /// The access key that signed the request.
    pub access_key: Option<String>,
    /// The header of this name.
    pub user_agent: Option<String>,
    /// The request has arrived, and is neither answered nor given up by its client.
    pub held: bool,
    /// The status of the answer; none while it is held, and when there was none.
    pub status: Option<u16>,
    /// The exception that it was answered with.
    pub exception: Option<String>,
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

    /// The requests of one operation.
    pub fn to(&self, operation: Operation) -> impl DoubleEndedIterator<Item = &Request> {
        self.kept.iter().filter(move |r| r.operation == operation)
    }

    /// How many requests there were of one operation.
    pub fn count(&self, operation: Operation) -> usize {
        self.to(operation).count()
    }

    /// How many requests were answered with this exception.
    pub fn refused_with(&self, exception: &str) -> usize {
        self.kept.iter().filter(|r| r.exception.as_deref() == Some(exception)).count()
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

    /// Logs the end of a request.
    pub(super) fn end(&mut self, number: u64, status: Option<u16>, exception: Option<String>) {
        let first = self.kept.front().map_or(number, |r| r.number);
        let index = number.checked_sub(first).and_then(|i| usize::try_from(i).ok());
        if let Some(request) = index.and_then(|i| self.kept.get_mut(i)) {
            request.held = false;
            request.status = status;
            request.exception = exception;
        }
    }
}
