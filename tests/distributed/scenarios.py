"""What ranks do in the distributed tests. Each function runs on every rank; the first rank's result is returned."""

import copy
import gc
import itertools
import json
import time
import weakref
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import nn
from torch.distributed.distributed_c10d import _set_pg_timeout as set_timeout
from torch.nn.modules.module import register_module_parameter_registration_hook

from sft.checkpoint.export import export_model
from sft.checkpoint.local_storage import LocalStorage
from sft.checkpoint.resume import open_newest_good
from sft.checkpoint.saver import CheckpointSaver
from sft.config import CheckpointConfig, SftConfig
from sft.data.loader import StepLoader
from sft.data.planning.pack_plan import PackPlan
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.token_store import TokenStore
from sft.engine import trained_model, zero3
from sft.engine.engine import Engine, NonFiniteError
from sft.engine.engines import ENGINES
from sft.engine.zero3 import Zero3Engine
from sft.errors import UserError
from sft.evaluation.heldout import HeldoutSet, TokenEvaluator
from sft.model.attention import layout_of
from sft.model.loading import load_model
from sft.model.loss import token_nll
from sft.model.own_weights import own_range
from sft.optimizers import state_kinds
from sft.progress import Progress
from sft.ranks.agreement import all_texts, any_rank, raise_together
from sft.ranks.process_group import leave_waiting_to_the_watch, num_collectives
from sft.ranks.ranks import Ranks
from sft.ranks.torch_ranks import TorchRanks
from sft.run_folder import RunFolder
from sft.step_plan import StepPlan
from sft.training.attempt import begin_attempt
from sft.training.control_signals import ControlSignals
from sft.training.curriculum import run_curriculum
from sft.training.determinism import choose_deterministic
from sft.training.layout import try_layout
from sft.training.lr_schedule import LrSchedule
from sft.training.prepared import Workload
from sft.training.run_context import RunContext
from sft.training.same_weights import check_same_weights
from sft.training.step_exchange import StepDecision, StepExchange
from sft.world import World

Build = Callable[[SftConfig], Engine]
PROBE_PART_TOKENS = 23
"""Half of the row of `packing_probe`, with its padding."""


def build_loader(settings: dict[str, Any], world: World, packs_per_micro_batch: int | None = None) -> StepLoader:
    """Two packs a micro-batch, if neither this nor the settings say another number: it takes less time than one."""
    plan = PackPlan.open(Path(settings["plan"]))
    together = packs_per_micro_batch or settings.get("packs_together", 2)
    steps = StepPlan(len(plan), settings["packs_per_step"], world.data_size, together)
    config = SftConfig.model_validate(settings["config"])
    seed = 5 if config.model.dropout == "as_configured" else None
    store, layout = TokenStore.open(Path(settings["store"])), layout_of(config.train.packing)
    part = {"part": world.sequence_place, "num_parts": len(world.sequence_ranks)}
    return StepLoader(store, plan, steps, world.data_rank, layout=layout, dropout_seed=seed, **part)


def take_steps(engine: Engine, config: SftConfig, loader: StepLoader, first: int, last: int) -> list[list[float]]:
    """(loss, grad_norm) of the steps from `first` up to `last`."""
    schedule = LrSchedule(config.stages[0].optimizer, loader.steps.num_steps)
    return [
        list(engine.train_step(loader.micro_batches(step), loader.num_supervised_tokens(step), schedule(step)))
        for step in range(first, last)
    ]


def whole_state(engine: Engine, kind: str) -> torch.Tensor:
    """One kind of state of all parameters, put together from all ranks: flat, float64, in the order of the names."""
    parts = []
    for key, shard in sorted(engine.local_state().items()):
        if key.endswith(f"/{kind}"):
            whole = torch.zeros(shard.numel, dtype=torch.float64)
            whole[shard.start : shard.start + len(shard.values)] = shard.values.double()
            parts.append(engine.ranks.sum(whole))
    return torch.cat(parts)


def gradients(settings: dict[str, Any], ranks: Ranks) -> list[dict[str, Any]]:
    """One step for each micro-batch size: its loss, the norm of its gradient, and the gradient in a file.

    They also recompute no layer, the first half of the layers, and all.
    """
    results = []
    recomputed = itertools.cycle(["none", 0.5, "all"])
    for packs_per_micro_batch in settings["packs_per_micro_batch"]:
        content = copy.deepcopy(settings["config"])
        content["train"]["activation_checkpointing"] = next(recomputed)
        config = SftConfig.model_validate(content)
        engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        loader = build_loader(settings, ranks.world, packs_per_micro_batch)
        [(loss, grad_norm)] = take_steps(engine, config, loader, 0, 1)
        # AdamW's first moment after one step is (1 - beta1) times the gradient.
        gradient = whole_state(engine, "exp_avg") / (1 - config.stages[0].optimizer.betas[0])
        path = Path(settings["folder"]) / f"gradient-{ranks.world.size}-{packs_per_micro_batch}.pt"
        if ranks.world.is_first:
            torch.save(gradient, path)
        num_micro = loader.steps.micro_batches_per_step
        results.append({"loss": loss, "grad_norm": grad_norm, "path": str(path), "num_micro_batches": num_micro})
        engine.close()
    return results


def load(engine: Engine, folder: Path) -> None:
    """Load the newest checkpoint, this rank's part of it."""
    storage = LocalStorage(folder)
    reader = open_newest_good(storage, engine.ranks, print, engine.local_spans())
    assert reader is not None
    with reader:
        engine.load_local_state(reader.read, int(reader.manifest["num_updates"]))


def train_save_export(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """A straight run with a checkpoint in the middle and the model exported at its end."""
    config = SftConfig.model_validate(settings["config"])
    folder = Path(settings["folder"])
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    loader = build_loader(settings, ranks.world)
    saved_at, last = settings["saved_at"], settings["num_steps"]
    before = take_steps(engine, config, loader, 0, saved_at)
    checkpoints = CheckpointSaver(
        LocalStorage(folder / "checkpoints"),
        ranks,
        attempt=1,
        config=CheckpointConfig(max_failed_saves=1),
        report=print,
    )
    checkpoints.save(saved_at, engine.local_state(), {"num_updates": saved_at})
    after = take_steps(engine, config, loader, saved_at, last)
    assert checkpoints.finish()
    checkpoints.close()
    dtype = getattr(torch, config.model.dtype)
    export_model(engine, load_tokenizer(config.model), folder / "model", dtype, 1)
    batch = loader.micro_batches(0)[0]
    nll = engine.segment_sums(batch, [token_nll]).flatten()
    copies = [parameter.ds_secondary_tensor for parameter in engine.hf_model.parameters()]
    num_copied = sum(copy.numel() for copy in copies if copy is not None)
    state = {kind: whole_state(engine, kind) for kind in state_kinds(config.stages[0].optimizer.name)}
    if ranks.world.is_first:
        torch.save(state, folder / "state.pt")
    return {"steps": before + after, "nll": nll.tolist(), "num_copied": num_copied}


def resume(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Load the checkpoint of another run of ranks, and go on to its end."""
    config = SftConfig.model_validate(settings["config"])
    folder = Path(settings["folder"])
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks, awaits_state=True)
    trained = [parameter for parameter in engine.hf_model.parameters() if parameter.requires_grad]
    parts = [parameter.ds_tensor[: len(own_range(parameter))] for parameter in trained]
    assert all(part.isnan().all() for part in parts), "base weights were read"
    saved_at = settings["saved_at"]
    load(engine, folder / "checkpoints")
    steps = take_steps(engine, config, build_loader(settings, ranks.world), saved_at, settings["num_steps"])
    expected = torch.load(folder / "state.pt", weights_only=True)
    differences = {}
    for kind, values in expected.items():
        found = whole_state(engine, kind)
        differences[kind] = float((found - values).abs().max() / values.abs().max())
    return {"steps": steps, "differences": differences}


def ask_the_others(settings: dict[str, Any], ranks: Ranks) -> list[Any]:
    """The answers to each collective, and to what is built on them."""
    rank = ranks.world.rank
    mine = torch.tensor([rank, 1, 2**60], dtype=torch.int64)
    text = f"rank {rank} says ü\n\0" * rank
    return [
        ranks.sum(mine).tolist(),
        ranks.max(mine).tolist(),
        ranks.gather(text),
        ranks.gather(""),
        all_texts(ranks, text),
        any_rank(ranks, rank == 2),
    ]


def exchange_parts(settings: dict[str, Any], ranks: Ranks) -> list[Any]:
    """What the last rank gets from those that share its micro-batches, in several dtypes, and gets back."""
    world, found = ranks.world, []
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        mine = torch.stack([torch.full((2, 3), 10 * world.rank + to) for to in world.sequence_ranks]).to(dtype)
        received = ranks.all_to_all(mine.transpose(1, 2))
        assert received.dtype == dtype
        assert torch.equal(ranks.all_to_all(received), mine.transpose(1, 2)), "an exchange is its own inverse"
        found.append(received[:, 0, 0].tolist())
    return json.loads(ranks.gather(json.dumps(found))[-1])


def one_rank_misses_the_store(settings: dict[str, Any], ranks: Ranks) -> str:
    """The error text that this rank sees when the last one has something to say."""
    raise_together(ranks, None)
    try:
        raise_together(ranks, None if ranks.world.is_first else "node b sees nothing")
    except UserError as error:
        return str(error)
    return "nothing was raised"


def weights_of_two_nodes(settings: dict[str, Any], ranks: Ranks) -> list[str]:
    """What is said of the weights of each rank's own folder, for each of `settings["folders"]` by rank."""
    rank, found = ranks.world.rank, []
    for folders in settings["folders"]:
        try:
            check_same_weights(folders[rank], TorchRanks(World(rank, 2, node=f"node-{rank}")))
            found.append("")
        except UserError as error:
            found.append(str(error))
    return found


def not_finite(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Steps 1 and 3 of five are not finite, on the last rank alone; and a run that was never given these steps."""
    config = SftConfig.model_validate(settings["config"])
    loader = build_loader(settings, ranks.world)
    states, errors = [], []
    for spoiled in ({1: "loss", 3: "gradient"}, {}):
        engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        now: list[str | None] = [None]

        def spoil(module: Any, given: Any, nll: torch.Tensor, now: list[str | None] = now) -> torch.Tensor:
            if now[0] == "gradient":
                nll.register_hook(lambda gradient: gradient * float("nan"))
            return nll * float("nan") if now[0] == "loss" else nll

        engine._engine.module.register_forward_hook(spoil)
        for step in range(5) if spoiled else (0, 2, 4):
            now[0] = spoiled.get(step) if ranks.world.rank == ranks.world.size - 1 else None
            try:
                take_steps(engine, config, loader, step, step + 1)
            except NonFiniteError as error:
                errors.append([step, str(error), list(error.ranks)])
        states.append({kind: whole_state(engine, kind) for kind in state_kinds("adamw")})
        engine.close()
    equal = all(torch.equal(states[0][kind], states[1][kind]) for kind in state_kinds("adamw"))
    return {"errors": errors, "equal": equal}


def slow_rank(settings: dict[str, Any], ranks: Ranks) -> list[float]:
    """Each rank's pace in a step in which the second computes slowly, and the first comes late to it."""
    config = SftConfig.model_validate(settings["config"])
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    loader = build_loader(settings, ranks.world)
    exchange = StepExchange(engine, loader.steps)
    for module in engine.hf_model.modules():
        if isinstance(module, nn.Linear) and not ranks.world.is_first:
            module.register_forward_pre_hook(lambda *_: time.sleep(0.02))
    if ranks.world.is_first:
        time.sleep(0.5)
    take_steps(engine, config, loader, 0, 1)
    return list(exchange(loader.micro_batches(0), StepDecision(), 0.0).seconds_per_token)


def zero3_memory(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """What a rank holds of the parameters, and what becomes of it with offload."""
    config = SftConfig.model_validate(settings["config"])
    held = _held_elements(config, settings, ranks)
    offload = config.deepspeed.model_copy(update={"offload_optimizer": "cpu", "offload_parameters": "cpu"})
    engine = Zero3Engine(
        config.model_copy(update={"deepspeed": offload}), config.stages[0].optimizer, config.model.path, ranks
    )
    steps = take_steps(engine, config, build_loader(settings, ranks.world), 0, 2)
    zero = engine._zero
    state = [parameter.ds_tensor for parameter in engine.hf_model.parameters()] + zero.fp32_partitioned_groups_flat
    asked = [zero.offload_optimizer, zero.offload_param]
    return {"held": held, "steps": steps, "offloaded": asked, "devices": sorted({str(part.device) for part in state})}


def _held_elements(config: SftConfig, settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """The sizes of all parameters, and the most elements of them that any rank had gathered at each time."""
    parameters: list[Any] = []
    held = {"while loading": 0, "loaded": 0, "own parts": 0, "trained": 0, "while exporting": 0}

    def note(when: str) -> None:
        # A parameter that is not gathered is empty.
        held[when] = max(held[when], sum(parameter.numel() for parameter in parameters))

    def register(_module: Any, _name: str, parameter: Any) -> None:
        # The model without weights, which is built first, takes no memory.
        if not parameter.is_meta:
            parameters.append(parameter)
            note("while loading")

    class NotedProgress(Progress):
        def tell(self) -> None:
            note("while exporting")
            super().tell()

    ranks = TorchRanks(ranks.world, NotedProgress())

    class NotedGathering(zero3.deepspeed.zero.GatheredParameters):
        def __enter__(self) -> None:
            super().__enter__()
            note("while loading")

    def noted_load(*arguments: Any, **named: Any) -> Any:
        hook = register_module_parameter_registration_hook(register)
        with mock.patch.object(zero3.deepspeed.zero, "GatheredParameters", NotedGathering):
            model = load_model(*arguments, **named)
        hook.remove()
        parameters[:] = model.parameters()
        note("loaded")
        held["own parts"] = sum(parameter.ds_tensor.numel() for parameter in parameters)
        return model

    with mock.patch.object(trained_model, "load_model", noted_load):
        engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    take_steps(engine, config, build_loader(settings, ranks.world), 0, 1)
    note("trained")
    tokenizer, folder = load_tokenizer(config.model), Path(settings["folder"]) / "model"
    export_model(engine, tokenizer, folder, torch.float32, 1)
    most = ranks.max(torch.tensor(list(held.values()))).tolist()
    sizes = [parameter.ds_numel for parameter in engine.hf_model.parameters()]
    return {"sizes": sizes, **dict(zip(held, most, strict=True))}


def export_family(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Two steps, a checkpoint and an export of `settings["model"]`: (path, dtype, where to publish)."""
    path, dtype, final = settings["model"]
    content = copy.deepcopy(settings["config"])
    content["model"] |= {"path": path, "dtype": dtype}
    config = SftConfig.model_validate(content)
    engine = Zero3Engine(config, config.stages[0].optimizer, path, ranks)
    steps = take_steps(engine, config, build_loader(settings, ranks.world), 0, 2)
    tokenizer = load_tokenizer(config.model.model_copy(update={"tokenizer": settings["tokenizer"]}))
    storage = LocalStorage(Path(f"{final}-checkpoints"))
    saver = CheckpointSaver(storage, ranks, attempt=1, config=CheckpointConfig(max_failed_saves=1), report=print)
    saver.save(2, engine.local_state(), {"num_updates": 2})
    assert saver.finish()
    saver.close()
    export_model(engine, tokenizer, Path(final), getattr(torch, dtype), 1)
    held = sorted({key.rpartition("/")[0] for key in engine.local_state()})
    engine.close()
    return {"steps": steps, "held": held}


def memory_by_stage(settings: dict[str, Any], ranks: Ranks) -> list[dict[str, Any]]:
    """At the start of each stage, and at the end of the job: what is left of the last engine; MiB of all tensors."""
    config = SftConfig.model_validate(settings["config"])
    run = RunFolder(config.run.dir)
    before: dict[str, weakref.ref[Any]] = {}
    found = []

    def look() -> None:
        left = sorted(name for name, reference in before.items() if reference() is not None)
        storages = {
            t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in gc.get_objects() if torch.is_tensor(t)
        }
        found.append({"left": left, "mib": sum(storages.values()) / 2**20})

    def build(*arguments: Any) -> Engine:
        look()
        engine = Zero3Engine(*arguments)
        zero = engine._zero
        whole = {"engine": engine, "DeepSpeed's engine": engine._engine, "model": engine.hf_model, "optimizer": zero}
        masters = {f"masters {i}": flat for i, flat in enumerate(zero.fp32_partitioned_groups_flat)}
        coordinator = zero.parameter_offload.get_param_coordinator()
        before.update({n: weakref.ref(it) for n, it in {**whole, **masters, "coordinator": coordinator}.items()})
        return engine

    workload = Workload.from_json(settings["workload"])
    context = RunContext(config, workload, begin_attempt(run, ranks), ControlSignals(run.stop_file), engine="looked at")
    with mock.patch.dict(ENGINES, {"looked at": build}):
        assert run_curriculum(context)
    look()
    return found


def marks_of_steps(settings: dict[str, Any], ranks: Ranks) -> dict[int, list[tuple[int, int, int]]]:
    """By step of a job of one stage, what the hang watch would see at each forward pass in training."""
    config = SftConfig.model_validate(settings["config"])
    run = RunFolder(config.run.dir)
    attempt = begin_attempt(run, ranks)
    found: dict[int, list[tuple[int, int, int]]] = {}

    def note(*_: Any) -> None:
        if attempt.heartbeat.place == "train":
            assert attempt.heartbeat.step is not None
            found.setdefault(attempt.heartbeat.step, []).append(attempt.heartbeat.mark())

    def build(*arguments: Any) -> Engine:
        engine = Zero3Engine(*arguments)
        engine._engine.module.register_forward_pre_hook(note)
        return engine

    workload = Workload.from_json(settings["workload"])
    context = RunContext(config, workload, attempt, ControlSignals(run.stop_file), engine="looked at")
    with mock.patch.dict(ENGINES, {"looked at": build}):
        assert run_curriculum(context)
    return found


def run_jobs(settings: dict[str, Any], ranks: Ranks) -> list[bool]:
    """Whole jobs, one after the other: (config, its prepared workload)."""
    finished = []
    for content, workload in settings["jobs"]:
        config = SftConfig.model_validate(content)
        run = RunFolder(config.run.dir)
        attempt = begin_attempt(run, ranks)
        prepared = Workload.from_json(workload)
        finished.append(run_curriculum(RunContext(config, prepared, attempt, ControlSignals(run.stop_file))))
    return finished


def beside_a_gpu(settings: dict[str, Any], ranks: Ranks) -> list[bool]:
    """Whole jobs on CPUs in a process that torch would let use a GPU, but for which there is none."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the GPU was asked for")

    asked = ("current_device", "device_count", "get_device_name", "get_device_properties", "set_device", "_lazy_init")
    with mock.patch.multiple(torch.cuda, is_available=lambda: True, **dict.fromkeys(asked, refuse)):
        return run_jobs(settings, ranks)


def with_changes(settings: dict[str, Any], ranks: Ranks) -> list[list[list[float]]]:
    """(loss, grad_norm) of two steps with each change of `settings["changes"]`: section → its fields.

    Between the steps the engine measures.
    """
    found = []
    for change in settings["changes"]:
        content = {**settings["config"]}
        content.update({section: {**content.get(section, {}), **fields} for section, fields in change.items()})
        config = SftConfig.model_validate(content)
        engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        loader = build_loader(settings, ranks.world)
        steps = take_steps(engine, config, loader, 0, 1)
        engine.segment_sums(loader.micro_batches(0)[0], [token_nll])
        found.append(steps + take_steps(engine, config, loader, 1, 2))
        engine.close()
    return found


def refused(settings: dict[str, Any], ranks: Ranks) -> str:
    """Why there is no engine, as every rank says."""
    config = SftConfig.model_validate(settings["config"])
    with pytest.raises(UserError) as caught:
        Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    assert caught.value.is_everywhere
    [said] = {*ranks.gather(str(caught.value))}
    return said


def where_the_state_lies(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """Of an engine whose optimizer is offloaded: where a checkpoint finds its state, on an accelerator without memory.

    What is moved to that one has no storage.
    """
    config = SftConfig.model_validate(settings["config"])
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    take_steps(engine, config, build_loader(settings, ranks.world), 0, 1)
    zero = engine._zero
    flats = zero.fp32_partitioned_groups_flat
    kept = [*flats, *(zero.optimizer.state[flat][kind] for flat in flats for kind in ("exp_avg", "exp_avg_sq"))]
    with mock.patch.object(get_accelerator(), "current_device_name", return_value="meta"):
        state = engine.local_state()
    found = {shard.values.untyped_storage().data_ptr() for shard in state.values() if len(shard.values)}
    devices = sorted({str(shard.values.device) for shard in state.values()})
    is_in_place = found == {tensor.untyped_storage().data_ptr() for tensor in kept}
    return {"offloaded": zero.offload_optimizer, "devices": devices, "is_in_place": is_in_place}


def waits_after_its_timeout(settings: dict[str, Any], ranks: Ranks) -> bool:
    """The first rank waits for the second, which comes later than the timeout of the group allows."""
    set_timeout(timedelta(seconds=1))
    if settings["is_left_to_the_watch"]:
        leave_waiting_to_the_watch()
    if not ranks.world.is_first:
        time.sleep(2.5)
    try:
        dist.all_reduce(torch.zeros(1))
    except RuntimeError:
        return False
    return True


def collectives_of_loading(settings: dict[str, Any], ranks: Ranks) -> list[int]:
    """How many collectives were counted before and after a model was loaded, and how many parameters it has."""
    config = SftConfig.model_validate(settings["config"])
    before = num_collectives()
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    return [before, num_collectives(), len(list(engine.hf_model.parameters()))]


def deterministically(settings: dict[str, Any], ranks: Ranks) -> bool:
    """Whether steps with deterministic implementations, and with NaN in all new memory, are equal to the bit."""
    # A bucket takes 400 MB by default, and all of it would be written.
    extra = {"zero_optimization": {"reduce_bucket_size": 1_000_000}}
    config = SftConfig.model_validate({**settings["config"], "deepspeed": {"extra": extra}})
    found = []
    for is_deterministic in (False, True):
        if is_deterministic:
            choose_deterministic()
            torch.utils.deterministic.fill_uninitialized_memory = True
        engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
        loader = build_loader(settings, ranks.world)
        found.append((take_steps(engine, config, loader, 0, 2), whole_state(engine, "master").tolist()))
        engine.close()
    return found[0] == found[1]


def heldout_sums(settings: dict[str, Any], ranks: Ranks) -> dict[str, Any]:
    """The metrics of the packs of the plan, as if they were held out."""
    config = SftConfig.model_validate(settings["config"])
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    heldout = HeldoutSet(TokenStore.open(Path(settings["store"])), PackPlan.open(Path(settings["plan"])), ())
    return {task: dict(numbers) for task, numbers in TokenEvaluator(engine, heldout).measure().items()}


def layout_of_shared_rows(settings: dict[str, Any], ranks: Ranks) -> list[str]:
    """What the probe says of the model, and of one that computes something else in the second part of a row."""
    content = copy.deepcopy(settings["config"])
    content["train"]["sequence_parallel"] = ranks.world.sequence_parallel
    config = SftConfig.model_validate(content)
    engine = Zero3Engine(config, config.stages[0].optimizer, config.model.path, ranks)
    found = [_wrong_in_layout(engine, config)]

    def change(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        (x,) = given
        is_second_part = x.shape[1] == PROBE_PART_TOKENS and not ranks.world.is_first
        return (1.5 * x,) if is_second_part else given

    engine.hf_model.model.layers[0].mlp.register_forward_pre_hook(change)
    return [*found, _wrong_in_layout(engine, config)]


def _wrong_in_layout(engine: Engine, config: SftConfig) -> str:
    try:
        try_layout(engine, config)
    except UserError as error:
        return str(error)
    return ""
