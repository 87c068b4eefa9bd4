"""What another machine gets of a job: the command and the config, free of what only this machine knows.

The resolved config is submitted: a later change of the file changes nothing. It is read elsewhere, and others can read
it, so relative paths and URLs with a password are refused.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import launcher
from launcher.preflight.node_facts import source_hash
from sft.absolute_paths import may_be_hub_id
from sft.config import SftConfig
from sft.config_file import ConfigError
from sft.config_paths import named_paths
from sft.config_rules import Problem
from sft.config_yaml import write_yaml
from sft.errors import UserError
from sft.job_config import JobConfig
from sft.url_secrets import without_secrets

ENVIRONMENT = {"RAY_JOB_STOP_WAIT_TIME_S": "1800"}
"""`ray job stop` sends SIGTERM, on which `sft train` saves and ends. If the job has not ended after this many seconds,
it sends SIGKILL. Ray's own 3 are too few for a checkpoint."""


def render_config(job: JobConfig, origin: str) -> str:
    """The YAML that `sft train` reads elsewhere: every field of the run and of `cluster`, with its value.

    Args:
        job: its paths are those of the nodes.
        origin: where the config came from, for messages.

    Raises:
        ConfigError: names all paths that are valid only here, and all URLs that hold a secret.
    """
    problems = [*_relative_paths(job.sft), *_secrets(job.sft)]
    if problems:
        raise ConfigError(origin, problems, job.lines)
    content = job.sft.model_dump(mode="json", by_alias=True) | {"cluster": job.cluster.model_dump(mode="json")}
    return write_yaml(content)


def train_command(job: JobConfig, config: str, is_shipped: bool) -> list[str]:
    """The command that runs there. If the program is not sent along, it has to be the same as here."""
    command = [job.ray.python, "-m", "launcher", "train", config]
    return command if is_shipped else [*command, "--expect-source", source_hash()]


def check_source(expected: str) -> None:
    """Check that the program here is the one that the job was submitted with.

    Raises:
        UserError: it is a different program.
    """
    if (here := source_hash()) != expected:
        raise UserError(
            f"The job was submitted with the program {expected}, but the program installed here is {here} "
            f"({Path(launcher.__file__).parent}).\n"
            "Install the same on both sides, or send yours along to a Ray cluster: sft submit ray --package PATH"
        )


def _relative_paths(config: SftConfig) -> Iterator[Problem]:
    """An id on the Hub is none. A relative path that exists here is meant as a path."""
    for named in named_paths(config):
        is_id = named.mark.hub is not None and may_be_hub_id(named.path, named.mark.hub)
        if not is_id and not _is_absolute(named.path):
            rule = "is relative, and the job runs elsewhere"
            yield Problem(named.field, named.path, rule, "give the absolute path that it has on the nodes")


def _is_absolute(path: str) -> bool:
    """`~` and variables are those of the node on which `sft train` runs."""
    return "://" in path or path.startswith(("/", "~", "$"))


def _secrets(config: SftConfig) -> Iterator[Problem]:
    for field, value in _texts(config.model_dump(mode="json", by_alias=True)):
        if (shown := without_secrets(value)) != value:
            rule = "holds a password, a query or a webhook (not shown), and others can read what is submitted"
            way_out = "leave it out; put the secret into the environment of the nodes"
            yield Problem(field, shown, rule, way_out)


def _texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Every text of the config with its path; an item of a list is named by its `name`."""
    if isinstance(value, str):
        yield ".".join(path), value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            name = item.get("name", i) if isinstance(item, dict) else i
            yield from _texts(item, (*path, str(name)))
