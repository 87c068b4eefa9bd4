"""Part 8: a plain loop over a transformers model with torch's fused AdamW, on the same examples.

Its numerics are ours: the model computes in bfloat16, gradients of micro-batches are added up in float32, and fused
AdamW updates float32 masters. Its rows hold one example each, padded to the longest of the micro-batch; attention is
torch's SDPA. With Liger, its norm, rotary embedding, gate and fused loss, as its authors put them in. For comparison, a
third has bfloat16 weights and moments: cheaper, and other numerics.

Once all examples have one length, so that nothing is padded and only the speed of the step counts; once they have a
long tail, as real ones do.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

from benchmarks.gpu.models import folder_of, shape_of
from benchmarks.gpu.packs import pack_of, packs_of
from benchmarks.gpu.part import Row, Setting, Value, at_least, at_most, failed
from benchmarks.gpu.switches import all_on
from benchmarks.gpu.timing import seconds_of
from benchmarks.gpu.training import (
    LR,
    Workload,
    alone,
    build_config,
    engine_of,
    has_liger,
    micro_batches,
    settled,
    supervised,
)
from sft.ranks.torch_ranks import TorchRanks
from sft.schema import Pack

_MODEL = "Qwen2.5 0.5B"
_SLOTS = (16384, 8192, 4096)
"""Of a micro-batch of the peer, padding included: the first that there is memory for. All slots have logits at once."""
_LEAST_RATIO = 0.95
_LOSS_BOUND = 5e-3
_IGNORED = -100
"""The label of what is not learned."""
_PADDING = 0


@dataclass(frozen=True)
class Rows:
    """A micro-batch of the peer."""

    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor | None
    """None: nothing is padded."""


def run(setting: Setting) -> Iterator[Row]:
    length, num_packs = (24, 2) if setting.small else (2048, 16)
    vocabulary = shape_of(setting, _MODEL).vocab_size
    packs = {
        "one length": [pack_of([length], vocabulary, seed) for seed in range(num_packs)],
        "long tail": packs_of(num_packs, length, vocabulary),
    }
    num_tokens = num_packs * length
    ours: dict[str, tuple[float, float]] = {}
    with alone(setting) as ranks:
        for name, own in packs.items():
            ours[name] = _measure_ours(setting, ranks, Workload(_MODEL, length, num_packs), own)
            yield Row(f"ours, {name}", {"tokens/s": num_tokens / ours[name][0], "loss": ours[name][1]})
    best: dict[str, float] = {}
    for peer, has_masters in _peers():
        for name, own in packs.items():
            if setting.seconds_left < 6:
                yield Row(f"{peer}, {name}", {"not begun": "for want of time"})
                continue
            try:
                seconds, loss, slots = _measure_peer(setting, own, peer, has_masters)
            except Exception as error:
                yield failed(f"{peer}, {name}", error)
                continue
            difference = abs(loss / ours[name][1] - 1)
            values: dict[str, Value] = {
                "tokens/s": num_tokens / seconds, "slots to tokens": slots / num_tokens, "loss differs by": difference
            }  # fmt: skip
            yield Row(f"{peer}, {name}", values, (at_most("loss differs by", difference, _LOSS_BOUND),))
            if has_masters:
                best[name] = min(best.get(name, seconds), seconds)
    for name, seconds in best.items():
        ratio = seconds / ours[name][0]
        goals = (at_least("ratio", ratio, _LEAST_RATIO if name == "one length" else 1.0),) if setting.on_gpu else ()
        yield Row(f"ours to the better one, {name}", {"ratio": ratio}, goals)


def _peers() -> Iterator[tuple[str, bool]]:
    yield "transformers", True
    yield "transformers, all bfloat16", False
    if has_liger():
        yield "transformers and Liger", True  # last: it changes the classes


def _measure_ours(setting: Setting, ranks: TorchRanks, work: Workload, packs: Sequence[Pack]) -> tuple[float, float]:
    """Seconds of a step, and the loss of the first."""
    config = settled(setting, build_config(setting, work, all_on()))
    batches = micro_batches(setting, config, packs)
    with engine_of(config, ranks) as engine:
        step = partial(engine.train_step, batches, supervised(batches), LR)
        loss = step().loss
        return seconds_of(setting, step, 1 if setting.small else 3), loss


def _measure_peer(setting: Setting, packs: Sequence[Pack], peer: str, has_masters: bool) -> tuple[float, float, int]:
    """Seconds of a step, the loss of the first, and slots with padding."""
    for slots in (64,) if setting.small else _SLOTS[:-1]:
        try:
            return _measure_with(setting, packs, peer, has_masters, slots)
        except torch.OutOfMemoryError:
            pass  # outside of the block, nothing holds the tensors any more
        gc.collect()
        torch.cuda.empty_cache()
    return _measure_with(setting, packs, peer, has_masters, _SLOTS[-1])


def _measure_with(
    setting: Setting, packs: Sequence[Pack], peer: str, has_masters: bool, slots: int
) -> tuple[float, float, int]:
    if "Liger" in peer:
        from liger_kernel.transformers import apply_liger_kernel_to_qwen2  # noqa: PLC0415  (it may not be here)

        apply_liger_kernel_to_qwen2()
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder_of(setting, _MODEL), dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model.to(setting.device).train()
    batches = rows_of(packs, slots)
    step = _step(model, batches, setting, has_masters)
    loss = step()
    seconds = seconds_of(setting, step, 1 if setting.small else 2, warm_up=0 if setting.small else 1)
    del model, step
    if setting.on_gpu:
        torch.cuda.empty_cache()
    return seconds, loss, sum(rows.input_ids.numel() for rows in batches)


def rows_of(packs: Sequence[Pack], slots: int) -> list[Rows]:
    """The examples in their order, one in a row; a micro-batch ends where one more row would be too many slots."""
    examples = []
    for pack in packs:
        ids = torch.from_numpy(pack.input_ids)
        labels = torch.where(torch.from_numpy(pack.loss_mask), ids, _IGNORED)
        lengths = (pack.cu_seqlens[1:] - pack.cu_seqlens[:-1]).tolist()
        examples += list(zip(ids.split(lengths), labels.split(lengths), strict=True))
    groups: list[list[tuple[Tensor, Tensor]]] = [[]]
    for example in examples:
        longest = max(len(ids) for ids, _ in [*groups[-1], example])
        if groups[-1] and (len(groups[-1]) + 1) * longest > slots:
            groups.append([])
        groups[-1].append(example)
    return [_padded(group) for group in groups]


def _padded(group: Sequence[tuple[Tensor, Tensor]]) -> Rows:
    ids = pad_sequence([ids for ids, _ in group], batch_first=True, padding_value=_PADDING)
    labels = pad_sequence([labels for _, labels in group], batch_first=True, padding_value=_IGNORED)
    lengths = torch.tensor([len(ids) for ids, _ in group])
    mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
    return Rows(ids, labels, None if mask.all() else mask.long())


def _step(model: Any, batches: Sequence[Rows], setting: Setting, has_masters: bool) -> Callable[[], float]:
    """A step: forward and backward passes, clipping, an update."""
    parameters = list(model.parameters())
    masters = [p.detach().float() for p in parameters] if has_masters else parameters
    optimizer = torch.optim.AdamW(masters, lr=LR, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True)
    num_learned = sum(int((rows.labels != _IGNORED).sum()) for rows in batches)

    def step() -> float:
        total = torch.zeros((), device=setting.device)
        for rows in batches:
            mask = rows.attention_mask
            loss = model(
                input_ids=rows.input_ids.to(setting.device, non_blocking=True),
                attention_mask=None if mask is None else mask.to(setting.device, non_blocking=True),
                labels=rows.labels.to(setting.device, non_blocking=True),
                use_cache=False,
                num_items_in_batch=num_learned,
            ).loss
            loss.backward()
            total += loss.detach()
            if has_masters:
                _add_up(parameters, masters)
        clip_grad_norm_(masters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if has_masters:
            torch._foreach_copy_([p.data for p in parameters], masters)
        return float(total)

    return step


def _add_up(parameters: Sequence[Tensor], masters: Sequence[Tensor]) -> None:
    made = [p.grad for p in parameters if p.grad is not None]
    assert len(made) == len(masters), "every parameter has a gradient"
    if masters[0].grad is None:
        for master, gradient in zip(masters, made, strict=True):
            master.grad = gradient.float()
    else:
        torch._foreach_add_([m.grad for m in masters if m.grad is not None], made)
    for parameter in parameters:
        parameter.grad = None
