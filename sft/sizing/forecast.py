"""A run's needs in one object: for each stage, for each worker, and in all."""

from typing import Any, NamedTuple

from sft.config import DTYPE_BYTES, SftConfig
from sft.engine.choice import EngineName, choose_engine
from sft.errors import UserError
from sft.model_sizes import ImpossibleSizesError
from sft.printable import counted
from sft.recomputed_layers import AUTO, packs_or_one
from sft.sizing.advice import Change, advise
from sft.sizing.choice import SETTLED, Gpus, Option, in_words, options, settle
from sft.sizing.communication import Communication, step_communication
from sft.sizing.fit import GIB, Job, largest_packs_per_micro_batch, with_allowances
from sft.sizing.flops import TokenCounts, training_flops, training_seconds
from sft.sizing.goodput import FailureCosts
from sft.sizing.gpus import GPUS, GpuKind
from sft.sizing.host_memory import HostMemory, host_memory
from sft.sizing.idle_settings import idle_settings
from sft.sizing.intervals import Interval, compare_intervals, failure_costs
from sft.sizing.memory import Memory, peak_memory
from sft.sizing.model_shape import ModelShape
from sft.sizing.nodes import Nodes
from sft.sizing.planned_stages import PlannedStage, read_planned
from sft.sizing.read_shape import read_shape
from sft.sizing.row_costs import RowsOfStage
from sft.sizing.setting import Buckets, Setting
from sft.sizing.storage import Storage, plan_storage
from sft.sizing.traffic import Traffic, step_traffic
from sft.step_plan import StepPlan


class Hardware(NamedTuple):
    """The machines, as far as a forecast depends on them."""

    min_workers: int
    max_workers: int
    has_gpus: bool
    gpu: GpuKind | None
    expected_mfu: float
    """The share of the GPUs' arithmetic that is used."""
    price_per_gpu_hour: float | None
    nodes: Nodes

    def gpus(self, num_workers: int) -> Gpus:
        """What this number of workers trains on."""
        capacity = round(GPUS[self.gpu].memory_gib * GIB) if self.has_gpus and self.gpu is not None else None
        return Gpus(num_workers, capacity, self.nodes.count(num_workers) > 1)


class Model(NamedTuple):
    """The model's size."""

    family: str
    num_parameters: int
    parts: dict[str, int]
    """Number of parameters by their role."""


class StageForecast(NamedTuple):
    """One stage with the most workers. Values that are not known before `sft prepare` are None."""

    name: str
    packs_per_micro_batch: int
    """As the config says, or as the run will choose."""
    num_packs: int | None
    num_steps: int | None
    num_tokens: int | None
    num_supervised_tokens: int | None
    fill: float | None
    """The share of slots that hold tokens."""
    mixture: tuple[dict[str, Any], ...]
    """Rows of the mixture table; empty before `sft prepare`."""
    is_planned: bool
    """Whether `sft prepare` has made the plan. If not, tokens and times are those of full packs, an upper bound."""
    rows: RowsOfStage | None
    """The cost of one example a row, if examples are not packed."""
    traffic: Traffic | None
    """Of each worker in a step."""
    communication: Communication | None
    """In a step; None if all workers are in one node, or the network is not known."""
    arithmetic_seconds: float | None
    """In a step, at `expected_mfu`."""
    step_seconds: float | None
    """The larger of the arithmetic's and the network's time."""
    seconds: float | None
    cost: float | None
    """In the currency of `price_per_gpu_hour`."""
    intervals: tuple[Interval, ...] = ()
    """How long the stage takes with several checkpoint intervals; empty if the failure rate of nodes is not known."""


class WorkerForecast(NamedTuple):
    """What each worker needs with this number of workers, in the stage that needs the most."""

    num_workers: int
    stage: str
    memory: Memory
    """The largest moment of a step: on the GPU, or in the process if there is no GPU."""
    num_bytes: int
    """The same with allowances: what the GPU must have, or the machine for each process."""
    host: HostMemory
    capacity: int | None
    """What the GPU has; None if its kind is not given."""
    engine: EngineName
    """Which engine it has."""
    buckets: Buckets
    """The limits of ZeRO-3."""
    largest_packs_per_micro_batch: int | None = None
    """What fits; None, and those below empty, if the capacity is not known."""
    changes: tuple[Change, ...] = ()
    """What to change if it does not fit."""
    chosen: str = ""
    """Packs of a micro-batch and recomputed layers, in words."""
    options: tuple[Option, ...] = ()
    """What else could be recomputed, and what it takes."""

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None if the capacity is not known."""
        return None if self.capacity is None else self.num_bytes <= self.capacity


class Forecast(NamedTuple):
    """The whole forecast. Without the model's shape, what depends on it is empty."""

    model: Model | None
    stages: tuple[StageForecast, ...]
    workers: tuple[WorkerForecast, ...]
    """With the fewest workers, and with the most if that differs."""
    storage: Storage | None
    failures: FailureCosts | None
    """With the most workers; None if the failure rate of nodes is not known."""
    findings: tuple[str, ...]
    """What the user should know or do."""


def forecast(config: SftConfig, hardware: Hardware) -> Forecast:
    """The forecast of a run; reads only the model's config.json and the run folder."""
    shape: ModelShape | None = None
    of_model: list[str] = []
    try:
        shape, notes = read_shape(config.model.path)
        of_model += notes
    except ImpossibleSizesError:
        raise
    except UserError as error:
        of_model.append(str(error))
    settled = _settled(config, shape, hardware.gpus(hardware.max_workers))
    planned = read_planned(
        config, hardware.max_workers, [packs_or_one(one.train.packs_per_micro_batch) for one in settled]
    )
    sizes = sorted({hardware.min_workers, hardware.max_workers})
    idle = idle_settings(config, {choose_engine(config, num) for num in sizes}, hardware.has_gpus)
    findings = [*of_model, *planned.notes, *idle]
    stages = tuple(
        _forecast_stage(settled[i], shape, i, stage_plan, hardware) for i, stage_plan in enumerate(planned.stages)
    )
    if shape is None:
        return Forecast(None, stages, (), None, None, tuple(findings))
    workers = tuple(_forecast_worker(config, shape, num, hardware) for num in sizes)
    storage = plan_storage(config, shape, [stage.num_steps for stage in stages], planned.token_store)
    if any(worker.engine == "plain" for worker in workers):
        findings.append("one worker has nothing to split: it has the plain engine, without ZeRO-3 (train.engine)")
    findings += _hardware_findings(config, shape, hardware)
    if config.checkpoint.best is not None and config.checkpoint.best.stop_when_flat is not None:
        findings.append("times are those of whole budgets: a stage may end sooner (checkpoint.best.stop_when_flat)")
    if hardware.has_gpus and hardware.gpu is None:
        findings += _assumed(config, settled[0])
    is_chosen = AUTO in (config.train.packs_per_micro_batch, config.train.activation_checkpointing)
    findings += _node_findings(hardware.nodes, hardware.max_workers, is_chosen and hardware.has_gpus)
    findings += _group_findings(hardware, config.train.sequence_parallel)
    failures = failure_costs(storage, config.checkpoint, hardware.max_workers, hardware.nodes)
    if failures is not None:
        stages = tuple(
            stage._replace(
                intervals=compare_intervals(
                    failures, config.checkpoint, stage.step_seconds, stage.seconds, given.budget.epochs
                )
            )
            for stage, given in zip(stages, config.stages, strict=True)
        )
    model = Model(shape.family, shape.num_parameters, shape.parts)
    return Forecast(model, stages, workers, storage, failures, tuple(findings))


def _settled(config: SftConfig, shape: ModelShape | None, gpus: Gpus) -> list[SftConfig]:
    """The config of each stage, with what the run will choose by the memory of its GPUs."""
    return [settle(config, shape, i, gpus) for i in range(len(config.stages))]


def _forecast_stage(
    config: SftConfig, shape: ModelShape | None, index: int, planned: PlannedStage | None, hardware: Hardware
) -> StageForecast:
    stage, train, num_workers = config.stages[index], config.train, hardware.max_workers
    packs = packs_or_one(train.packs_per_micro_batch)
    num_packs, num_steps, counts = None, stage.budget.steps, None
    if planned is not None:
        num_packs, num_steps, counts = planned.num_packs, planned.num_steps, planned.counts
    elif num_steps is not None:
        num_packs = num_steps * train.packs_per_step
        counts = _full_packs(config, index, num_packs)
    traffic = communication = arithmetic_seconds = step_seconds = seconds = cost = None
    if shape is not None:
        num_groups = train.num_groups(num_workers)
        steps = StepPlan(train.packs_per_step, train.packs_per_step, num_groups, packs)
        gpus = hardware.gpus(num_workers)
        setting = Setting.of(config, index, num_workers, hardware.has_gpus, shape, gpus.between_nodes)
        traffic = step_traffic(shape, setting, steps.micro_batches_per_step)
        communication = step_communication(shape, setting, traffic, hardware.nodes)
        of_a_step = counts or _full_packs(config, index, train.packs_per_step)
        flops = training_flops(shape, of_a_step) / ((num_steps or 1) if counts else 1)
        arithmetic_seconds = step_seconds = _seconds(config, hardware, flops)
        if step_seconds is not None and communication is not None:
            step_seconds = max(step_seconds, communication.seconds)
        if step_seconds is not None and num_steps is not None:
            seconds = step_seconds * num_steps
            if hardware.price_per_gpu_hour is not None:
                cost = seconds / 3600 * num_workers * hardware.price_per_gpu_hour
    return StageForecast(
        stage.name,
        packs,
        num_packs,
        num_steps,
        counts.num_tokens if counts else None,
        counts.num_supervised_tokens if planned and counts else None,
        planned.fill if planned else None,
        planned.mixture if planned else (),
        planned is not None,
        planned.rows if planned else None,
        traffic,
        communication,
        arithmetic_seconds,
        step_seconds,
        seconds,
        cost,
    )


def _full_packs(config: SftConfig, index: int, num_packs: int) -> TokenCounts:
    """The upper bound: full packs of the longest examples, all of them supervised."""
    num_tokens = num_packs * config.pack_len_tokens(index)
    return TokenCounts(num_tokens, num_tokens, num_tokens * config.data.max_len_tokens)


def _seconds(config: SftConfig, hardware: Hardware, flops: float) -> float | None:
    if hardware.gpu is None or not hardware.has_gpus:
        return None
    # A step takes as long as the worker with the most packs.
    packs_per_step, num_groups = config.train.packs_per_step, config.train.num_groups(hardware.max_workers)
    most = StepPlan(packs_per_step, packs_per_step, num_groups, 1)
    busy = packs_per_step / most.micro_batches_per_step * config.train.sequence_parallel
    return training_seconds(flops, hardware.expected_mfu, GPUS[hardware.gpu].teraflops, busy)


def _forecast_worker(config: SftConfig, shape: ModelShape, num_workers: int, hardware: Hardware) -> WorkerForecast:
    gpus = hardware.gpus(num_workers)
    settled = _settled(config, shape, gpus)
    settings = [
        Setting.of(one, i, num_workers, hardware.has_gpus, shape, gpus.between_nodes) for i, one in enumerate(settled)
    ]
    peaks = [peak_memory(shape, setting) for setting in settings]
    largest = max(range(len(peaks)), key=lambda i: peaks[i].total)
    memory, host = peaks[largest], host_memory(shape, settings[largest])
    worker = WorkerForecast(
        num_workers,
        config.stages[largest].name,
        memory,
        with_allowances(memory) if hardware.has_gpus else host.total,
        host,
        gpus.capacity,
        choose_engine(config, num_workers),
        settings[largest].buckets,
    )
    if gpus.capacity is None:
        return worker
    job = Job(settled[largest], shape, largest, num_workers, gpus.between_nodes)
    return worker._replace(
        largest_packs_per_micro_batch=largest_packs_per_micro_batch(job, gpus.capacity),
        changes=tuple(advise(job, gpus.capacity)),
        chosen=in_words(job, gpus.capacity),
        options=options(job, gpus.capacity),
    )


def _node_findings(nodes: Nodes, num_workers: int, is_chosen: bool) -> list[str]:
    """`is_chosen`: whether the choice of packs depends on the nodes."""
    given = {
        "cluster.node_mtbf_hours": nodes.node_mtbf_hours,
        "cluster.storage_gb_per_second": nodes.storage_gb_per_second,
    }
    missing = [name for name, value in given.items() if value is None]
    findings = []
    depends = nodes.network_gb_per_second is not None or not missing or is_chosen
    if depends and num_workers > 1:
        where = f"{num_workers} workers are assumed to be on {counted(nodes.count(num_workers), 'node')}"
        findings.append(f"{where} (slurm.workers_per_node, or kubernetes.workers_per_pod: {nodes.workers_per_node})")
    if len(missing) == 1:
        findings.append(f"{missing[0]} is not given: it is needed to know what failures cost, and how often to save")
    return findings


def _group_findings(hardware: Hardware, sequence_parallel: int) -> list[str]:
    per_node = hardware.nodes.workers_per_node
    if sequence_parallel == 1 or hardware.nodes.count(hardware.max_workers) == 1 or not per_node % sequence_parallel:
        return []
    return [
        f"train.sequence_parallel: {sequence_parallel} workers share a micro-batch, but {per_node} are on a node "
        "(slurm.workers_per_node, or kubernetes.workers_per_pod): each layer exchanges tokens over the network, and "
        "waits for it. Choose a divisor of the workers on a node"
    ]


def _assumed(config: SftConfig, settled: SftConfig) -> list[str]:
    """What stands in place of `auto` where the GPUs' memory is not known."""
    is_auto = [field for field in SETTLED if getattr(config.train, field) == AUTO]
    if not is_auto:
        return []
    values = " ".join(f"train.{field}={getattr(settled.train, field)}" for field in is_auto)
    return [f"`auto` is counted as {values}, as cluster.gpu is not given: a run looks at its own GPUs"]


def _hardware_findings(config: SftConfig, shape: ModelShape, hardware: Hardware) -> list[str]:
    if not hardware.has_gpus:
        return []
    if hardware.gpu is None:
        kinds = ", ".join(GPUS)
        return [f"cluster.gpu is not given: it is needed to know whether it fits, time and cost; give one of {kinds}"]
    gpu, num_bytes = GPUS[hardware.gpu], DTYPE_BYTES[config.model.dtype]
    speed = f"{hardware.expected_mfu:.0%} of {hardware.gpu}'s {gpu.teraflops:g} teraflops"
    findings = [f"times assume {speed} (cluster.expected_mfu), without checkpoints and evaluation"]
    whole = num_bytes * shape.num_held / GIB
    if config.evaluate.sample_answers and whole > gpu.memory_gib:
        findings.append(f"evaluate.sample_answers: one GPU must hold the whole model for them, {whole:.0f} GiB")
    return findings
