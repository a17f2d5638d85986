"""What both scripts share: clients, checks, waiting."""

import json
import time
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

REGION = "eu-west-1"
KEY, SECRET = "AKIASIMULATED0000000", "simulated/secret/key/0123456789abcdefghi"
PATIENCE = 30.0


def client(endpoint, service="ecs", key=KEY, secret=SECRET, token=None, region=REGION, attempts=1):
    """A client that does not retry unless told to."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name=region,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=20),
    )


def refusal(call, **parameters):
    """The code and the message of the error that the call ends in; fails when there is none."""
    try:
        answer = call(**parameters)
    except ClientError as error:
        return error.response["Error"]["Code"], error.response["Error"]["Message"]
    raise AssertionError(f"not refused: {answer}")


def eventually(look, so, what):
    """Looks until it is so; gives what was seen."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = look()
        if so(seen):
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: still {seen}")
        time.sleep(0.02)


def fargate_definition(family, **changes):
    """The parameters of a definition that Fargate runs. Memory stands at the container too, which moto needs."""
    return {
        "family": family,
        "requiresCompatibilities": ["FARGATE"],
        "networkMode": "awsvpc",
        "cpu": "1024",
        "memory": "2048",
        "containerDefinitions": [{"name": "runner", "image": "runner:1", "memory": 2048, "essential": True}],
    } | changes


NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}}


def override(container="runner", **environment):
    pairs = [{"name": name, "value": value} for name, value in environment.items()]
    return {"containerOverrides": [{"name": container, "environment": pairs}]}


class Control:
    """The control API of the simulation."""

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def __call__(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_control/{path}", data=data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from error
        return json.loads(text) if text else None

    def fault(self, operation, effect, times=1):
        self("POST", "faults", {"operation": operation, "remaining": times, "effect": effect})
