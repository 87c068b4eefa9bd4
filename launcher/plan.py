"""What a job will ask for and do, before a machine is touched.

`plan_job` is a pure function of the job, and drives the launcher. `forecast_job` adds what the run will need; it reads
the model's config.json and what `sft prepare` has left, and imports no torch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sft.data.planning.budget import budget_in_words
from sft.job_config import JobConfig
from sft.recomputed_layers import packs_or_one
from sft.sizing.forecast import Forecast, Hardware, forecast
from sft.sizing.nodes import Nodes
from sft.step_plan import StepPlan


class StageRequest(NamedTuple):
    """One stage: its budget as given, and the shape of its steps at the most workers."""

    name: str
    budget: str
    pack_len_tokens: int
    slots_per_step: int
    micro_batches_per_step: int
    empty_packs_per_step: int


class JobPlan(NamedTuple):
    """What is asked of the cluster, and what each stage does with it."""

    min_workers: int
    max_workers: int
    cpus: int
    gpus: int
    packs_per_step: int
    stages: tuple[StageRequest, ...]

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers follows what there is room for."""
        return self.min_workers < self.max_workers

    @property
    def workers(self) -> str:
        """How many workers, in words."""
        least, most = self.min_workers, self.max_workers
        return str(most) if least == most else f"{least} to {most}"


def plan_job(job: JobConfig, packs: Sequence[int] | None = None) -> JobPlan:
    """The plan of a job. It drives the launcher, and `sft plan` prints it.

    Args:
        job: the job.
        packs: packs of a micro-batch in each stage. Default: those of the config, or 1 where it says `auto`.
    """
    cluster, train = job.cluster, job.sft.train
    workers = cluster.max_workers
    stages = []
    for i, stage in enumerate(job.sft.stages):
        micro = packs[i] if packs else packs_or_one(train.packs_per_micro_batch)
        num_groups = train.num_groups(workers)
        steps = StepPlan(train.packs_per_step, train.packs_per_step, num_groups, micro)
        num_slots = steps.micro_batches_per_step * micro * num_groups
        length = job.sft.pack_len_tokens(i)
        stages.append(
            StageRequest(
                stage.name,
                budget_in_words(stage.budget.model_dump()),
                length,
                length * train.packs_per_step,
                steps.micro_batches_per_step,
                num_slots - train.packs_per_step,
            )
        )
    cpus, gpus = workers * cluster.cpus_per_worker, int(workers * cluster.gpus_per_worker)
    return JobPlan(cluster.min_workers, workers, cpus, gpus, train.packs_per_step, tuple(stages))


def layout_note(layout: Mapping[str, Any], needs: Forecast) -> str | None:
    """How examples are laid out for the model, why, and what it costs; None where only the model is missing."""
    if layout["layout"] is None and layout["reason"] is None:
        return None
    if layout["layout"] is None:
        return f"layout: whether the model can be packed is found out when the run starts: {layout['reason']}"
    why = f", because {layout['reason'].rstrip('.')}" if layout["reason"] else ""
    if layout["layout"] == "packed":
        return f"layout: packed{why}"
    costs = [
        f"stage {stage.name}: {stage.rows.batches:.1f} passes of each worker in a step, packed "
        f"{stage.rows.packed_batches}; {stage.rows.padding:.1%} of the slots are padding"
        for stage in needs.stages
        if stage.rows is not None
    ]
    return "; ".join([f"layout: one example a row{why}", *(costs or ["what it costs is known after `sft prepare`"])])


def forecast_job(job: JobConfig) -> Forecast:
    """What the job needs: memory, time, traffic, disk."""
    plan, cluster = plan_job(job), job.cluster
    hardware = Hardware(
        plan.min_workers,
        plan.max_workers,
        plan.gpus > 0,
        cluster.gpu,
        cluster.expected_mfu,
        cluster.price_per_gpu_hour,
        Nodes(
            workers_per_node(job),
            cluster.node_mtbf_hours,
            cluster.storage_gb_per_second,
            cluster.network_gb_per_second,
            cluster.restart_seconds,
        ),
    )
    return forecast(job.sft, hardware)


def workers_per_node(job: JobConfig) -> int:
    """How many workers one machine holds, as the job asks Slurm or Kubernetes for them."""
    return job.slurm.workers_per_node if job.kubernetes is None else job.kubernetes.workers_per_pod


def plan_as_json(plan: JobPlan, needs: Forecast) -> dict[str, Any]:
    """Plan and forecast as one object of plain values; bytes, seconds and tokens as they are."""
    described: dict[str, Any] = _plain(needs)
    stages = [{**_plain(asked), **needed} for asked, needed in zip(plan.stages, described["stages"], strict=True)]
    totals = [{"fits": worker.fits, "memory_total": worker.memory.total} for worker in needs.workers]
    workers = [{**worker, **more} for worker, more in zip(described["workers"], totals, strict=True)]
    return {**_plain(plan), **described, "stages": stages, "workers": workers}


def _plain(value: Any) -> Any:
    if hasattr(value, "_asdict"):
        return {name: _plain(content) for name, content in value._asdict().items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
