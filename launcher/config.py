"""A job: what to train (`sft.config`) and on which machines. One YAML file holds both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Discriminator, Field, NonNegativeFloat, PositiveFloat, PositiveInt, Tag, TypeAdapter

from sft.config import HANG_TIMEOUT_SECONDS, Section, SftConfig
from sft.config_file import ConfigError, build_config, check_section, find_problems, override, read_yaml
from sft.config_rules import Problem


def _workers_kind(value: Any) -> str:
    return "range" if isinstance(value, list | tuple) else "number"


# Told apart by their form, so that a mistake in one is not also reported as a mistake in the other.
Workers = Annotated[
    Annotated[PositiveInt, Tag("number")] | Annotated[tuple[PositiveInt, PositiveInt], Tag("range")],
    Discriminator(_workers_kind),
]


class ClusterConfig(Section):
    """The machines of a job, as they are asked of Ray."""

    workers: Workers = 1
    """Training processes, or `[least, most]`: the job starts with as many as there is room for."""
    gpus_per_worker: NonNegativeFloat = 0
    """0 trains on CPUs. A worker uses one GPU."""
    cpus_per_worker: PositiveInt = 1
    """CPUs reserved for each worker, and threads it uses."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Starts again in a row that may fail without a new checkpoint in between; -1: any number."""
    hang_timeout_seconds: PositiveFloat = HANG_TIMEOUT_SECONDS
    """A worker without progress for so long is taken for hanging: all write down where they stand, and start again."""

    @property
    def max_workers(self) -> int:
        """The most workers that the job will have."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class JobConfig(NamedTuple):
    """A whole job."""

    sft: SftConfig
    cluster: ClusterConfig


def load_job(path: Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job from its file, with overrides put in.

    Raises:
        UserError: the file cannot be read, or `ConfigError` with all that is wrong with the job.
    """
    content = override(read_yaml(path), overrides)
    given: Any = content.pop("cluster", {})
    problems, cluster = check_section(TypeAdapter(ClusterConfig), given, "cluster")
    problems += _cluster_rules(cluster) if cluster is not None else []
    problems = find_problems(content, other_sections=("cluster",)) + problems
    if problems:
        raise ConfigError(str(path), problems)
    return JobConfig(build_config(content), cluster)


def _cluster_rules(cluster: ClusterConfig) -> list[Problem]:
    problems = []
    if not isinstance(cluster.workers, int) and cluster.workers[0] > cluster.workers[1]:
        rule = "the least number of workers is larger than the most"
        problems.append(Problem("cluster.workers", list(cluster.workers), rule, "exchange the two"))
    if cluster.gpus_per_worker not in (0, 1):
        rule = "a worker drives one GPU, or none"
        problems.append(
            Problem("cluster.gpus_per_worker", cluster.gpus_per_worker, rule, "choose 0 or 1, and more workers")
        )
    return problems
