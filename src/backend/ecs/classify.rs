//! What ECS's answers mean: reasons of failures, exceptions, and why tasks stopped. One table; where ECS says it in a sentence,
//! by a part of that.

use crate::api::condition::reason;

/// Where a text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The `reason` of a failure of RunTask.
    Failure,
    /// The name of an exception.
    Exception,
    /// The `stopCode` of a task; empty where it has none.
    StopCode,
}

/// What an answer means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// There is no room now.
    NoCapacity,
    /// Too many calls: later.
    Throttled,
    /// The service has a fault of its own: later.
    Transient,
    /// It cannot work until something is changed; what that is.
    Refused(&'static str),
    /// There is no such thing (any more).
    Gone,
    /// A task ended for this reason: a condition's. `blameless` as in [`crate::runner::Cause`].
    Ended { reason: &'static str, blameless: bool },
    /// A task ended as its own containers had it.
    ByItself,
    /// Not in the table.
    Other,
}

/// A row: the source, how the word begins, what the sentence contains, and what it means. The first that fits holds.
type Row = (Source, &'static str, &'static str, Meaning);

const EC2_LAUNCH_TYPE: &str =
    "give the task definition what the cluster's instances have, or the cluster such instances";
const PERMISSION: &str = "grant the controller's AWS identity this permission";
const CREDENTIALS: &str = "correct the credentials";

const TABLE: &[Row] = {
    use Meaning::{ByItself, Ended, Gone, NoCapacity, Refused, Throttled, Transient};
    use Source::{Exception, Failure, StopCode};
    &[
        (Failure, "RESOURCE:", "", NoCapacity),
        (Failure, "AGENT", "", NoCapacity),
        (Failure, "EMPTY CAPACITY PROVIDER", "", NoCapacity),
        (Failure, "NO ACTIVE INSTANCES", "", NoCapacity),
        (Failure, "", "apacity is unavailable", NoCapacity),
        (Failure, "", "reached the limit", NoCapacity),
        (Failure, "ATTRIBUTE", "", Refused(EC2_LAUNCH_TYPE)),
        (Failure, "LOCATION", "", Refused("name subnets in ecs.subnets where the cluster's instances are")),
        (Failure, "INACTIVE", "", Refused("name an active cluster and active instances")),
        (Failure, "MISSING", "", Gone),
        //
        (Exception, "ThrottlingException", "", Throttled),
        (Exception, "TooManyRequestsException", "", Throttled),
        (Exception, "RequestLimitExceeded", "", Throttled),
        (Exception, "", "Rate exceeded", Throttled),
        (Exception, "ServerException", "", Transient),
        (Exception, "ServiceUnavailable", "", Transient),
        (Exception, "InternalFailure", "", Transient),
        (Exception, "InternalServerError", "", Transient),
        (Exception, "RequestExpired", "", Transient),
        (Exception, "", "apacity is unavailable", NoCapacity),
        (Exception, "", "reached the limit", NoCapacity),
        (Exception, "", "PROVISIONING state", NoCapacity),
        (Exception, "LimitExceededException", "", NoCapacity),
        (Exception, "InvalidParameterException", "No Container Instances were found", NoCapacity),
        (Exception, "InvalidParameterException", "task was not found", Gone),
        (
            Exception,
            "AccessDenied",
            "iam:PassRole",
            Refused("grant the controller's AWS identity iam:PassRole on the task definition's roles"),
        ),
        (Exception, "AccessDenied", "", Refused(PERMISSION)),
        (Exception, "UnrecognizedClientException", "", Refused(CREDENTIALS)),
        (Exception, "InvalidSignatureException", "", Refused(CREDENTIALS)),
        (Exception, "SignatureDoesNotMatch", "", Refused(CREDENTIALS)),
        (Exception, "IncompleteSignature", "", Refused(CREDENTIALS)),
        (Exception, "MissingAuthenticationToken", "", Refused(CREDENTIALS)),
        (Exception, "InvalidClientTokenId", "", Refused(CREDENTIALS)),
        (Exception, "ExpiredToken", "", Refused("replace aws_session_token, which has expired")),
        (Exception, "OptInRequired", "", Refused("enable the region in the account")),
        (
            Exception,
            "ClusterNotFoundException",
            "",
            Refused("name an active cluster in ecs.cluster and its region in ecs.region"),
        ),
        (Exception, "PlatformUnknownException", "", Refused("correct ecs.platformVersion")),
        (
            Exception,
            "PlatformTaskDefinitionIncompatibilityException",
            "",
            Refused("correct ecs.platformVersion, or the task definition"),
        ),
        (Exception, "UnsupportedFeatureException", "", Refused("leave out what the region does not have")),
        (Exception, "BlockedException", "", Refused("ask AWS why the account is blocked")),
        (Exception, "InvalidSubnet", "", Refused("correct ecs.subnets")),
        (Exception, "InvalidGroup", "", Refused("correct ecs.securityGroups")),
        (Exception, "InvalidParameterException", "subnet", Refused("correct ecs.subnets")),
        (Exception, "InvalidParameterException", "ecurity group", Refused("correct ecs.securityGroups")),
        (Exception, "InvalidParameterException", "securityGroup", Refused("correct ecs.securityGroups")),
        (Exception, "InvalidParameterException", "ublic IP", Refused("correct ecs.assignPublicIp")),
        (
            Exception,
            "InvalidParameterException",
            "etwork Configuration",
            Refused("make ecs.subnets fit the network mode of the task definition"),
        ),
        (
            Exception,
            "InvalidParameterException",
            "capacity provider",
            Refused("correct ecs.capacityProviders, or associate them with the cluster"),
        ),
        (Exception, "InvalidParameterException", "platform version", Refused("correct ecs.platformVersion")),
        (
            Exception,
            "InvalidParameterException",
            "launch_type",
            Refused("correct ecs.launchType, or requiresCompatibilities of the task definition"),
        ),
        (Exception, "InvalidParameterException", "container named", Refused("correct ecs.containerName")),
        (
            Exception,
            "InvalidParameterException",
            "Overrides length",
            Refused("make the environment of the runner smaller"),
        ),
        (Exception, "InvalidParameterException", "TaskDefinition", Refused("correct ecs.taskDefinition")),
        (Exception, "InvalidParameterException", "tag", Refused("correct ecs.tags")),
        (Exception, "InvalidParameterException", "", Refused("correct the ecs block")),
        (
            Exception,
            "ClientException",
            "Fargate",
            Refused("correct ecs.managedTaskDefinition, or the task definition"),
        ),
        (Exception, "ClientException", "", Refused("correct the ecs block, or the task definition")),
        //
        (StopCode, "EssentialContainerExited", "", ByItself),
        (
            StopCode,
            "TaskFailedToStart",
            "CannotPull",
            Ended { reason: reason::IMAGE_PULL_FAILED, blameless: false },
        ),
        (
            StopCode,
            "TaskFailedToStart",
            "apacity is unavailable",
            Ended { reason: reason::NO_CAPACITY, blameless: false },
        ),
        (StopCode, "TaskFailedToStart", "RESOURCE:", Ended { reason: reason::NO_CAPACITY, blameless: false }),
        (StopCode, "TaskFailedToStart", "", Ended { reason: reason::TASK_NOT_STARTED, blameless: false }),
        (StopCode, "SpotInterruption", "", Ended { reason: reason::SPOT_INTERRUPTION, blameless: true }),
        (StopCode, "TerminationNotice", "", Ended { reason: reason::SPOT_INTERRUPTION, blameless: true }),
        (StopCode, "InfrastructureHealth", "", Ended { reason: reason::HOST_LOST, blameless: true }),
        (StopCode, "UserInitiated", "", Ended { reason: reason::KILLED, blameless: true }),
        (StopCode, "ServiceSchedulerInitiated", "", Ended { reason: reason::KILLED, blameless: true }),
        (StopCode, "", "Host EC2 (instance", Ended { reason: reason::HOST_LOST, blameless: true }),
        (StopCode, "", "Essential container in task exited", ByItself),
        (
            StopCode,
            "",
            "Spot Task was interrupted",
            Ended { reason: reason::SPOT_INTERRUPTION, blameless: true },
        ),
    ]
};

/// Looks a word, and the sentence that came with it, up in the table.
pub(super) fn classify(source: Source, word: &str, sentence: &str) -> Meaning {
    row(source, word, sentence).map_or(Meaning::Other, |row| TABLE[row].3)
}

fn row(source: Source, word: &str, sentence: &str) -> Option<usize> {
    TABLE.iter().position(|(of, begins, contains, _)| {
        *of == source && word.starts_with(begins) && (sentence.contains(contains) || word.contains(contains))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use Meaning::{ByItself, Ended, Gone, NoCapacity, Other, Refused, Throttled, Transient};
    use Source::{Exception, Failure, StopCode};

    const INVALID: &str = "InvalidParameterException";

    /// A row of the table, a row here: an answer that it alone decides, in the words of AWS.
    const ANSWERS: &[(Source, &str, &str, &str)] = &[
        (Failure, "RESOURCE:MEMORY", "", "no capacity"),
        (Failure, "AGENT", "", "no capacity"),
        (Failure, "EMPTY CAPACITY PROVIDER", "", "no capacity"),
        (Failure, "NO ACTIVE INSTANCES", "", "no capacity"),
        (
            Failure,
            "Capacity is unavailable at this time. Please try again later or in a different availability zone",
            "",
            "no capacity",
        ),
        (
            Failure,
            "You've reached the limit on the number of vCPUs you can run concurrently",
            "",
            "no capacity",
        ),
        (Failure, "ATTRIBUTE", "", "instances"),
        (Failure, "LOCATION", "", "ecs.subnets"),
        (Failure, "INACTIVE", "", "active cluster"),
        (Failure, "MISSING", "", "gone"),
        (Exception, "ThrottlingException", "Rate limit", "throttled"),
        (Exception, "TooManyRequestsException", "", "throttled"),
        (Exception, "RequestLimitExceeded", "", "throttled"),
        (
            Exception,
            INVALID,
            "Error retrieving subnet information for [subnet-1]: Rate exceeded (ErrorCode: Throttling)",
            "throttled",
        ),
        (Exception, "ServerException", "Service Unavailable. Please try again later.", "transient"),
        (Exception, "ServiceUnavailableException", "", "transient"),
        (Exception, "InternalFailure", "", "transient"),
        (Exception, "InternalServerError", "", "transient"),
        (Exception, "RequestExpired", "", "transient"),
        (Exception, "ClientException", "Capacity is unavailable at this time.", "no capacity"),
        (
            Exception,
            "ClientException",
            "You've reached the limit on the number of tasks you can run concurrently",
            "no capacity",
        ),
        (
            Exception,
            "ClientException",
            "the quota of tasks in the PROVISIONING state per cluster has been reached.",
            "no capacity",
        ),
        (Exception, "LimitExceededException", "", "no capacity"),
        (Exception, INVALID, "No Container Instances were found in your cluster.", "no capacity"),
        (Exception, INVALID, "The referenced task was not found.", "gone"),
        (
            Exception,
            "AccessDeniedException",
            "User: x is not authorized to perform: iam:PassRole on resource: y",
            "iam:PassRole on",
        ),
        (
            Exception,
            "AccessDeniedException",
            "User: x is not authorized to perform: ecs:RunTask",
            "permission",
        ),
        (
            Exception,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            "credentials",
        ),
        (Exception, "InvalidSignatureException", "Signature expired", "credentials"),
        (Exception, "SignatureDoesNotMatch", "", "credentials"),
        (Exception, "IncompleteSignature", "", "credentials"),
        (Exception, "MissingAuthenticationTokenException", "", "credentials"),
        (Exception, "InvalidClientTokenId", "", "credentials"),
        (Exception, "ExpiredTokenException", "", "aws_session_token"),
        (Exception, "OptInRequired", "", "region in the account"),
        (Exception, "ClusterNotFoundException", "Cluster not found.", "ecs.cluster"),
        (Exception, "PlatformUnknownException", "", "ecs.platformVersion"),
        (Exception, "PlatformTaskDefinitionIncompatibilityException", "", "or the task definition"),
        (Exception, "UnsupportedFeatureException", "", "does not have"),
        (Exception, "BlockedException", "", "blocked"),
        (Exception, "InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist", "ecs.subnets"),
        (Exception, "InvalidGroup.NotFound", "", "ecs.securityGroups"),
        (
            Exception,
            INVALID,
            "The subnet ID 'subnet-1' does not exist (ErrorCode: InvalidSubnetID.NotFound)",
            "ecs.subnets",
        ),
        (Exception, INVALID, "Error retrieving security group information for [sg-1]", "ecs.securityGroups"),
        (Exception, INVALID, "securityGroup can have at most 5 items.", "ecs.securityGroups"),
        (Exception, INVALID, "Assign public IP is not supported for this launch type.", "ecs.assignPublicIp"),
        (
            Exception,
            INVALID,
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
            "network mode",
        ),
        (
            Exception,
            INVALID,
            "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster.",
            "ecs.capacityProviders",
        ),
        (
            Exception,
            INVALID,
            "The platform version must be null when specifying an EC2 launch type.",
            "ecs.platformVersion",
        ),
        (Exception, INVALID, "Task definition does not support launch_type FARGATE.", "ecs.launchType"),
        (
            Exception,
            INVALID,
            "Override for container named x is not a container in the TaskDefinition.",
            "ecs.containerName",
        ),
        (Exception, INVALID, "Container Overrides length must be at most 8192", "environment"),
        (Exception, INVALID, "TaskDefinition not found.", "ecs.taskDefinition"),
        (Exception, INVALID, "Duplicate tag keys found: 'x'.", "ecs.tags"),
        (Exception, INVALID, "count must be between 1 and 10.", "the ecs block"),
        (
            Exception,
            "ClientException",
            "No Fargate configuration exists for given values: 1 CPU, 1 memory.",
            "ecs.managedTaskDefinition",
        ),
        (Exception, "ClientException", "Container.image should not be null or empty.", "the ecs block"),
        (StopCode, "EssentialContainerExited", "Essential container in task exited", "by itself"),
        (
            StopCode,
            "TaskFailedToStart",
            "CannotPullContainerError: pull image manifest has been retried 1 time(s)",
            "ImagePullFailed",
        ),
        (StopCode, "TaskFailedToStart", "Capacity is unavailable at this time.", "NoCapacity"),
        (StopCode, "TaskFailedToStart", "TaskFailedToStart: RESOURCE:MEMORY", "NoCapacity"),
        (
            StopCode,
            "TaskFailedToStart",
            "ResourceInitializationError: unable to pull secrets",
            "TaskNotStarted",
        ),
        (StopCode, "SpotInterruption", "Your Spot Task was interrupted.", "SpotInterruption"),
        (StopCode, "TerminationNotice", "", "SpotInterruption"),
        (StopCode, "InfrastructureHealth", "", "HostLost"),
        (StopCode, "UserInitiated", "Task stopped by user", "Killed"),
        (StopCode, "ServiceSchedulerInitiated", "", "Killed"),
        (StopCode, "", "Host EC2 (instance i-0123) terminated.", "HostLost"),
        (StopCode, "", "Essential container in task exited", "by itself"),
        (StopCode, "", "Your Spot Task was interrupted.", "SpotInterruption"),
    ];

    #[test]
    fn each_answer_means_what_its_row_says() {
        assert_eq!(ANSWERS.len(), TABLE.len(), "a row of the table, a row here");
        for (number, (source, word, sentence, expected)) in ANSWERS.iter().enumerate() {
            let meaning = classify(*source, word, sentence);
            assert_eq!(row(*source, word, sentence), Some(number), "{word} {sentence}: another row decides");
            let told = match meaning {
                NoCapacity => "no capacity",
                Throttled => "throttled",
                Transient => "transient",
                Gone => "gone",
                ByItself => "by itself",
                Refused(what) => what,
                Ended { reason, .. } => reason,
                Other => "other",
            };
            assert!(told.contains(expected), "{word} {sentence}: {told}");
        }
    }

    #[test]
    fn what_nobody_knows_is_other() {
        assert_eq!(classify(Exception, "NewException", "something new"), Other);
        assert_eq!(classify(Failure, "NEW", ""), Other);
        assert_eq!(classify(StopCode, "NewCode", ""), Other);
    }

    #[test]
    fn nobody_is_blamed_for_what_aws_takes_away() {
        for code in ["SpotInterruption", "InfrastructureHealth"] {
            assert!(matches!(classify(StopCode, code, ""), Ended { blameless: true, .. }));
        }
        assert!(matches!(classify(StopCode, "TaskFailedToStart", ""), Ended { blameless: false, .. }));
    }
}
