"""The happy path of five runners, from the cluster to the last stopped task, for two services that call themselves ECS.

usage: happy.py ENDPOINT {documented|moto}

Each look at the service is a check with a name and what AWS documents. Against the simulation (`documented`) every check
has to come out so. Against moto, those in MOTO have to come out as the table says, so that the table stays true, and all
others as documented. The table is printed at the end.
"""

import sys
import urllib.request

import boto3  # noqa: F401  (fails early and clearly when the witnesses are not installed)
from common import client, eventually, fargate_definition, override, refusal

# Where moto 5.2.5 differs from the documentation: what it does, and what stays unseen with it.
MOTO = {
    "a new task's state": ("RUNNING", "pending counts, start deadlines"),
    "a task's id": ("UUID with dashes", "parsing of ARNs"),
    "the same client token again": ("another task", "duplicate runners after a retry"),
    "the same client token, other parameters": ("another task", "duplicate runners after a retry"),
    "entries of a page of two": (6, "faults of paging"),
    "pages of six entries, two each": (1, "faults of paging"),
    "startedAt of a running task": (False, "the age of a runner"),
    "a task that is not there": ("nothing at all", "the logic of lost tasks"),
    "more than 100 tasks described": ("accepted", "batches that are too large"),
    "overrides of 9,000 characters": ("accepted", "the limit that a JIT configuration meets"),
    "an override of no container": ("accepted", "a wrong containerName"),
    "eleven tasks at once": ("accepted", "a count that is too high"),
    "stop code of a stopped task": (None, "the reason of an end"),
    "tags after StopTask": (True, "an identity that is kept in tags alone"),
    "stopping an unknown task": ("500", "idempotent stops"),
    "running an INACTIVE definition": ("accepted", "a definition that was retired too early"),
    "a family means its newest ACTIVE revision": (2, "a definition that was retired too early"),
}

STARTED_BY = "paddock-witness"
COMMON = {"cluster": "witness", "taskDefinition": "linux", "startedBy": STARTED_BY}


class Checks:
    def __init__(self, documented):
        self.documented = documented
        self.seen = set()

    def __call__(self, name, got, wanted):
        expected = MOTO[name][0] if not self.documented and name in MOTO else wanted
        assert got == expected, f"{name}: {got!r} instead of {expected!r}"
        self.seen.add(name)
        if name in MOTO:
            assert MOTO[name][0] != wanted, f"{name}: no difference, remove it from MOTO"

    def table(self):
        unused = set(MOTO) - self.seen
        assert not unused, f"never checked: {unused}"
        print("| where moto differs | moto | unseen with it |\n| --- | --- | --- |")
        for name, (value, unseen) in MOTO.items():
            print(f"| {name} | {value} | {unseen} |")


def network(endpoint, documented):
    """A network that exists: moto asks its EC2, which has a default one."""
    subnet, group = "subnet-1", "sg-1"
    if not documented:
        ec2 = client(endpoint, "ec2")
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    return {"awsvpcConfiguration": {"subnets": [subnet], "securityGroups": [group]}}


def outcome(call, **parameters):
    """`accepted`, or the code of the refusal."""
    try:
        return refusal(call, **parameters)[0]
    except AssertionError:
        return "accepted"


def keep_tasks_alive(endpoint):
    """Stops moto's tasks from moving on with every look."""
    body = b'{"model_name":"ecs::task","transition":{"progression":"manual","times":1000000}}'
    url = f"{endpoint}/moto-api/state-manager/set-transition"
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    urllib.request.urlopen(request).close()


def definitions(ecs, check):
    registered = ecs.register_task_definition(
        **fargate_definition("linux"), tags=[{"key": "paddock.dev/template-hash", "value": "abc"}]
    )["taskDefinition"]
    check("the first revision", (registered["family"], registered["revision"], registered["status"]), ("linux", 1, "ACTIVE"))
    check("compatibilities", "FARGATE" in registered["compatibilities"], True)
    second = ecs.register_task_definition(**fargate_definition("linux"))["taskDefinition"]["taskDefinitionArn"]
    described = ecs.describe_task_definition(taskDefinition="linux", include=["TAGS"])
    check("a family means its newest revision", described["taskDefinition"]["revision"], 2)
    first = ecs.describe_task_definition(taskDefinition="linux:1", include=["TAGS"])
    check("tags of a definition", first["tags"], [{"key": "paddock.dev/template-hash", "value": "abc"}])
    arns = ecs.list_task_definitions(familyPrefix="linux")["taskDefinitionArns"]
    check("revisions in order", [arn.rsplit(":", 1)[1] for arn in arns], ["1", "2"])
    code, _ = refusal(ecs.describe_task_definition, taskDefinition="nothing")
    check("an unknown definition", code, "ClientException")
    return second


def run(ecs, number, **changes):
    parameters = COMMON | {
        "launchType": "FARGATE",
        "clientToken": f"runner-{number}",
        "tags": [{"key": "paddock.dev/runner", "value": f"runner-{number}"}],
        "overrides": override(ACTIONS_RUNNER_INPUT_JITCONFIG=f"jit-{number}", PADDOCK_RUNNER=f"runner-{number}"),
    } | changes
    return ecs.run_task(**{name: value for name, value in parameters.items() if value is not None})


def start(ecs, check):
    arns = []
    for number in range(5):
        answer = run(ecs, number)
        (task,) = answer["tasks"]
        arns.append(task["taskArn"])
        if number == 0:
            check("failures of a good call", answer["failures"], [])
            check("a new task's state", task["lastStatus"], "PROVISIONING")
            check("a new task's desired state", task["desiredStatus"], "RUNNING")
            identity = task["taskArn"].rsplit("/", 1)[1]
            shape = "32 hexadecimal digits" if len(identity) == 32 and "-" not in identity else "UUID with dashes"
            check("a task's id", shape, "32 hexadecimal digits")
    again = run(ecs, 0)["tasks"][0]["taskArn"]
    check("the same client token again", "the same task" if again == arns[0] else "another task", "the same task")
    other = outcome(run, ecs=ecs, number=0, startedBy="other")
    check("the same client token, other parameters", "another task" if other == "accepted" else other, "ConflictException")
    return arns


def observe(ecs, check, arns):
    def listed(**filters):
        pages = ecs.get_paginator("list_tasks").paginate(cluster="witness", startedBy=STARTED_BY, **filters)
        return [arn for page in pages for arn in page["taskArns"]]

    shown = eventually(lambda: listed(desiredStatus="RUNNING"), lambda found: set(arns) <= set(found), "listed")
    check("tasks of somebody else in the list", [arn for arn in shown if arn not in arns and len(shown) == 5], [])
    check("STOPPED tasks while all run", listed(desiredStatus="STOPPED"), [])
    check("PENDING is never a desired state", listed(desiredStatus="PENDING"), [])

    def described():
        return ecs.describe_tasks(cluster="witness", tasks=arns, include=["TAGS"])["tasks"]

    running = eventually(described, lambda tasks: {t["lastStatus"] for t in tasks} == {"RUNNING"}, "running")
    check("tasks described", len(running), 5)
    environments = [
        {pair["name"]: pair["value"] for pair in task["overrides"]["containerOverrides"][0]["environment"]}
        for task in sorted(running, key=lambda task: arns.index(task["taskArn"]))
    ]
    check("each task has its own JIT configuration",
          [e["ACTIONS_RUNNER_INPUT_JITCONFIG"] for e in environments], [f"jit-{n}" for n in range(5)])
    check("startedBy", {task["startedBy"] for task in running}, {STARTED_BY})
    check("startedAt of a running task", "startedAt" in running[0], True)
    check("tags when asked for", all(any(tag["key"] == "paddock.dev/runner" for tag in t["tags"]) for t in running), True)
    silent = ecs.describe_tasks(cluster="witness", tasks=arns[:1])["tasks"][0]
    check("tags when not asked for", silent.get("tags", []), [])


def pages(ecs, check, arns):
    sixth = run(ecs, 5, startedBy="six")["tasks"][0]["taskArn"]
    rest = [run(ecs, number, startedBy="six")["tasks"][0]["taskArn"] for number in range(6, 11)]

    def all_pages():
        paginator = ecs.get_paginator("list_tasks")
        return list(paginator.paginate(cluster="witness", startedBy="six", PaginationConfig={"PageSize": 2}))

    found = eventually(all_pages, lambda pages: sum(len(p["taskArns"]) for p in pages) == 6, "six listed")
    check("pages of six entries, two each", len(found), 3)
    check("entries of a page of two", len(found[0]["taskArns"]), 2)
    check("entries of all pages", {arn for page in found for arn in page["taskArns"]}, {sixth, *rest})
    return [sixth, *rest]


def strategy(ecs, check):
    spot = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    answer = run(ecs, 20, launchType=None, capacityProviderStrategy=spot)
    check("capacity provider of a task by strategy", answer["tasks"][0].get("capacityProviderName"), "FARGATE_SPOT")
    both = outcome(run, ecs=ecs, number=21, capacityProviderStrategy=spot)
    check("launch type and strategy together", both, "InvalidParameterException")
    return [answer["tasks"][0]["taskArn"]]


def limits(ecs, check):
    missing = "arn:aws:ecs:eu-west-1:123456789012:task/witness/" + "0" * 32
    answer = ecs.describe_tasks(cluster="witness", tasks=[missing])
    failures = [failure["reason"] for failure in answer["failures"]]
    check("a task that is not there", failures[0] if failures else "nothing at all", "MISSING")
    many = outcome(ecs.describe_tasks, cluster="witness", tasks=[missing[:-3] + f"{n:03}" for n in range(101)])
    check("more than 100 tasks described", many, "InvalidParameterException")
    long = override(ACTIONS_RUNNER_INPUT_JITCONFIG="x" * 9000)
    check("overrides of 9,000 characters", outcome(run, ecs=ecs, number=30, overrides=long), "InvalidParameterException")
    wrong = override(container="nobody", A="b")
    check("an override of no container", outcome(run, ecs=ecs, number=31, overrides=wrong), "InvalidParameterException")
    check("eleven tasks at once", outcome(run, ecs=ecs, number=32, count=11), "InvalidParameterException")
    code, message = refusal(run, ecs=ecs, number=33, cluster="nowhere")
    check("an unknown cluster", (code, message), ("ClusterNotFoundException", "Cluster not found."))
    failures = ecs.describe_clusters(clusters=["nowhere"])["failures"]
    check("an unknown cluster described", [failure["reason"] for failure in failures], ["MISSING"])


def tags(ecs, check, arn):
    ecs.tag_resource(resourceArn=arn, tags=[{"key": "team", "value": "ci"}])
    found = {tag["key"]: tag["value"] for tag in ecs.list_tags_for_resource(resourceArn=arn)["tags"]}
    check("tags of a task", found, {"paddock.dev/runner": "runner-0", "team": "ci"})


def stop(ecs, check, arns, others):
    # A task that was started just now may not be known yet.
    eventually(
        lambda: ecs.describe_tasks(cluster="witness", tasks=others)["tasks"],
        lambda tasks: len(tasks) == len(others),
        "described",
    )
    stopped = ecs.stop_task(cluster="witness", task=arns[0], reason="scaled down")["task"]
    check("desired state after StopTask", stopped["desiredStatus"], "STOPPED")
    for arn in [*arns[1:], *others]:
        ecs.stop_task(cluster="witness", task=arn, reason="scaled down")

    def described():
        return ecs.describe_tasks(cluster="witness", tasks=arns, include=["TAGS"])["tasks"]

    ended = eventually(described, lambda tasks: {t["lastStatus"] for t in tasks} == {"STOPPED"}, "stopped")
    check("reason of a stopped task", {task["stoppedReason"] for task in ended}, {"scaled down"})
    check("stop code of a stopped task", ended[0].get("stopCode"), "UserInitiated")
    check("tags after StopTask", any(task["tags"] for task in ended), False)

    def listed(status):
        pages = ecs.get_paginator("list_tasks").paginate(cluster="witness", startedBy=STARTED_BY, desiredStatus=status)
        return {arn for page in pages for arn in page["taskArns"]}

    eventually(lambda: listed("STOPPED"), lambda found: set(arns) <= found, "listed as stopped")
    eventually(lambda: listed("RUNNING"), lambda found: not found & set(arns), "listed as running no more")
    code = outcome(ecs.stop_task, cluster="witness", task="arn:aws:ecs:eu-west-1:123456789012:task/witness/" + "0" * 32)
    check("stopping an unknown task", code, "InvalidParameterException")


def retire(ecs, check, arn):
    retired = ecs.deregister_task_definition(taskDefinition=arn)["taskDefinition"]
    check("a deregistered definition", retired["status"], "INACTIVE")
    check("running an INACTIVE definition", outcome(run, ecs=ecs, number=40, taskDefinition=arn), "InvalidParameterException")
    described = ecs.describe_task_definition(taskDefinition="linux")["taskDefinition"]
    check("a family means its newest ACTIVE revision", described["revision"], 1)


def main():
    endpoint, which = sys.argv[1:]
    check = Checks(documented=which == "documented")
    if not check.documented:
        keep_tasks_alive(endpoint)
    ecs = client(endpoint)
    COMMON["networkConfiguration"] = network(endpoint, check.documented)
    cluster = ecs.create_cluster(clusterName="witness", capacityProviders=["FARGATE", "FARGATE_SPOT"])["cluster"]
    check("a cluster", (cluster["clusterName"], cluster["status"]), ("witness", "ACTIVE"))
    newest = definitions(ecs, check)
    arns = start(ecs, check)
    observe(ecs, check, arns)
    others = pages(ecs, check, arns) + strategy(ecs, check)
    limits(ecs, check)
    tags(ecs, check, arns[0])
    stop(ecs, check, arns, others)
    retire(ecs, check, newest)
    check.table()


main()
