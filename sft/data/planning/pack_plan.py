"""The packs of a stage on disk: which examples each holds, and how many tokens. Memory-mapped, without history.

    example_ids (num_segments,) · starts (num_packs + 1,) · num_tokens, num_supervised, costs (num_packs,)

Step k is `PackPlan.steps(…).step_packs(k)`: finding it needs none of the steps before it. The plan knows the number
of supervised tokens of every step before its first backward pass.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from sft.atomic_files import DamagedError, publish_folder, read_manifest, written_aside
from sft.data.mapped_arrays import Stretch, stretch_reader
from sft.data.token_store import TokenStore
from sft.dealing import CostRates
from sft.schema import IntArray, Pack
from sft.step_plan import StepPlan

_ARRAYS = ("example_ids", "starts", "num_tokens", "num_supervised")


@dataclass(frozen=True, slots=True)
class PlanPart:
    """What was planned at one time: first the stage, then each extension."""

    num_packs: int
    budget: Mapping[str, Any]
    """The stage's budget up to the end of this part, as in the config."""
    schedule: Mapping[str, Any]
    """The fields of the optimizer's config that determine its learning rate."""


@dataclass(frozen=True)
class PackPlan:
    """A published pack plan, opened for reading."""

    path: Path
    manifest: Mapping[str, Any]
    example_ids: IntArray
    starts: IntArray
    num_tokens: IntArray
    num_supervised: IntArray
    costs: IntArray | None = None
    """By which a step is dealt to the ranks (see `sft.dealing`). A plan without them is dealt in slices: that of a
    model whose shape is not known, and of an earlier version, whose runs go on as they began."""

    @classmethod
    def open(cls, path: Path) -> "PackPlan":
        """Map the arrays of the plan that is published at `path`.

        Raises:
            DamagedError: a file is missing or cut off.
        """
        manifest = read_manifest(path)
        names = (*_ARRAYS, "costs") if manifest.get("cost_rates") else _ARRAYS
        try:
            return cls(path, manifest, *(np.load(path / f"{name}.npy", mmap_mode="r") for name in names))
        except (ValueError, EOFError, FileNotFoundError) as error:
            raise DamagedError(path, str(error)) from error

    def __len__(self) -> int:
        """Number of packs."""
        return len(self.num_tokens)

    @property
    def parts(self) -> tuple[PlanPart, ...]:
        """The parts of a stage that was extended, in order; empty for a stage that was not."""
        return parts_of(self.manifest)

    @property
    def first_inputs(self) -> dict[str, Any]:
        """What a stage's plan was made from before any extension: this is how its checkpoints identify it."""
        inputs: dict[str, Any] = self.manifest["inputs"]
        return {**inputs, "budget": self.parts[0].budget} if self.parts else inputs

    @property
    def cost_rates(self) -> CostRates | None:
        """What `costs` were computed with; None without them."""
        recorded = self.manifest.get("cost_rates")
        return CostRates(**recorded) if recorded else None

    @property
    def epochs(self) -> float | None:
        """How many epochs a stage trains; None where its budget counts something else."""
        asked: float | None = self.manifest["inputs"]["budget"]["epochs"]
        if asked is None or not self.manifest["ends_early"]:
            return asked
        return asked * float(self.manifest["num_units"] / self.manifest["num_units_wanted"])

    def steps(self, world_size: int = 1, packs_per_micro_batch: int = 1) -> StepPlan:
        """The steps of a stage's plan."""
        return replace(steps_of(self.manifest, world_size, packs_per_micro_batch), costs=self._read_costs)

    def pack_examples(self, pack_id: int) -> IntArray:
        """The examples of a pack: (num_segments,)."""
        example_ids, starts, _ = self._readers
        return example_ids(*starts(pack_id, pack_id + 2).tolist())

    def num_supervised_tokens(self, packs: range) -> int:
        """Tokens in the loss of consecutive packs, such as those of a step."""
        _, _, num_supervised = self._readers
        return int(num_supervised(packs.start, packs.stop).sum())

    @cached_property
    def _read_costs(self) -> Stretch | None:
        return stretch_reader(self.costs) if self.costs is not None else None

    @cached_property
    def _readers(self) -> tuple[Stretch, ...]:
        return stretch_reader(self.example_ids), stretch_reader(self.starts), stretch_reader(self.num_supervised)

    def read_pack(self, pack_id: int, store: TokenStore) -> Pack:
        """A pack with its tokens; reads only the pages of its own examples."""
        example_ids = self.pack_examples(pack_id)
        examples = [store.example(int(i)) for i in example_ids]
        return Pack(
            pack_id,
            example_ids,
            np.concatenate([e.input_ids for e in examples]),
            np.concatenate([e.loss_mask for e in examples]),
            np.cumsum([0, *(len(e.input_ids) for e in examples)]),
        )


def parts_of(manifest: Mapping[str, Any]) -> tuple[PlanPart, ...]:
    """See `PackPlan.parts`."""
    return tuple(PlanPart(**part) for part in manifest.get("parts", ()))


def steps_of(manifest: Mapping[str, Any], world_size: int = 1, packs_per_micro_batch: int = 1) -> StepPlan:
    """The steps of the plan of a stage with this manifest, without the costs of its packs."""
    ends = accumulate(part.num_packs for part in parts_of(manifest)[:-1])
    return StepPlan(
        manifest["num_packs"], manifest["inputs"]["packs_per_step"], world_size, packs_per_micro_batch, tuple(ends)
    )


def publish_plan(
    path: Path,
    order: IntArray,
    packed: tuple[IntArray, IntArray],
    store: TokenStore,
    manifest: Mapping[str, Any],
    cost_rates: CostRates | None = None,
) -> None:
    """Publish the packs `packed` of `order` (see `sft.data.planning.packing.pack_order`) at `path`.

    With `cost_rates`, a step of the plan is dealt to the ranks by cost.
    """
    positions, starts = packed
    example_ids = order[positions]
    arrays = {
        "example_ids": example_ids.astype(np.int64),
        "starts": starts,
        "num_tokens": np.add.reduceat(store.lengths[example_ids], starts[:-1]),
        "num_supervised": np.add.reduceat(store.num_supervised[example_ids].astype(np.int64), starts[:-1]),
    }
    if cost_rates is not None:
        squares = np.add.reduceat(np.square(store.lengths[example_ids], dtype=np.int64), starts[:-1])
        arrays["costs"] = (
            cost_rates.token * arrays["num_tokens"]
            + cost_rates.supervised_token * arrays["num_supervised"]
            + cost_rates.squared_length * squares
        )
        manifest = {**manifest, "cost_rates": cost_rates._asdict()}
    with written_aside(path, "plan") as aside:
        for name, array in arrays.items():
            np.save(aside / f"{name}.npy", array)
        publish_folder(aside, path, manifest)
