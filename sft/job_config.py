"""A job: what to train (`sft.config`) and on which machines. One YAML file holds both, and every command reads it here.

The launcher uses the sections about machines; plain torchrun uses only `cluster.gpus_per_worker` and
`cluster.hang_timeout_seconds` of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Tag,
    TypeAdapter,
    ValidationError,
)

from sft.config import SftConfig
from sft.config_construction import ConstructConfig
from sft.config_effects import AffectsNothing
from sft.config_file import (
    ConfigError,
    build_config,
    check_section,
    find_problems,
    quote_overrides,
    read_overrides,
    read_yaml,
)
from sft.config_lines import Lines, find_lines
from sft.config_names import renames_of, with_current_names
from sft.config_rules import Problem
from sft.config_section import Section
from sft.config_yaml import Document
from sft.lineage import with_start
from sft.sizing.gpus import GpuKind


def _workers_kind(value: Any) -> str:
    return "range" if isinstance(value, list | tuple) else "number"


# The form decides which one it is, so that a mistake in one is not also reported as a mistake in the other.
Workers = Annotated[
    Annotated[PositiveInt, Tag("number")] | Annotated[tuple[PositiveInt, PositiveInt], Tag("range")],
    Discriminator(_workers_kind),
]

_MOST = 1e9

Quantity = Annotated[float, Field(ge=1 / _MOST, le=_MOST)]
"""A measured quantity: with absurdly large or small values, the results would not be finite."""


class ClusterConfig(Section):
    """The machines of a job, as requested from Ray."""

    workers: AffectsNothing[Workers] = 1
    """Number of training processes, or `[least, most]`: the job then starts with as many as there is room for."""
    gpus_per_worker: AffectsNothing[NonNegativeFloat] = 0
    """0 trains on CPUs. A worker uses one GPU."""
    cpus_per_worker: AffectsNothing[PositiveInt] = 1
    """CPUs reserved for each worker, and the number of its threads."""
    max_failures: AffectsNothing[Annotated[int, Field(ge=-1)]] = 3
    """How many restarts in a row may fail without a new checkpoint; -1: any number."""
    hang_timeout_seconds: AffectsNothing[Annotated[float, Field(ge=1.0, le=1e6)]] = 900.0
    """A worker without progress for this long counts as hanging: all workers write their stacks to the log and restart.
    At most 11 days, because torch passes some timeouts as 32-bit milliseconds."""
    gpu: AffectsNothing[GpuKind | None] = None
    """The kind of GPU, for `sft plan`: whether the run fits, and how long it takes."""
    expected_mfu: AffectsNothing[Annotated[float, Field(gt=0.0, le=1.0)]] = 0.4
    """For `sft plan`: the share of the GPUs' arithmetic that the training uses (model FLOPs utilisation). The default
    is an assumption: take the value from a run of your own if you have one."""
    price_per_gpu_hour: AffectsNothing[Quantity | None] = None
    """For `sft plan`: what a GPU costs an hour, in any currency."""
    node_mtbf_hours: AffectsNothing[Quantity | None] = None
    """For `sft plan`: the mean time between failures of one node. With `storage_gb_per_second` it says what share of
    the time is training, and how often to save."""
    storage_gb_per_second: AffectsNothing[Quantity | None] = None
    """For `sft plan`: how fast all nodes together write and read checkpoints, in GB (10⁹ bytes) a second."""
    network_gb_per_second: AffectsNothing[Quantity | None] = None
    """For `sft plan`: the bandwidth of a node's network to other nodes, in each direction, in GB (10⁹ bytes) a
    second."""
    restart_seconds: AffectsNothing[Annotated[float, Field(ge=0.0, le=_MOST)]] = 120
    """For `sft plan`: the time from a failure until all ranks run again, including the replacement of a lost node, but
    without reading the checkpoint. The default is an assumption: take the value from a run of your own if you
    have one."""
    preflight: AffectsNothing[bool] = True
    """Whether the nodes are checked before workers are placed; an error keeps the job from starting."""

    @property
    def min_workers(self) -> int:
        """The fewest workers that the job runs with."""
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        """The most workers that the job will have."""
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class SlurmConfig(Section):
    """What `sft submit slurm` asks of Slurm for the machines of `cluster`, and what its script does first."""

    workers_per_node: AffectsNothing[PositiveInt] = 1
    """Workers on a node. `cluster.workers` must be a multiple of it, because the job asks for whole nodes."""
    time_limit_minutes: AffectsNothing[PositiveInt | None] = None
    """The time limit. When it is up, the job is requeued and goes on. Default: the partition's."""
    signal_before_end_seconds: AffectsNothing[Annotated[int, Field(ge=1, le=65535)]] = 300
    """Slurm tells the job to save this long before the time limit: long enough for the current step and a save."""
    memory_gib_per_node: AffectsNothing[PositiveInt | None] = None
    """Memory of a node. Default: Slurm's own; all memory of the node if `exclusive`."""
    exclusive: AffectsNothing[bool] = False
    """Whether the nodes are for this job alone."""
    partition: AffectsNothing[str | None] = None
    """The partition. Default: Slurm's own."""
    account: AffectsNothing[str | None] = None
    """Who is charged. Default: Slurm's own."""
    qos: AffectsNothing[str | None] = None
    """The quality of service. Default: Slurm's own."""
    constraint: AffectsNothing[str | None] = None
    """Features that the nodes must have, such as `a100&nvlink`."""
    options: AffectsNothing[tuple[str, ...]] = ()
    """More options for sbatch, passed as they are, such as `--reservation=spring`."""
    setup: AffectsNothing[str] = ""
    """Shell lines to run first, such as `module load cuda` or `source env/bin/activate`."""
    container: AffectsNothing[tuple[str, ...]] = ()
    """Words to put between srun and its command: options of srun (`--container-image=…`) or a command (`apptainer exec
    …`)."""
    jobs: AffectsNothing[Literal["one", "stages"]] = "one"
    """One job for all stages, or one for each stage, which waits for the job before it."""


class RayConfig(Section):
    """How `sft submit ray` makes a Ray cluster run `sft train`."""

    python: AffectsNothing[str] = "python"
    """The Python of the cluster's nodes: a name on the PATH that Ray was started with, or a path."""
    driver_resources: AffectsNothing[dict[str, PositiveFloat]] = {}
    """Resources to reserve for `sft train` itself, such as `{CPU: 1}`; it may then run on any node. Default: nothing,
    and it runs on the head node, whose loss always ends the job."""


class KubernetesConfig(Section):
    """The pods of `sft submit ray --kuberay`: a head, and those with the workers of `cluster`."""

    image: AffectsNothing[str]
    """The image of all pods: Ray, this package and what it needs. A digest (`registry/sft@sha256:…`) pins it."""
    volumes: AffectsNothing[dict[str, Annotated[str, Field(pattern="^/")]]]
    """PersistentVolumeClaim → its mount path in every pod. `run.dir` and `data.cache_dir` must be on them, so they have
    to allow ReadWriteMany."""
    memory_gib_per_pod: AffectsNothing[PositiveInt]
    """Memory of a pod with workers."""
    workers_per_pod: AffectsNothing[PositiveInt] = 1
    """Workers in a pod. `cluster.workers` must be a multiple of it."""
    shm_gib_per_pod: AffectsNothing[Annotated[int, Field(ge=2)]] = 8
    """The size of /dev/shm, which NCCL and Ray use. It counts as memory of the pod."""
    head_cpus: AffectsNothing[PositiveInt] = 4
    """CPUs of the head pod, which prepares the data and runs no worker."""
    head_memory_gib: AffectsNothing[PositiveInt] = 16
    """Memory of the head pod."""
    retries: AffectsNothing[Annotated[int, Field(ge=0)]] = 3
    """How many new Ray clusters the run may go on with after one has failed."""
    namespace: AffectsNothing[str | None] = None
    """The namespace. Default: kubectl's."""
    service_account: AffectsNothing[str | None] = None
    """The service account of all pods. Default: the namespace's."""
    node_selector: AffectsNothing[dict[str, str]] = {}
    """Labels of the nodes that the pods with workers may be on."""
    secrets: AffectsNothing[tuple[str, ...]] = ()
    """Names of Secrets whose keys become environment variables of all pods, such as HF_TOKEN."""


class Machines(Section):
    """The sections about machines."""

    cluster: ClusterConfig = ClusterConfig()
    """The machines."""
    slurm: SlurmConfig = SlurmConfig()
    """What `sft submit slurm` asks for."""
    ray: RayConfig = RayConfig()
    """How `sft submit ray` runs the job."""
    kubernetes: AffectsNothing[KubernetesConfig | None] = None
    """The pods of `sft submit ray --kuberay`."""


class Sections(Machines):
    """Those, and what is made before a training."""

    construct_: AffectsNothing[ConstructConfig | None] = Field(default=None, alias="construct")
    """What `sft construct` makes."""


class JobFile(Sections, SftConfig):
    """All sections that a config may have."""


class JobConfig(Sections):
    """A whole job, as it was read."""

    sft: SftConfig
    """What to train."""
    lines: AffectsNothing[Lines]
    """The lines of the fields in the file, for messages."""
    notes: AffectsNothing[tuple[str, ...]]
    """Remarks about the config that are not problems."""


def load_job(path: Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job from its file, and apply overrides.

    Raises:
        UserError: the file cannot be read, or `ConfigError` with all problems of the job.
    """
    return read_job(read_yaml(path), str(path), overrides)


def read_job(document: Document, origin: str, overrides: Sequence[str] = ()) -> JobConfig:
    """The job in a mapping, with overrides; `origin` names it in messages.

    Raises:
        UserError: `ConfigError` with all problems of the job.
    """
    content, renames = with_current_names(document.content, JobFile)
    content, given = read_overrides(content, overrides, JobFile)
    content, of_values = with_current_names(content, JobFile)
    renames += [*of_values, *(rename for text in overrides for rename in renames_of(text.partition("=")[0], JobFile))]
    lines = find_lines(document, content, given, JobFile)
    content, of_start = with_start(content)
    found = {n: check_section(adapter, content.pop(n, default), n) for n, (adapter, default) in _SECTIONS.items()}
    sections = {name: section for name, (_, section) in found.items()}
    cluster, slurm = sections["cluster"], sections["slurm"]
    problems = find_problems(content, of_start, JobFile)
    problems += [problem for of_section, _ in found.values() for problem in of_section]
    problems += _cluster_rules(cluster) if cluster is not None else []
    problems += _construct_rules(sections["construct"])
    # Rules between two sections judge what was given, not the default of a section that cannot be read.
    problems += _slurm_rules(cluster, slurm) if not found["cluster"][0] + found["slurm"][0] else []
    problems += [*_group_rules(cluster, content), *_engine_rules(cluster, content)] if not found["cluster"][0] else []
    if problems:
        raise ConfigError(origin, quote_overrides(problems, given), lines)
    return JobConfig(sft=build_config(content), **sections, lines=lines, notes=tuple(map(str, renames)))


_SECTIONS: dict[str, tuple[TypeAdapter[Any], Any]] = {
    field.alias or name: (TypeAdapter(field.rebuild_annotation()), field.get_default(call_default_factory=True))
    for name, field in Sections.model_fields.items()
}
"""The sections that are not of `SftConfig`, each with how it is read and its default."""


def _construct_rules(construct: ConstructConfig | None) -> list[Problem]:
    if construct is None:
        return []
    # Few jobs have such a section.
    from sft.construction.filters.registry import filter_problems  # noqa: PLC0415
    from sft.construction.recipes.registry import recipe_problems  # noqa: PLC0415
    from sft.construction.teacher_choice import choice_problems, teacher_problems  # noqa: PLC0415

    problems = [*recipe_problems(construct.recipes), *filter_problems(construct.filters), *choice_problems(construct)]
    if construct.teacher is not None:
        problems += teacher_problems(construct.teacher, construct.recipes)
    budget = construct.budget
    if budget.cost is not None and budget.price_per_million_tokens is None:
        rule, way_out = "no price is known", "give construct.budget.price_per_million_tokens: [prompts, answers]"
        problems.append(Problem("construct.budget.cost", budget.cost, rule, way_out))
    return problems


def _cluster_rules(cluster: ClusterConfig) -> list[Problem]:
    problems = []
    if cluster.min_workers > cluster.max_workers:
        rule = "the least number of workers is larger than the most"
        problems.append(Problem("cluster.workers", _given(cluster), rule, "swap the two"))
    if cluster.gpus_per_worker not in (0, 1):
        rule = "a worker drives one GPU, or none"
        problems.append(
            Problem("cluster.gpus_per_worker", cluster.gpus_per_worker, rule, "choose 0 or 1, and more workers")
        )
    return problems


def _given(cluster: ClusterConfig) -> int | list[int]:
    """The number of workers as it is in the file."""
    return cluster.workers if isinstance(cluster.workers, int) else list(cluster.workers)


def _given_in(content: Mapping[str, Any], section: str, field: str, default: Any) -> Any:
    """A field as it was given; its own problems are reported elsewhere."""
    fields = content.get(section)
    return fields.get(field, default) if isinstance(fields, dict) else default


def _group_rules(cluster: ClusterConfig, content: Mapping[str, Any]) -> list[Problem]:
    """Groups of workers: whole ones alone make sense."""
    groups = [
        ("deepspeed", "hpz_partition_size", "this many workers share a copy of the parameters"),
        ("train", "sequence_parallel", "this many workers share each micro-batch"),
    ]
    return [problem for group in groups for problem in _group_rule(cluster, content, *group)]


_COUNT: TypeAdapter[int] = TypeAdapter(PositiveInt)


def _group_rule(
    cluster: ClusterConfig, content: Mapping[str, Any], section: str, field: str, what: str
) -> Iterator[Problem]:
    try:
        size = _COUNT.validate_python(_given_in(content, section, field, 1))  # it may be given as "2" or 2.0
    except ValidationError:  # its own problem
        return
    least, most = cluster.min_workers, cluster.max_workers
    if not (least % size or most % size):
        return
    workers = most if least == most else f"{least} to {most}"
    way_out = "choose the number of workers on a node, and multiples of it for cluster.workers"
    yield Problem(f"{section}.{field}", size, f"{what}, but {workers} is not a multiple of it", way_out)


def _engine_rules(cluster: ClusterConfig, content: Mapping[str, Any]) -> list[Problem]:
    """What needs one worker, or a GPU, and has none."""
    problems = []
    engine = _given_in(content, "train", "engine", "auto")
    if engine == "plain" and cluster.max_workers > 1:
        workers = cluster.max_workers if cluster.min_workers == cluster.max_workers else f"up to {cluster.max_workers}"
        rule = f"the plain engine is for one worker, but there are {workers} (cluster.workers)"
        problems.append(Problem("train.engine", engine, rule, "set auto, or cluster.workers to 1"))
    of_gpus: list[tuple[str, str, Sequence[Any]]] = [
        ("model", "kernels", ("liger",)),
        ("train", "flash_attention", (2, 3, 4)),
    ]
    for section, field, values in of_gpus:
        value = _given_in(content, section, field, "auto")
        if cluster.gpus_per_worker == 0 and value in values:
            rule = "needs a GPU, but cluster.gpus_per_worker is 0"
            problems.append(Problem(f"{section}.{field}", value, rule, "set auto, or cluster.gpus_per_worker to 1"))
    return problems


def _slurm_rules(cluster: ClusterConfig, slurm: SlurmConfig) -> list[Problem]:
    problems = []
    if cluster.min_workers % slurm.workers_per_node or cluster.max_workers % slurm.workers_per_node:
        rule = (
            f"a node holds {slurm.workers_per_node} workers (slurm.workers_per_node), and the job asks for whole nodes"
        )
        way_out = f"choose multiples of {slurm.workers_per_node}, or another slurm.workers_per_node"
        problems.append(Problem("cluster.workers", _given(cluster), rule, way_out))
    limit = slurm.time_limit_minutes
    if limit is not None and slurm.signal_before_end_seconds >= 60 * limit:
        rule = f"the time limit is {60 * limit} seconds (slurm.time_limit_minutes: {limit})"
        path = "slurm.signal_before_end_seconds"
        problems.append(Problem(path, slurm.signal_before_end_seconds, rule, "give more time, or signal later"))
    return problems
