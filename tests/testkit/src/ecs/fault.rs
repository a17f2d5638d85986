//! Faults on request: what one operation does instead of, or after, its work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operation::Operation;
use super::refusal::reported;
use super::wire::Refusal;

/// Reasons of `failures` that AWS documents, and the two that Fargate gives as a sentence.
pub mod reason {
    /// No CPU units left on the instance.
    pub const CPU: &str = "RESOURCE:CPU";
    /// No memory left on the instance.
    pub const MEMORY: &str = "RESOURCE:MEMORY";
    /// A host port is taken.
    pub const PORTS: &str = "RESOURCE:PORTS";
    /// No network interface can be attached to the instance any more.
    pub const ENI: &str = "RESOURCE:ENI";
    /// No GPU left on the instance.
    pub const GPU: &str = "RESOURCE:GPU";
    /// The instance's agent is disconnected.
    pub const AGENT: &str = "AGENT";
    /// The instance lacks an attribute that the task definition needs.
    pub const ATTRIBUTE: &str = "ATTRIBUTE";
    /// The instance is in another availability zone than the subnet.
    pub const LOCATION: &str = "LOCATION";
    /// The capacity provider has no instance in the cluster.
    pub const EMPTY_CAPACITY_PROVIDER: &str = "EMPTY CAPACITY PROVIDER";
    /// No instance of the cluster is active.
    pub const NO_ACTIVE_INSTANCES: &str = "NO ACTIVE INSTANCES";
    /// The resource was not found.
    pub const MISSING: &str = "MISSING";
    /// The instance was deregistered.
    pub const INACTIVE: &str = "INACTIVE";
    /// Fargate has no room.
    pub const FARGATE_CAPACITY: &str =
        "Capacity is unavailable at this time. Please try again later or in a different availability zone";
    /// The account's quota on Fargate is reached.
    pub const FARGATE_QUOTA: &str =
        "You've reached the limit on the number of vCPUs you can run concurrently";

    /// Each of them.
    pub const ALL: [&str; 14] = [
        CPU,
        MEMORY,
        PORTS,
        ENI,
        GPU,
        AGENT,
        ATTRIBUTE,
        LOCATION,
        EMPTY_CAPACITY_PROVIDER,
        NO_ACTIVE_INSTANCES,
        MISSING,
        INACTIVE,
        FARGATE_CAPACITY,
        FARGATE_QUOTA,
    ];
}

/// One fault: where, how often, what. It stays until it is cleared, unless [`Fault::times`] says how often.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The operation that misbehaves.
    pub operation: Operation,
    /// How often the fault strikes yet; none: until cleared.
    #[serde(default)]
    pub remaining: Option<u32>,
    /// What happens.
    pub effect: Effect,
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// This exception, instead of the work.
    Exception {
        /// The HTTP status.
        status: u16,
        /// The exception's name.
        code: String,
        /// The exception's text.
        message: String,
        /// Written as the service's front door writes it: with a namespace and a capital `Message`.
        #[serde(default)]
        at_front_door: bool,
    },
    /// This body with this status, instead of the work: what a proxy says, for one.
    Body {
        /// The HTTP status.
        status: u16,
        /// The body, as it goes out.
        body: String,
    },
    /// No answer for this long, then the connection closes. The work is not done.
    Hang {
        /// Milliseconds.
        ms: u64,
    },
    /// The connection closes without a byte. The work is not done.
    Refuse,
    /// The work is done this much later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// The work is done, and the connection closes without a byte of the answer.
    LoseAnswer,
    /// The work is done, and the connection closes in the middle of the answer.
    CutAnswer,
    /// RunTask places so many tasks fewer (all, when no number is given), with a failure for each. DescribeTasks gives a
    /// failure for so many tasks, though they exist.
    Failures {
        /// The failure's reason.
        reason: String,
        /// The failure's detail.
        #[serde(default)]
        detail: Option<String>,
        /// How many tasks; none: all.
        #[serde(default)]
        count: Option<usize>,
    },
    /// RunTask accepts its tasks, and they fail in PENDING with `TaskFailedToStart` and this reason.
    FailToStart {
        /// The stopped reason.
        reason: String,
    },
}

impl Effect {
    /// Whether the effect comes before or instead of the work.
    pub(super) fn is_before(&self) -> bool {
        !self.is_within() && !self.is_after()
    }

    /// Whether the effect changes how the work is done.
    pub(super) fn is_within(&self) -> bool {
        matches!(self, Self::Failures { .. } | Self::FailToStart { .. })
    }

    /// Whether the effect spoils the answer after the work.
    pub(super) fn is_after(&self) -> bool {
        matches!(self, Self::LoseAnswer | Self::CutAnswer)
    }
}

impl From<Refusal> for Effect {
    fn from(refusal: Refusal) -> Self {
        Self::Exception {
            status: refusal.status.as_u16(),
            code: refusal.code,
            message: refusal.message,
            at_front_door: refusal.at_front_door,
        }
    }
}

impl Fault {
    /// A fault with any effect, until cleared.
    pub fn new(operation: Operation, effect: Effect) -> Self {
        Self { operation, remaining: None, effect }
    }

    /// An exception of this name and text, with status 400.
    pub fn exception(operation: Operation, code: &str, message: &str) -> Self {
        Self::new(operation, Refusal::new(code, message).into())
    }

    /// `ServerException`, with status 500.
    pub fn server_error(operation: Operation) -> Self {
        let effect = Effect::Exception {
            status: 500,
            code: "ServerException".to_owned(),
            message: "Service Unavailable. Please try again later.".to_owned(),
            at_front_door: false,
        };
        Self::new(operation, effect)
    }

    /// `ThrottlingException`.
    pub fn throttled(operation: Operation) -> Self {
        Self::new(operation, reported::throttled().into())
    }

    /// A throttle of EC2 that ECS passes on as `InvalidParameterException`: only the text tells it from a bad subnet.
    pub fn throttled_by_ec2(operation: Operation) -> Self {
        let message =
            "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)";
        Self::exception(operation, "InvalidParameterException", message)
    }

    /// `AccessDeniedException`, as IAM words it.
    pub fn access_denied(operation: Operation) -> Self {
        let action = format!("{}:{operation}", operation.service());
        Self::new(
            operation,
            reported::access_denied("arn:aws:iam::123456789012:user/simulated", &action).into(),
        )
    }

    /// `UnrecognizedClientException`.
    pub fn unrecognized_client(operation: Operation) -> Self {
        Self::new(operation, reported::unknown_key().into())
    }

    /// `ExpiredTokenException`.
    pub fn expired_token(operation: Operation) -> Self {
        Self::new(operation, reported::expired_token().into())
    }

    /// A `failures` entry for every task of the call; [`reason`] has the documented reasons.
    pub fn failures(operation: Operation, reason: &str) -> Self {
        Self::new(operation, Effect::Failures { reason: reason.to_owned(), detail: None, count: None })
    }

    /// A `failures` entry for so many tasks of the call: partial success.
    pub fn some_failures(operation: Operation, reason: &str, count: usize) -> Self {
        Self::new(operation, Effect::Failures { reason: reason.to_owned(), detail: None, count: Some(count) })
    }

    /// RunTask's tasks are accepted, and fail in PENDING for this reason, such as `CannotPullContainerError: …`.
    pub fn fail_to_start(reason: &str) -> Self {
        Self::new(Operation::RunTask, Effect::FailToStart { reason: reason.to_owned() })
    }

    /// No answer for this long.
    pub fn hang(operation: Operation, time: Duration) -> Self {
        Self::new(operation, Effect::Hang { ms: millis(time) })
    }

    /// A late answer.
    pub fn delay(operation: Operation, time: Duration) -> Self {
        Self::new(operation, Effect::Delay { ms: millis(time) })
    }

    /// How often the fault strikes before it is used up.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.remaining = Some(times);
        self
    }

    fn strikes(&self, operation: Operation) -> bool {
        self.operation == operation || (self.operation == Operation::Any && !operation.is_sts())
    }
}

/// Takes the first fault that strikes here and passes `filter`, using up one of its times.
pub(super) fn take(
    faults: &mut Vec<Fault>,
    operation: Operation,
    filter: fn(&Effect) -> bool,
) -> Option<Effect> {
    faults.retain(|fault| fault.remaining != Some(0));
    let fault = faults.iter_mut().find(|f| filter(&f.effect) && f.strikes(operation))?;
    if let Some(remaining) = &mut fault.remaining {
        *remaining -= 1;
    }
    Some(fault.effect.clone())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_used_up_and_keeps_to_its_operation() {
        let mut faults = vec![Fault::throttled(Operation::RunTask).times(1)];
        assert_eq!(take(&mut faults, Operation::StopTask, Effect::is_before), None);
        assert_eq!(take(&mut faults, Operation::RunTask, Effect::is_after), None);
        assert!(take(&mut faults, Operation::RunTask, Effect::is_before).is_some());
        assert_eq!(take(&mut faults, Operation::RunTask, Effect::is_before), None);
    }

    #[test]
    fn a_fault_of_every_operation_spares_sts() {
        let mut faults = vec![Fault::new(Operation::Any, Effect::Refuse)];
        assert!(take(&mut faults, Operation::ListTasks, Effect::is_before).is_some());
        assert_eq!(take(&mut faults, Operation::AssumeRole, Effect::is_before), None);
    }
}
