"""What `sft prepare` has already decided: packs, steps, tokens and mixture of each stage, read from the run folder.

A plan is used if everything that it was made from is as the config says now. The content of the data is not checked:
this would read and hash it again, as `sft prepare` and `sft train` do. A plan of other settings does not count.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sft.atomic_files import DamagedError, is_published
from sft.config import SftConfig
from sft.config_effects import as_written
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.plan_inputs import differences, planned_inputs, stage_inputs
from sft.data.token_store import TokenStore, store_path
from sft.errors import UserError
from sft.run_folder import RunFolder
from sft.sizing.flops import TokenCounts
from sft.sizing.row_costs import RowsOfStage, rows_of_stage


class PlannedStage(NamedTuple):
    """One stage as it will be trained."""

    num_packs: int
    num_steps: int
    counts: TokenCounts
    fill: float
    """The share of slots that hold tokens."""
    mixture: tuple[dict[str, Any], ...]
    """Rows of the stage's mixture table."""
    rows: RowsOfStage
    """The cost of one example a row with the most workers."""


class Planned(NamedTuple):
    """The planned stages, in their order, and notes about them."""

    stages: tuple[PlannedStage | None, ...]
    token_store: int | None
    """Bytes of the token store."""
    notes: tuple[str, ...]


def read_planned(config: SftConfig, num_workers: int, packs_per_micro_batch: Sequence[int]) -> Planned:
    """The plans of the stages that match this config; `packs_per_micro_batch` is that of each stage."""
    run = RunFolder(config.run.dir.expanduser())
    stages: list[PlannedStage | None] = []
    notes, store_bytes = [], None
    for i, stage in enumerate(config.stages):
        folder = run.stage(i, stage.name).packs
        planned = None
        try:
            if is_published(folder):
                plan = PackPlan.open(folder)
                store = _open_store(config, plan.manifest["inputs"]["store"])
                changed = _changed(config, i, plan, store)
                if changed:
                    notes.append(f"stage {stage.name}: {folder} was planned with other settings: {'; '.join(changed)}")
                else:
                    rows = rows_of_stage(config, i, plan, store, num_workers, packs_per_micro_batch[i])
                    planned = _read_stage(plan, store, rows)
                    store_bytes = sum(about["num_bytes"] for about in store.manifest["files"].values())
        except (DamagedError, OSError, UserError) as error:
            notes.append(f"stage {stage.name}: the plan in {folder} cannot be read: {error}")
        stages.append(planned)
    if None in stages:
        notes.append("packs, steps and tokens of a stage are known after `sft prepare`, which needs no GPU")
    return Planned(tuple(stages), store_bytes, tuple(notes))


def _open_store(config: SftConfig, name: str) -> TokenStore:
    path = store_path(config.data.cache_dir, name)
    if not is_published(path):
        raise UserError(f"its token store {path} is not here")
    return TokenStore.open(path)


def _changed(config: SftConfig, index: int, plan: PackPlan, store: TokenStore) -> list[str]:
    """One line for each setting that differs from the plan's."""
    inputs = planned_inputs(config, plan.manifest, index)
    changed = differences(inputs, stage_inputs(config, index, store))
    prepared: Mapping[str, Any] = inputs["data"]
    changed += differences(prepared, as_written(config.data, prepared))
    before, now = prepared["sources"], config.data.sources
    names = [{"sources": [source["name"] for source in before]}, {"sources": [source.name for source in now]}]
    if names[0] != names[1]:
        return changed + differences(*names)
    sources = [as_written(*pair) for pair in zip(now, before, strict=True)]
    return changed + differences({"sources": before}, {"sources": sources})


def _read_stage(plan: PackPlan, store: TokenStore, rows: RowsOfStage) -> PlannedStage:
    manifest = plan.manifest
    lengths = store.lengths[plan.example_ids].astype(np.float64)
    counts = TokenCounts(manifest["num_tokens"], manifest["num_supervised_tokens"], int(lengths @ lengths))
    return PlannedStage(
        manifest["num_packs"], manifest["num_steps"], counts, manifest["fill"], tuple(manifest["mixture"]), rows
    )
