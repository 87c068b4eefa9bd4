"""A local S3 server, moto's, with keys that may do this and not that. Nothing leaves the loopback interface."""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple

import boto3
import requests

BUCKET = "bucket"
_NUMBERS = count(1)


class S3Server(NamedTuple):
    """One bucket, and what a process must have in its environment to use it."""

    environment: dict[str, str]

    def url(self, name: str) -> str:
        """A place of its own in the bucket."""
        return f"s3://{BUCKET}/{name}"

    def make_keys(self, *actions: str) -> dict[str, str]:
        """The keys, as fsspec wants them, of a new user who may do these (such as `s3:GetObject`) and nothing else."""
        iam, name = self.client("iam"), f"user-{next(_NUMBERS)}"
        iam.create_user(UserName=name)
        allowed = [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}]
        policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
        iam.put_user_policy(UserName=name, PolicyName="only", PolicyDocument=policy)
        keys = iam.create_access_key(UserName=name)["AccessKey"]
        return {"key": keys["AccessKeyId"], "secret": keys["SecretAccessKey"]}

    def client(self, service: str) -> Any:
        """Amazon's own client, which shares nothing with fsspec."""
        names: Mapping[str, str] = self.environment
        session = boto3.Session(names["AWS_ACCESS_KEY_ID"], names["AWS_SECRET_ACCESS_KEY"])
        return session.client(service, region_name=names["AWS_DEFAULT_REGION"], endpoint_url=names["AWS_ENDPOINT_URL"])


@contextmanager
def running_s3_server() -> Iterator[S3Server]:
    """Start it, with keys that may do everything."""
    from moto.server import ThreadedMotoServer  # noqa: PLC0415  (most of a second, which each process of tests would take)

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else a line for each request
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # Nothing of this machine's own settings, and no look into the network for keys.
        environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        open_to_all = S3Server(environment)
        open_to_all.client("s3").create_bucket(Bucket=BUCKET)
        keys = open_to_all.make_keys("*")
        # From now on keys and what they may do are looked at.
        requests.post(f"http://{host}:{port}/moto-api/reset-auth", data=b"0", timeout=30).raise_for_status()
        yield S3Server({**environment, "AWS_ACCESS_KEY_ID": keys["key"], "AWS_SECRET_ACCESS_KEY": keys["secret"]})
    finally:
        server.stop()
