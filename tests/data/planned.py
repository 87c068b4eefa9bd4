"""A store and a plan in shared storage, as nodes find them, and what a node should have of it on its own disk."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sft.atomic_files import publish_folder, written_aside
from sft.data.planning.pack_plan import PackPlan
from sft.data.planning.stage_plan import plan_stages
from sft.data.staged_packs import StagedPacks, staging_root
from sft.data.staging import StagingOrder, fetch_packs
from sft.data.token_store import TokenStore
from sft.dealing import CostRates
from sft.schema import Pack
from sft.step_plan import real_packs
from sft.world import World
from tests.data.stores import config_of, random_store

PACKS_PER_STEP, PACKS_PER_MICRO_BATCH = 6, 2

fetch = partial(fetch_packs, least_free_share=0.0)
"""However full the disk is that the tests run on."""


class Planned(NamedTuple):
    """A store and a plan in shared storage."""

    store_path: Path
    plan_path: Path
    store: TokenStore
    plan: PackPlan

    def order(self, world: World, disk: Path | None, first_step: int = 0) -> StagingOrder:
        """What a node is to have on this disk (None: on its own), where `world` is the place of its first rank."""
        return StagingOrder(
            node=world.node,
            ranks=world.node_ranks,
            world_size=world.size,
            packs_per_micro_batch=PACKS_PER_MICRO_BATCH,
            first_step=first_step,
            store=self.store_path,
            plan=self.plan_path,
            staging_dir=None if disk is None else str(disk),
            report=self.store_path.with_name(f"{world.node}.json"),
        )

    def staged(self, disk: Path) -> StagedPacks:
        return StagedPacks(staging_root(str(disk)), self.plan, self.store)

    def there(self, disk: Path) -> set[int]:
        """The packs on a disk; those that are there are what the store holds."""
        staged, found = self.staged(disk), set()
        for pack_id in range(len(self.plan)):
            pack = staged.read(pack_id)
            if pack is not None:
                assert_equal(pack, self.plan.read_pack(pack_id, self.store))
                found.add(pack_id)
        return found

    def num_bytes(self, packs: set[int]) -> int:
        """What they take on a disk."""
        segments, tokens = np.diff(self.plan.starts), self.plan.num_tokens
        return int(sum(8 * (4 + 2 * segments[p]) + (self.store.tokens.itemsize + 1) * tokens[p] for p in packs))

    def fed_by(self, world: World, first_step: int = 0, packs_per_micro_batch: int = PACKS_PER_MICRO_BATCH) -> set[int]:
        """The packs of the ranks of a node, rank by rank and step by step."""
        steps = self.plan.steps(world.size, packs_per_micro_batch)
        return {
            pack
            for step in range(first_step, steps.num_steps)
            for rank in world.node_ranks
            for pack in real_packs(steps.rank_packs(step, rank))
        }


def publish_planned(folder: Path, epochs: float = 1) -> Planned:
    """Made in a folder; the last step of the plan is a shorter one."""
    store = random_store(0, {"chat": 500, "code": 200, "maths": 55})
    with written_aside(folder / "store", "test") as aside:
        for name in TokenStore.__dataclass_fields__.keys() - {"path", "manifest"}:
            np.save(aside / f"{name}.npy", getattr(store, name))
        publish_folder(aside, folder / "store", store.manifest)
    opened = TokenStore.open(folder / "store")
    stage = {"mixture": {"rates": "equal"}, "budget": {"epochs": epochs}}
    config = config_of(folder / "run", stage, train={"packs_per_step": PACKS_PER_STEP})
    (plan,) = plan_stages(config, opened, cost_rates=lambda: CostRates(token=5, supervised_token=3, squared_length=1))
    assert len(plan) % PACKS_PER_STEP
    return Planned(folder / "store", folder / "run/stages/0-s0/packs", opened, plan)


def nodes_of(num_nodes: int, ranks_per_node: int) -> list[World]:
    """The place of the first rank of each node."""
    size = num_nodes * ranks_per_node
    return [World(node * ranks_per_node, size, 0, f"n{node}", ranks_per_node) for node in range(num_nodes)]


def assert_equal(pack: Pack, wanted: Pack) -> None:
    assert pack.pack_id == wanted.pack_id
    for name in ("example_ids", "input_ids", "loss_mask", "cu_seqlens"):
        found, array = getattr(pack, name), getattr(wanted, name)
        assert found.dtype == array.dtype, name
        assert found.tolist() == array.tolist(), name
        assert found.flags.writeable, "torch warns of arrays that it cannot write to"
