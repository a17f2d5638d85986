"""The whole surface of the simulated ECS, by boto3: every operation, every refusal, every fault.

usage: surface.py ENDPOINT

The simulation has to run with short delays and lags, and with the documented limits.
"""

import sys
import threading
import time

import boto3  # noqa: F401  (fails early and clearly when the witnesses are not installed)
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError, HTTPClientError
from common import KEY, NETWORK, Control, client, eventually, fargate_definition, override, refusal

endpoint = sys.argv[1]
ecs = client(endpoint)
control = Control(endpoint)
tokens = iter(range(1_000_000))


def run(**changes):
    parameters = {
        "cluster": "default",
        "taskDefinition": "fargate",
        "launchType": "FARGATE",
        "networkConfiguration": NETWORK,
        "clientToken": f"token-{next(tokens)}",
    } | changes
    return ecs.run_task(**{name: value for name, value in parameters.items() if value is not None})


def run_one(**changes):
    (task,) = run(**changes)["tasks"]
    return task["taskArn"]


def describe(*arns, **parameters):
    return ecs.describe_tasks(cluster="default", tasks=list(arns), **parameters)


def state_of(arn):
    """The task as the simulation itself knows it, with its history."""
    found = [task for task in control("GET", "state")["tasks"] if task["taskArn"] == arn]
    return found[0] if found else None


def reaches(arn, status):
    return eventually(lambda: state_of(arn), lambda task: task["lastStatus"] == status, f"{arn} {status}")


def refused(code, text, **changes):
    got, message = refusal(run, **changes)
    assert (got, text in message) == (code, True), f"{changes}: {got}: {message}"


def definitions():
    ecs.register_task_definition(**fargate_definition("fargate"))
    plain = {"family": "bridge", "containerDefinitions": [{"name": "runner", "image": "runner:1", "cpu": 256, "memory": 512}]}
    registered = ecs.register_task_definition(**plain, tags=[{"key": "k", "value": "v"}])["taskDefinition"]
    assert registered["compatibilities"] == ["EC2", "EXTERNAL"], registered
    for changes, text in [
        ({"cpu": "256", "memory": "4096"}, "No Fargate configuration exists for given values"),
        ({"networkMode": "bridge"}, "Fargate only supports network mode"),
        ({"containerDefinitions": [{"name": "r", "image": "i", "privileged": True}]}, "privileged"),
        ({"containerDefinitions": [{"name": "r"}]}, "Container.image should not be null or empty"),
        ({"family": "no spaces"}, "Family contains invalid characters"),
    ]:
        code, message = refusal(ecs.register_task_definition, **fargate_definition("x") | changes)
        assert code == "ClientException" and text in message, (code, message)

    arns = [ecs.register_task_definition(**plain | {"family": "old"})["taskDefinition"]["taskDefinitionArn"] for _ in range(3)]
    pages = list(ecs.get_paginator("list_task_definitions").paginate(familyPrefix="old", PaginationConfig={"PageSize": 2}))
    assert [arn for page in pages for arn in page["taskDefinitionArns"]] == arns and len(pages) == 2
    newest_first = ecs.list_task_definitions(familyPrefix="old", sort="DESC")["taskDefinitionArns"]
    assert newest_first == arns[::-1]
    kept = ecs.delete_task_definitions(taskDefinitions=arns[:1])
    assert "still in ACTIVE status" in kept["failures"][0]["reason"] and not kept["taskDefinitions"]
    assert refusal(ecs.deregister_task_definition, taskDefinition="old") == ("ClientException", "Revision is missing.")
    for arn in arns[:2]:
        assert ecs.deregister_task_definition(taskDefinition=arn)["taskDefinition"]["status"] == "INACTIVE"
    assert ecs.list_task_definitions(familyPrefix="old", status="INACTIVE")["taskDefinitionArns"] == arns[:2]
    deleted = ecs.delete_task_definitions(taskDefinitions=arns[:2])["taskDefinitions"]
    assert {definition["status"] for definition in deleted} == {"DELETE_IN_PROGRESS"}
    assert refusal(ecs.describe_task_definition, taskDefinition=arns[0])[1] == "Unable to describe task definition."
    again = ecs.register_task_definition(**plain | {"family": "old"})["taskDefinition"]
    assert again["revision"] == 4, "numbers are never used twice"


def clusters():
    shown = ecs.describe_clusters(clusters=["default", "none"], include=["TAGS"])
    assert shown["clusters"][0]["capacityProviders"] == ["FARGATE", "FARGATE_SPOT"]
    assert [failure["reason"] for failure in shown["failures"]] == ["MISSING"]
    types = [provider["type"] for provider in ecs.describe_capacity_providers()["capacityProviders"]]
    assert {"FARGATE", "FARGATE_SPOT"} <= set(types), types
    missing = ecs.describe_capacity_providers(capacityProviders=["none"])["failures"]
    assert [failure["reason"] for failure in missing] == ["MISSING"]
    ecs.create_cluster(clusterName="closed")
    control("POST", "clusters/closed/deactivate")
    refused("ClusterNotFoundException", "inactive", cluster="closed")
    refused("ClusterNotFoundException", "Cluster not found.", cluster="none")
    by_arn = ecs.list_tasks(cluster=shown["clusters"][0]["clusterArn"])
    assert by_arn["taskArns"] == []


def combinations():
    """What RunTask refuses."""
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    network = NETWORK["awsvpcConfiguration"]
    invalid = "InvalidParameterException"

    def awsvpc(**changes):
        return {"awsvpcConfiguration": network | changes}

    def strategy(*items):
        return {"launchType": None, "capacityProviderStrategy": list(items)}

    control("POST", "clusters", {
        "name": "mixed",
        "providers": [{"name": "FARGATE", "kind": "fargate"}, {"name": "asg", "kind": {"autoScaling": {"managed": False}}}],
    })
    fargate = {"capacityProvider": "FARGATE", "weight": 1}
    for text, changes in [
        ("TaskDefinition not found", {"taskDefinition": "nothing"}),
        ("TaskDefinition not found", {"taskDefinition": "fargate:9"}),
        ("count", {"count": 11}),
        ("count", {"count": 0}),
        ("Specifying both a launch type and capacity provider strategy", {"capacityProviderStrategy": spot}),
        ("not associated with the cluster", strategy({"capacityProvider": "none", "weight": 1})),
        ("mix of capacity providers", {"cluster": "mixed"} | strategy(fargate, {"capacityProvider": "asg", "weight": 1})),
        ("weight greater than zero", strategy({"capacityProvider": "FARGATE", "weight": 0})),
        ("weight", strategy({"capacityProvider": "FARGATE", "weight": 1001})),
        ("base", strategy(fargate | {"base": 1}, spot[0] | {"base": 1})),
        ("at most 20", strategy(*[fargate] * 21)),
        ("does not support launch_type FARGATE", {"taskDefinition": "bridge", "networkConfiguration": None}),
        ("does not support launch_type EXTERNAL", {"launchType": "EXTERNAL"}),
        ("MANAGED_INSTANCES", {"launchType": "MANAGED_INSTANCES"}),
        ("Network Configuration must be provided", {"networkConfiguration": None}),
        ("Network Configuration is not valid", {"taskDefinition": "bridge", "launchType": "EC2"}),
        ("subnets can not be empty", {"networkConfiguration": awsvpc(subnets=[])}),
        ("at most 16", {"networkConfiguration": awsvpc(subnets=["subnet-1"] * 17)}),
        ("at most 5", {"networkConfiguration": awsvpc(securityGroups=["sg-1"] * 6)}),
        ("InvalidSubnetID.NotFound", {"networkConfiguration": awsvpc(subnets=["net-1"])}),
        ("InvalidGroup.NotFound", {"networkConfiguration": awsvpc(securityGroups=["group-1"])}),
        ("Assign public IP", {"launchType": "EC2", "networkConfiguration": awsvpc(assignPublicIp="ENABLED")}),
        ("platform version must be null", {"launchType": "EC2", "platformVersion": "LATEST"}),
        ("length must be at most 8192", {"overrides": override(A="x" * 8200)}),
        ("Override for container named other", {"overrides": override(container="other", A="b")}),
        ("startedBy", {"startedBy": "no spaces"}),
        ("startedBy", {"startedBy": "s" * 129}),
        ("clientToken", {"clientToken": "t" * 65}),
        ("clientToken", {"clientToken": "two words"}),
        ("tag key", {"tags": [{"key": "aws:mine", "value": ""}]}),
        ("at most 50", {"tags": [{"key": str(n), "value": ""} for n in range(51)]}),
        ("SERVICE", {"propagateTags": "SERVICE"}),
        ("No Container Instances", {"taskDefinition": "bridge", "launchType": "EC2", "networkConfiguration": None}),
    ]:
        refused(invalid, text, **changes)
    refused("ClientException", "No Fargate configuration", overrides={"cpu": "256", "memory": "8192"})
    refused("PlatformUnknownException", "platform", platformVersion="9.9.9")
    arm = fargate_definition("arm", runtimePlatform={"cpuArchitecture": "ARM64", "operatingSystemFamily": "LINUX"})
    ecs.register_task_definition(**arm)
    refused("PlatformTaskDefinitionIncompatibilityException", "platform", taskDefinition="arm", platformVersion="1.3.0")
    exact = override(A="")
    free = 8192 - len(str(exact).replace("'", '"').replace(": ", ":").replace(", ", ","))
    run_one(overrides=override(A="x" * free))
    refused(invalid, "8192", overrides=override(A="x" * (free + 1)))


def lifecycle():
    """Each state in its order, and what is seen of it."""
    control("PUT", "lag", {"listMs": 0, "describeMs": 0})
    arn = run_one(enableECSManagedTags=True, tags=[{"key": "k", "value": "v"}])
    assert reaches(arn, "RUNNING")["history"] == ["PROVISIONING", "PENDING", "ACTIVATING", "RUNNING"]
    (task,) = describe(arn, include=["TAGS"])["tasks"]
    assert {tag["key"] for tag in task["tags"]} == {"k", "aws:ecs:clusterName"}
    assert task["createdAt"] <= task["startedAt"] and task["platformVersion"] == "1.4.0"
    assert task["attachments"][0]["details"] == [{"name": "subnetId", "value": "subnet-1"}]
    control("POST", f"tasks/{arn.rsplit('/', 1)[1]}/exit?code=7")
    ended = reaches(arn, "STOPPED")
    assert ended["history"][4:] == ["DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"]
    (task,) = describe(arn, include=["TAGS"])["tasks"]
    assert (task["stopCode"], task["containers"][0]["exitCode"]) == ("EssentialContainerExited", 7)
    assert task["tags"], "tags outlive an end that nobody asked for"
    assert task["startedAt"] <= task["stoppingAt"] <= task["stoppedAt"]
    code, message = refusal(ecs.tag_resource, resourceArn=arn, tags=[{"key": "a", "value": "b"}])
    assert code == "InvalidParameterException" and "stopped" in message

    control("POST", "hold?status=PENDING")
    waiting = run_one(tags=[{"key": "k", "value": "v"}])
    reaches(waiting, "PENDING")
    stopped = ecs.stop_task(cluster="default", task=waiting, reason="too slow")["task"]
    assert (stopped["desiredStatus"], stopped["stopCode"]) == ("STOPPED", "UserInitiated")
    again = ecs.stop_task(cluster="default", task=waiting, reason="another reason")["task"]
    assert again["stoppedReason"] == "too slow"
    control("POST", "release?status=PENDING")
    ended = reaches(waiting, "STOPPED")
    assert "RUNNING" not in ended["history"] and "startedAt" not in ended and not ended["tags"]

    control("POST", "advance?ms=3700000")
    assert [f["reason"] for f in describe(arn, waiting)["failures"]] == ["MISSING", "MISSING"], "forgotten after an hour"


def lateness():
    """A new task is listed and described late, and forgotten late."""
    control("PUT", "lag", {"listMs": 300_000, "describeMs": 240_000})
    arn = run_one(startedBy="late")
    assert [failure["reason"] for failure in describe(arn)["failures"]] == ["MISSING"]
    assert refusal(ecs.stop_task, cluster="default", task=arn)[1] == "The referenced task was not found."
    control("POST", "advance?ms=250000")
    assert describe(arn)["tasks"] and ecs.list_tasks(startedBy="late")["taskArns"] == []
    control("POST", "advance?ms=60000")
    assert ecs.list_tasks(startedBy="late")["taskArns"] == [arn]
    ecs.stop_task(cluster="default", task=arn)
    assert ecs.list_tasks(startedBy="late")["taskArns"] == [arn], "forgotten late"
    assert ecs.list_tasks(startedBy="late", desiredStatus="STOPPED")["taskArns"] == []
    control("POST", "advance?ms=310000")
    assert ecs.list_tasks(startedBy="late")["taskArns"] == []
    assert ecs.list_tasks(startedBy="late", desiredStatus="STOPPED")["taskArns"] == [arn]
    control("PUT", "lag", {"listMs": 0, "describeMs": 0})


def lists():
    arns = control("POST", "clusters/default/foreign?count=230")["arns"]
    pages = list(ecs.get_paginator("list_tasks").paginate(startedBy="somebody-else"))
    assert [len(page["taskArns"]) for page in pages] == [100, 100, 30]
    assert {arn for page in pages for arn in page["taskArns"]} == set(arns)
    assert len(ecs.list_tasks(family="foreign", maxResults=7)["taskArns"]) == 7
    assert len(ecs.describe_tasks(tasks=arns[:100])["tasks"]) == 100
    for text, filters in [
        ("family", {"startedBy": "x", "family": "y"}),
        ("launchType", {"startedBy": "x", "launchType": "FARGATE"}),
        ("maxResults", {"maxResults": 101}),
        ("maxResults", {"maxResults": 0}),
        ("token", {"nextToken": "garbage"}),
    ]:
        code, message = refusal(ecs.list_tasks, **filters)
        assert code == "InvalidParameterException" and text in message, (filters, code, message)
    token = pages[0]["nextToken"]
    assert refusal(ecs.list_tasks, nextToken=token)[0] == "InvalidParameterException", "the token of another list"
    assert refusal(ecs.list_tasks, serviceName="web")[0] == "ServiceNotFoundException"
    assert refusal(ecs.describe_tasks, tasks=[]) == ("InvalidParameterException", "Tasks cannot be empty.")
    assert refusal(ecs.describe_tasks, tasks=arns[:101])[0] == "InvalidParameterException"
    code, message = refusal(ecs.describe_tasks, cluster="mixed", tasks=arns[:1])
    assert "Identifier is for cluster default. Your cluster is mixed" in message
    for arn in arns:
        control("POST", f"tasks/{arn.rsplit('/', 1)[1]}/forget")


def client_tokens():
    first = run(clientToken="one", startedBy="a")
    again = run(clientToken="one", startedBy="a")
    assert [t["taskArn"] for t in again["tasks"]] == [t["taskArn"] for t in first["tasks"]]
    try:
        run(clientToken="one", startedBy="b")
        raise AssertionError("not refused")
    except ecs.exceptions.ConflictException as conflict:
        assert conflict.response["resourceIds"] == [first["tasks"][0]["taskArn"]]
    elsewhere = run(clientToken="one", startedBy="a", cluster="mixed")
    assert elsewhere["tasks"][0]["taskArn"] != first["tasks"][0]["taskArn"], "a token counts in its cluster"

    control.fault("RunTask", "loseAnswer")
    try:
        run(clientToken="lost")
        raise AssertionError("an answer came")
    except (ConnectionClosedError, EndpointConnectionError, HTTPClientError):
        pass
    known = [task for task in control("GET", "state")["tasks"] if task["lastStatus"] != "STOPPED"]
    found = run(clientToken="lost")["tasks"][0]["taskArn"]
    assert found in {task["taskArn"] for task in known}, "the lost answer's task"

    arn = first["tasks"][0]["taskArn"]
    ecs.stop_task(cluster="default", task=arn)
    reaches(arn, "STOPPED")
    (short,) = run(clientToken="one", startedBy="a")["tasks"]
    assert short == {"taskArn": arn, "lastStatus": "STOPPED", "desiredStatus": "STOPPED"}
    control("POST", "advance?ms=3700000")
    assert run_one(clientToken="one", startedBy="a") != arn, "an hour after its end a token is free again"


def capacity():
    reasons = ["RESOURCE:CPU", "RESOURCE:MEMORY", "RESOURCE:PORTS", "RESOURCE:ENI", "RESOURCE:GPU", "AGENT", "ATTRIBUTE",
               "LOCATION", "EMPTY CAPACITY PROVIDER", "NO ACTIVE INSTANCES", "MISSING", "INACTIVE"]
    for reason in reasons:
        control.fault("RunTask", {"failures": {"reason": reason}})
        answer = run()
        assert (answer["tasks"], [f["reason"] for f in answer["failures"]]) == ([], [reason])
    control.fault("RunTask", {"failures": {"reason": "RESOURCE:MEMORY", "detail": "words", "count": 2}})
    answer = run(count=3)
    assert (len(answer["tasks"]), len(answer["failures"]), answer["failures"][0]["detail"]) == (1, 2, "words")

    ecs.create_cluster(clusterName="small")
    control("PUT", "clusters/small/fargate", {"provider": "FARGATE_SPOT", "room": 2})
    spot = {"launchType": None, "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
    answer = run(cluster="small", count=3, **spot)
    assert len(answer["tasks"]) == 2 and "Capacity is unavailable at this time" in answer["failures"][0]["reason"]
    assert run(cluster="small")["tasks"], "on-demand has room"

    on_ec2 = {"taskDefinition": "bridge", "networkConfiguration": None}
    control("POST", "clusters", {"name": "ec2", "instances": [{"cpu": 600, "memory": 4096}], "providers": [
        {"name": "managed", "kind": {"autoScaling": {"managed": True}}},
        {"name": "plain", "kind": {"autoScaling": {"managed": False}}},
    ]})
    answer = run(cluster="ec2", launchType="EC2", count=3, **on_ec2)
    assert len(answer["tasks"]) == 2 and {t["lastStatus"] for t in answer["tasks"]} == {"PENDING"}
    assert answer["failures"][0]["reason"] == "RESOURCE:CPU" and ":container-instance/" in answer["failures"][0]["arn"]
    plain = run(cluster="ec2", launchType=None, capacityProviderStrategy=[{"capacityProvider": "plain", "weight": 1}], **on_ec2)
    assert plain["failures"][0]["reason"] == "EMPTY CAPACITY PROVIDER"
    managed = {"launchType": None, "capacityProviderStrategy": [{"capacityProvider": "managed", "weight": 1}]} | on_ec2
    waiting = run_one(cluster="ec2", **managed)
    control("POST", "advance?ms=60000")
    assert state_of(waiting)["lastStatus"] == "PROVISIONING", "it waits for an instance"
    control("POST", "clusters/ec2/instances", {"cpu": 256, "memory": 512, "provider": "managed"})
    reaches(waiting, "RUNNING")
    vain = run_one(cluster="ec2", **managed)
    control("POST", "advance?ms=1900000")
    ended = reaches(vain, "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"], ended["containers"]) == \
        ("TaskFailedToStart", "TaskFailedToStart: RESOURCE:CPU", [])
    instance = state_of(waiting)["containerInstanceArn"]
    control("POST", "clusters/ec2/lose", {"instance": instance})
    lost = reaches(waiting, "STOPPED")
    assert "terminated." in lost["stoppedReason"] and "exitCode" not in lost["containers"][0] and "stopCode" not in lost
    control("POST", "clusters/ec2/instances", {"external": True})
    external = run_one(cluster="ec2", launchType="EXTERNAL", **on_ec2)
    assert reaches(external, "RUNNING")["launchType"] == "EXTERNAL"


def strategies():
    both = [{"capacityProvider": "FARGATE_SPOT", "weight": 3}, {"capacityProvider": "FARGATE", "weight": 1, "base": 1}]
    answer = run(launchType=None, capacityProviderStrategy=both, count=5)
    names = [task["capacityProviderName"] for task in answer["tasks"]]
    assert names[0] == "FARGATE" and names.count("FARGATE_SPOT") >= 2, names
    single = [{"capacityProvider": "FARGATE_SPOT", "weight": 3}, {"capacityProvider": "FARGATE", "weight": 1}]
    names = [run(launchType=None, capacityProviderStrategy=single)["tasks"][0]["capacityProviderName"] for _ in range(8)]
    assert names.count("FARGATE") == 2, names


def ends():
    """Ends that nobody asked for."""
    spot = {"launchType": None, "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
    arn = run_one(**spot)
    reaches(arn, "RUNNING")
    control("POST", f"tasks/{arn.rsplit('/', 1)[1]}/interrupt")
    ended = reaches(arn, "STOPPED")
    assert (ended["stopCode"], ended["stoppedReason"]) == ("SpotInterruption", "Your Spot Task was interrupted.")
    assert ended["containers"][0]["exitCode"] == 143

    control.fault("RunTask", {"failToStart": {"reason": "CannotPullContainerError: pull access denied"}})
    ended = reaches(run_one(), "STOPPED")
    assert ended["stopCode"] == "TaskFailedToStart" and "exitCode" not in ended["containers"][0]
    assert ended["containers"][0]["reason"].startswith("CannotPullContainerError")

    for code in ["TerminationNotice", "InfrastructureHealth", "ServiceSchedulerInitiated"]:
        arn = run_one()
        reaches(arn, "RUNNING")
        control("POST", f"tasks/{arn.rsplit('/', 1)[1]}/stop", {"code": code, "reason": "because"})
        assert describe(arn)["tasks"][0]["stopCode"] == code


def tags():
    arn = run_one(tags=[{"key": "a", "value": "1"}], propagateTags="TASK_DEFINITION")
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "2"}, {"key": "b", "value": ""}])
    assert {t["key"]: t["value"] for t in ecs.list_tags_for_resource(resourceArn=arn)["tags"]} == {"a": "2", "b": ""}
    ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": ""}]
    definition = ecs.describe_task_definition(taskDefinition="bridge")["taskDefinition"]["taskDefinitionArn"]
    ecs.tag_resource(resourceArn=definition, tags=[{"key": "new", "value": "1"}])
    found = ecs.describe_task_definition(taskDefinition="bridge", include=["TAGS"])["tags"]
    assert {tag["key"] for tag in found} == {"k", "new"}
    missing = definition.replace("bridge", "nothing")
    assert refusal(ecs.tag_resource, resourceArn=missing, tags=[{"key": "a", "value": ""}])[0] == "ResourceNotFoundException"
    assert refusal(ecs.tag_resource, resourceArn=arn, tags=[{"key": "aws:x", "value": ""}])[0] == "InvalidParameterException"
    ecs.stop_task(cluster="default", task=arn)
    assert ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [], "StopTask deletes tags"


def credentials():
    def code(operation="list_tasks", **settings):
        return refusal(getattr(client(endpoint, **settings), operation))[0]

    assert code(key="AKIAUNKNOWN000000000") == "UnrecognizedClientException"
    assert code(token="unexpected") == "UnrecognizedClientException"
    assert code(region="us-east-1") == "InvalidSignatureException"
    control("POST", "deny/RunTask")
    denied, message = refusal(run)
    assert denied == "AccessDeniedException" and "is not authorized to perform: ecs:RunTask" in message
    control("POST", "allow/RunTask")
    control("POST", "credentials/accept?key=AKIASECOND0000000000")
    client(endpoint, key="AKIASECOND0000000000").list_tasks()
    control("POST", "credentials/revoke?key=AKIASECOND0000000000")
    assert code(key="AKIASECOND0000000000") == "UnrecognizedClientException"

    sts = client(endpoint, "sts")
    assert sts.get_caller_identity()["Account"] == "123456789012"
    role = "arn:aws:iam::123456789012:role/runners"
    answer = sts.assume_role(RoleArn=role, RoleSessionName="paddock", DurationSeconds=900)
    assumed = answer["Credentials"]
    assert answer["AssumedRoleUser"]["Arn"].endswith(":assumed-role/runners/paddock")
    settings = {"key": assumed["AccessKeyId"], "secret": assumed["SecretAccessKey"], "token": assumed["SessionToken"]}
    client(endpoint, **settings).list_tasks()
    assert client(endpoint, "sts", **settings).get_caller_identity()["Arn"].endswith("runners/paddock")
    assert code(key=settings["key"]) == "UnrecognizedClientException", "the session token has to come along"
    control("POST", "credentials/expire")
    assert code(**settings) == "ExpiredTokenException"
    control("POST", "deny/AssumeRole")
    assert refusal(sts.assume_role, RoleArn=role, RoleSessionName="paddock")[0] == "AccessDenied"
    control("POST", "allow/AssumeRole")
    unknown = client(endpoint, "sts", key="AKIAUNKNOWN000000000")
    assert refusal(unknown.get_caller_identity)[0] == "InvalidClientTokenId"


def faults():
    for name in ["AccessDeniedException", "BlockedException", "ClientException", "ClusterNotFoundException",
                 "ConflictException", "InvalidParameterException", "PlatformUnknownException", "ServerException",
                 "PlatformTaskDefinitionIncompatibilityException", "UnsupportedFeatureException"]:
        status = 500 if name == "ServerException" else 400
        control.fault("RunTask", {"exception": {"status": status, "code": name, "message": "on request"}})
        try:
            run()
            raise AssertionError(f"no {name}")
        except getattr(ecs.exceptions, name) as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == status
            assert error.response["Error"]["Message"] == "on request" and error.response["ResponseMetadata"]["RequestId"]
    control.fault("ListTasks", {"body": {"status": 503, "body": "<html>a proxy speaks</html>"}})
    assert refusal(ecs.list_tasks)[0] == "503"
    for effect in ["refuse", "cutAnswer", {"hang": {"ms": 50}}]:
        control.fault("ListTasks", effect)
        try:
            ecs.list_tasks()
            raise AssertionError(f"{effect}: an answer came")
        except ClientError:
            raise
        except Exception as error:  # noqa: BLE001  (the transport's errors have no common base)
            assert not isinstance(error, AssertionError), error
    control.fault("ListTasks", {"delay": {"ms": 100}})
    begin = time.monotonic()
    ecs.list_tasks()
    assert time.monotonic() - begin >= 0.1
    arn = run_one()
    control.fault("DescribeTasks", {"failures": {"reason": "MISSING"}})
    assert [f["arn"] for f in describe(arn)["failures"]] == [arn], "MISSING is not gone"
    assert describe(arn)["tasks"]


def throttling():
    """The real buckets, filled up first; then a client that retries gets through."""
    def burst(operation, **parameters):
        answers = []

        def one(client_of_thread):
            for _ in range(30):
                try:
                    getattr(client_of_thread, operation)(**parameters)
                    answers.append("ok")
                except ClientError as error:
                    answers.append((error.response["Error"]["Code"], error.response["Error"]["Message"]))

        threads = [threading.Thread(target=one, args=(client(endpoint),)) for _ in range(5)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return answers

    control("POST", "advance?ms=60000")
    begin = time.monotonic()
    answers = burst("list_tasks")
    passed, took = answers.count("ok"), time.monotonic() - begin
    assert 100 <= passed <= 100 + 20 * took + 1, f"{passed} in {took} s"
    assert passed == len(answers) or ("ThrottlingException", "Rate exceeded") in answers
    control("POST", "limits/ListTasks", {"burst": 1, "perSecond": 2.0})
    control("DELETE", "requests")
    patient = client(endpoint, attempts=8)
    [patient.list_tasks() for _ in range(3)]
    seen = control("GET", "requests?operation=ListTasks")
    assert seen["counts"]["ListTasks"] > 3 and seen["exceptions"]["ThrottlingException"] >= 1, "the client retried"
    assert seen["requests"][0]["accessKey"] == KEY
    control("POST", "limits/ListTasks", {"burst": 100, "perSecond": 20.0})
    control("POST", "limits/Fargate", {"burst": 1, "perSecond": 0.1})
    run()
    assert refusal(run) == ("ThrottlingException", "Rate exceeded")
    control("POST", "limits/Fargate", {"burst": 100, "perSecond": 20.0})


for part in [definitions, clusters, combinations, lifecycle, lateness, lists, client_tokens, capacity, strategies, ends, tags,
             credentials, faults, throttling]:
    began = time.monotonic()
    # Buckets that earlier parts have emptied are full again a minute later.
    control("POST", "advance?ms=61000")
    part()
    print(f"{part.__name__}: {time.monotonic() - began:.1f} s")
