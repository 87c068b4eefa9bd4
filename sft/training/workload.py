"""What must be on disk before the ranks start: the token store and the plan of every stage.

The first process that asks makes it; others that ask meanwhile wait for its lock and open what it made.
"""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from sft.config import SftConfig
from sft.data.block_preparer import BlockPreparer, Executor, PreparedBlock, prepare_in_threads
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.plan_inputs import check_data
from sft.data.planning.stage_plan import plan_heldout, plan_stages
from sft.data.preparation import Report, build_store
from sft.data.reading.blocks import Block
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.training.extension import set_end_aside
from sft.training.run_record import check_run, claim_run_folder, write_run_record


@dataclass(frozen=True, slots=True)
class Workload:
    """Where the prepared data and the plans are.

    A stage that was extended has several plans. All ranks open the one named here, whatever their node sees already.
    """

    store: Path
    heldout: Path | None
    plans: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """The form in which it is sent to the workers."""
        heldout = str(self.heldout) if self.heldout else None
        return {"store": str(self.store), "heldout": heldout, "plans": list(map(str, self.plans))}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Workload":
        """The inverse of `as_json`."""
        heldout = content["heldout"]
        return cls(Path(content["store"]), Path(heldout) if heldout else None, tuple(map(Path, content["plans"])))


def refuse_to_prepare(preparer: BlockPreparer, blocks: Iterator[Block]) -> Generator[PreparedBlock, None, None]:
    """An executor for a rank that others wait for: it uses prepared blocks, and prepares none.

    Raises:
        UserError: a block is not prepared.
    """
    for _ in blocks:
        raise UserError("The data is not prepared, and no rank may do it while others wait. Run `sft prepare` first.")
    yield from ()


def prepare_workload(
    config: SftConfig, report: Report = lambda progress: None, executor: Executor = prepare_in_threads
) -> tuple[Workload, TokenStore, list[PackPlan]]:
    """Make the token store and the plans that are not there yet.

    Raises:
        UserError: the data or the mixture cannot be used; nothing half-written stays.
    """
    recorded = check_run(config)
    run = RunFolder(config.run.dir)
    recipe = StoreRecipe.of(config.data, config.model)
    check_data(run, run.stage(0, config.stages[0].name).packs, recipe.inputs)
    store = build_store(recipe, report, executor)
    claim_run_folder(run)
    try:
        planning = FileLock(run.planning_lock).acquire()
    except OSError as error:
        raise UserError(f"run.dir: {run.planning_lock} cannot be written: {error.strerror}") from error
    with planning:
        plans = plan_stages(
            config, store, recorded["stages"] if recorded else (), partial(set_end_aside, run, config.checkpoint)
        )
        heldout = plan_heldout(config, store)
        write_run_record(config)
    path = heldout.path if heldout is not None else None
    return Workload(store.path, path, tuple(plan.path for plan in plans)), store, plans
