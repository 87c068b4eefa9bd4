"""What a job will ask for and do, as far as it can be known without touching a machine: a pure function of the job."""

from typing import NamedTuple

from launcher.config import JobConfig
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


def plan_job(job: JobConfig) -> JobPlan:
    """The plan of a job. It drives the launcher, and `sft plan` prints it."""
    cluster, train = job.cluster, job.sft.train
    workers = cluster.max_workers
    stages = []
    for i, stage in enumerate(job.sft.stages):
        steps = StepPlan(train.packs_per_step, train.packs_per_step, workers, train.micro_packs)
        num_slots = steps.micro_batches_per_step * train.micro_packs * workers
        budget = {k: v for k, v in stage.budget.model_dump().items() if v is not None}
        length = job.sft.pack_len_tokens(i)
        stages.append(
            StageRequest(
                stage.name,
                ", ".join(f"{value:,} {kind.replace('_', ' ')}" for kind, value in budget.items()),
                length,
                length * train.packs_per_step,
                steps.micro_batches_per_step,
                num_slots - train.packs_per_step,
            )
        )
    least = cluster.workers if isinstance(cluster.workers, int) else cluster.workers[0]
    cpus = workers * cluster.cpus_per_worker
    return JobPlan(least, workers, cpus, int(workers * cluster.gpus_per_worker), train.packs_per_step, tuple(stages))
