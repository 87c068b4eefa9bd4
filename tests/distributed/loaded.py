"""What ranks hold of a model that each read its own part of, beside what transformers itself gives them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from sft.config import ModelConfig, SftConfig
from sft.engine.zero3_config import build_zero3_config
from sft.errors import UserError
from sft.model import loading
from sft.model.loading import load_model, load_plain_model
from sft.model.own_weights import Sources, find_sources, own_range
from sft.model.weight_files import StoredTensor
from sft.world import World


def compare(rank: int, size: int, content: dict[str, Any], folders: list[str], dtype: str, folder: str) -> None:
    """Load each model by transformers alone, in own parts, and for a checkpoint; each rank writes down what differs."""
    os.environ["LOCAL_RANK"] = "0"  # as the engine does
    config = SftConfig.model_validate(content)
    zero_config = build_zero3_config(config, 1.0, World(rank, size, rank))
    found = {}
    for path in folders:
        settings = (ModelConfig(path=path), path, getattr(torch, dtype), zero_config, None)
        try:
            with mock.patch.object(loading, "find_sources", return_value=Sources()):
                whole = load_model(*settings)
        except UserError:  # transformers cannot load it into shards
            continue
        named = whole.named_parameters(remove_duplicate=False)
        trained = {name for name, parameter in named if parameter.requires_grad}
        with noted() as at_the_start:
            parts = load_model(*settings)
        with noted() as awaiting:
            resumed = load_model(*settings, awaits_state=True)
        filled = [name for name in sorted(trained) if not _part(resumed.get_parameter(name)).isnan().all()]
        found[path] = {
            "start": {**at_the_start, "differs": differences(whole, parts)},
            "resume": {**awaiting, "differs": differences(whole, resumed, trained), "filled": filled},
        }
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


@contextmanager
def noted() -> Iterator[dict[str, Any]]:
    """Which parameters this rank reads by itself, which tensors transformers does not see, and the bytes read."""
    found: dict[str, Any] = {"read": 0}
    read_parts = StoredTensor.read_parts

    def find(*given: Any) -> Sources:
        sources = find_sources(*given)
        found["own"], found["left out"] = sorted(sources.own), sorted(sources.left_out)
        return sources

    def read(tensor: StoredTensor, *given: Any) -> Iterator[bytearray]:
        for part in read_parts(tensor, *given):
            found["read"] += len(part)
            yield part

    with mock.patch.object(loading, "find_sources", find), mock.patch.object(StoredTensor, "read_parts", read):
        yield found


def differences(one: Any, other: Any, ignored: set[str] | frozenset[str] = frozenset()) -> list[str]:
    """The names of all that is not equal to the bit: this rank's parts of parameters, buffers, ties and configs."""
    wrong = []
    for kind in ("named_parameters", "named_buffers"):
        first, second = (dict(getattr(model, kind)(remove_duplicate=False)) for model in (one, other))
        wrong += [f"names of {kind}"] if list(first) != list(second) else []
        for name in first.keys() - ignored:
            values = (first[name], second[name])
            if kind == "named_parameters":
                values = (_part(first[name]), _part(second[name]))
            is_equal = values[0].dtype == values[1].dtype and torch.equal(*values)
            if not is_equal or first[name].requires_grad != second[name].requires_grad:
                wrong.append(name)
    about = [
        [
            _ties(model),
            str(model.config),
            str(getattr(model, "generation_config", None)),
            str(model._weight_conversions),
        ]
        for model in (one, other)
    ]
    return wrong + [f"{first} and {second}" for first, second in zip(*about, strict=True) if first != second]


def _ties(model: Any) -> list[list[str]]:
    names = list(model.named_parameters(remove_duplicate=False))
    return [[name for name, other in names if other is parameter] for parameter in model.parameters()]


def _part(parameter: Any) -> torch.Tensor:
    part: torch.Tensor = parameter.ds_tensor[: len(own_range(parameter))]
    return part


def compare_with_whole(rank: int, size: int, content: dict[str, Any], folders: list[str], folder: str) -> None:
    """Load each model as both engines do; each rank writes down in what they differ from transformers' whole model.

    `None`: the engine's model is refused.
    """
    os.environ["LOCAL_RANK"] = "0"
    zero_config = build_zero3_config(SftConfig.model_validate(content), 1.0, World(rank, size, rank))
    found: dict[str, dict[str, Any]] = {}
    for path in folders:
        model = ModelConfig(path=path)
        whole = load_plain_model(model, path, torch.bfloat16)
        found[path] = {"in float32": [name for name, p in whole.named_parameters() if p.dtype == torch.float32]}
        for engine, place in (("plain", torch.device("cpu")), ("zero3", zero_config)):
            try:
                given = load_model(model, path, torch.bfloat16, place, None)
            except UserError as error:
                found[path][engine] = None
                found[path]["refused"] = str(error)
            else:
                found[path][engine] = unlike(whole, given)
                if engine == "plain":
                    named = given.named_parameters()
                    found[path]["trained in float32"] = [
                        name for name, p in named if p.requires_grad and p.dtype == torch.float32
                    ]
    Path(folder, f"{rank}.json").write_text(json.dumps(found))


def unlike(whole: Any, given: Any) -> list[str]:
    """The names of all tensors whose dtype or values, as far as this rank has these, are not the whole model's."""
    wrong = []
    for kind in ("named_parameters", "named_buffers"):
        expected, found = (dict(getattr(model, kind)(remove_duplicate=False)) for model in (whole, given))
        wrong += [f"names of {kind}"] if list(expected) != list(found) else []
        for name in expected.keys() & found.keys():
            tensor, values = found[name], expected[name].detach()
            if hasattr(tensor, "ds_tensor"):
                span = own_range(tensor)
                tensor, values = _part(tensor), values.flatten()[span.start : span.stop]
            if tensor.dtype != expected[name].dtype or not torch.equal(tensor, values):
                wrong.append(name)
    return wrong
