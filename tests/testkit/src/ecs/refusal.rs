//! The exceptions' texts, all in one place: a client that tells them apart by their text has nothing else to go by.

use super::wire::Refusal;

/// Texts that users of AWS have reported.
pub(super) mod reported {
    use super::Refusal;

    pub fn cluster_not_found() -> Refusal {
        Refusal::new("ClusterNotFoundException", "Cluster not found.")
    }

    pub fn cluster_inactive() -> Refusal {
        Refusal::new("ClusterNotFoundException", "The referenced cluster was inactive.")
    }

    pub fn definition_not_found() -> Refusal {
        Refusal::invalid("TaskDefinition not found.")
    }

    pub fn definition_inactive() -> Refusal {
        Refusal::invalid("TaskDefinition is inactive")
    }

    pub fn definition_unknown() -> Refusal {
        Refusal::client("Unable to describe task definition.")
    }

    pub fn task_not_found() -> Refusal {
        Refusal::invalid("The referenced task was not found.")
    }

    pub fn task_stopped() -> Refusal {
        Refusal::invalid("The specified task is stopped. Specify a running task and try again.")
    }

    pub fn no_tasks_named() -> Refusal {
        Refusal::invalid("Tasks cannot be empty.")
    }

    pub fn other_cluster(named: &str, asked: &str) -> Refusal {
        Refusal::invalid(format!(
            "Invalid identifier: Identifier is for cluster {named}. Your cluster is {asked}"
        ))
    }

    pub fn overrides_too_long() -> Refusal {
        Refusal::invalid("Container Overrides length must be at most 8192")
    }

    pub fn override_of_no_container(name: &str) -> Refusal {
        Refusal::invalid(format!(
            "Override for container named {name} is not a container in the TaskDefinition."
        ))
    }

    pub fn network_missing() -> Refusal {
        Refusal::invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
    }

    pub fn network_not_for_mode() -> Refusal {
        Refusal::invalid(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )
    }

    pub fn no_subnets() -> Refusal {
        Refusal::invalid("subnets can not be empty.")
    }

    pub fn too_many_security_groups() -> Refusal {
        Refusal::invalid("securityGroup can have at most 5 items.")
    }

    pub fn no_such_subnet(id: &str) -> Refusal {
        Refusal::invalid(format!(
            "Error retrieving subnet information for [{id}]: The subnet ID '{id}' does not exist (ErrorCode: InvalidSubnetID.NotFound)"
        ))
    }

    pub fn no_such_security_group(id: &str) -> Refusal {
        Refusal::invalid(format!(
            "Error retrieving security group information for [{id}]: The security group '{id}' does not exist (ErrorCode: InvalidGroup.NotFound)"
        ))
    }

    pub fn launch_type_and_strategy() -> Refusal {
        Refusal::invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. Remove one and try again.",
        )
    }

    pub fn provider_not_of_cluster() -> Refusal {
        Refusal::invalid(
            "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try again.",
        )
    }

    pub fn launch_type_unsupported(launch_type: &str) -> Refusal {
        Refusal::invalid(format!("Task definition does not support launch_type {launch_type}."))
    }

    pub fn platform_version_elsewhere() -> Refusal {
        Refusal::invalid("The platform version must be null when specifying an EC2 launch type.")
    }

    pub fn platform_unknown() -> Refusal {
        Refusal::new("PlatformUnknownException", "The specified platform does not exist.")
    }

    pub fn public_ip_unsupported() -> Refusal {
        Refusal::invalid("Assign public IP is not supported for this launch type.")
    }

    pub fn no_instances() -> Refusal {
        Refusal::invalid("No Container Instances were found in your cluster.")
    }

    pub fn no_fargate_size(cpu: &str, memory: &str) -> Refusal {
        Refusal::client(format!(
            "No Fargate configuration exists for given values: {cpu} CPU, {memory} memory. See the Amazon ECS documentation for the valid values."
        ))
    }

    pub fn fargate_needs(what: &str) -> Refusal {
        Refusal::client(format!("Fargate requires that '{what}' be defined at the task level."))
    }

    pub fn fargate_network_mode() -> Refusal {
        Refusal::client("Fargate only supports network mode 'awsvpc'.")
    }

    pub fn fargate_awslogs_role() -> Refusal {
        Refusal::client(
            "Fargate requires task definition to have execution role ARN to support log driver awslogs.",
        )
    }

    pub fn container_without_memory(name: &str) -> Refusal {
        Refusal::client(format!(
            "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be specified."
        ))
    }

    pub fn container_without_image() -> Refusal {
        Refusal::client("Container.image should not be null or empty.")
    }

    pub fn definition_still_active() -> &'static str {
        "The specified task definition is still in ACTIVE status. Please deregister the target and try again."
    }

    pub fn unknown_key() -> Refusal {
        Refusal::front_door(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        )
    }

    pub fn expired_token() -> Refusal {
        Refusal::front_door("ExpiredTokenException", "The security token included in the request is expired")
    }

    pub fn unsigned() -> Refusal {
        Refusal::front_door("MissingAuthenticationTokenException", "Missing Authentication Token")
    }

    pub fn access_denied(principal: &str, action: &str) -> Refusal {
        Refusal::front_door(
            "AccessDeniedException",
            format!(
                "User: {principal} is not authorized to perform: {action} on resource: * because no identity-based policy allows the {action} action"
            ),
        )
    }

    pub fn throttled() -> Refusal {
        Refusal::new("ThrottlingException", "Rate exceeded")
    }
}

/// Texts of our own, for refusals that AWS documents and whose text was not found.
pub(super) mod own {
    use super::Refusal;

    pub fn out_of_range(what: &str, low: i64, high: i64) -> Refusal {
        Refusal::invalid(format!("{what} must be between {low} and {high}."))
    }

    pub fn too_many(what: &str, most: usize) -> Refusal {
        Refusal::invalid(format!("{what} can have at most {most} items."))
    }

    pub fn malformed(what: &str) -> Refusal {
        Refusal::invalid(format!("{what} contains invalid characters or is too long."))
    }

    pub fn conflict(task_arns: Vec<String>) -> Refusal {
        let mut refusal = Refusal::new(
            "ConflictException",
            "The clientToken is already in use with a different RunTask request.",
        );
        refusal.resource_ids = task_arns;
        refusal
    }

    pub fn started_by_with(filter: &str) -> Refusal {
        Refusal::invalid(format!("startedBy cannot be combined with {filter}."))
    }

    pub fn bad_next_token() -> Refusal {
        Refusal::invalid("Invalid token")
    }

    pub fn provisioning_quota() -> Refusal {
        Refusal::client(
            "Capacity error: the quota of tasks in the PROVISIONING state per cluster has been reached.",
        )
    }

    pub fn mixed_providers() -> Refusal {
        Refusal::invalid(
            "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and Fargate providers.",
        )
    }

    pub fn no_weight() -> Refusal {
        Refusal::invalid(
            "At least one capacity provider of the strategy must have a weight greater than zero.",
        )
    }

    pub fn two_bases() -> Refusal {
        Refusal::invalid("Only one capacity provider of a strategy can have a base defined.")
    }

    pub fn propagate_service() -> Refusal {
        Refusal::invalid("propagateTags SERVICE is not supported for RunTask.")
    }

    pub fn managed_instances_launch_type() -> Refusal {
        Refusal::invalid("MANAGED_INSTANCES is used by a capacity provider strategy, not by a launch type.")
    }

    pub fn platform_incompatible() -> Refusal {
        Refusal::new(
            "PlatformTaskDefinitionIncompatibilityException",
            "The specified platform version does not satisfy the task definition's required capabilities.",
        )
    }

    pub fn resource_not_found() -> Refusal {
        Refusal::new("ResourceNotFoundException", "The specified resource wasn't found.")
    }
}
