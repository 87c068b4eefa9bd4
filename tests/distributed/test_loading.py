"""Each rank reads its own part of a model's weights, and has what transformers itself would give it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig

from sft.config import ModelConfig
from sft.model.architecture import build_without_weights
from sft.model.own_weights import Sources, find_sources
from sft.model.tiny_model import tiny_config, tiny_model
from sft.model.weight_check import check_weights
from sft.model.weight_files import read_headers
from tests.distributed.launch import run_ranks
from tests.distributed.loaded import compare
from tests.forked_ranks import logs_of, zygote
from tests.model.sweep import GIVEN, LAYOUTS, read_table
from tests.model.tiny_checkpoints import write_checkpoint

FAMILIES = ("gemma3", "ernie4_5_moe")
"""With eyes that are not trained, and with other names in the files; with experts that are merged, and with parameters
of float32 that are not trained."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    made = {family: write_checkpoint(family, root / family) for family in FAMILIES}
    made["llama"] = in_two_files(write_checkpoint("llama", root / "llama"))
    return made


def in_two_files(folder: Path) -> Path:
    """With an index, and both of two tied tensors."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file, {"format": "pt"}
        )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.fixture(scope="module")
def found(
    workload: dict[str, Any], folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[dict[str, Any]]]:
    """By model, what each of three ranks found: parts of three are padded."""
    out = tmp_path_factory.mktemp("found")
    arguments = (workload["config"], [str(folder) for folder in folders.values()], "bfloat16", str(out))
    codes = zygote().start(compare, 3, out / "rank", *arguments)
    assert not any(codes), logs_of(out / "rank")
    by_rank = [json.loads((out / f"{rank}.json").read_text()) for rank in range(3)]
    return {name: [each[str(folder)] for each in by_rank] for name, folder in folders.items()}


@pytest.mark.long
def test_each_rank_has_to_the_bit_what_transformers_itself_would_give_it(found: dict[str, Any]) -> None:
    for ranks in found.values():
        assert [(rank["start"]["differs"], rank["resume"]["differs"]) for rank in ranks] == [([], [])] * 3
        assert all(rank["start"]["own"] == ranks[0]["start"]["own"] for rank in ranks)


def test_every_family_is_loaded_as_transformers_loads_it(
    request: pytest.FixtureRequest, workload: dict[str, Any], tmp_path: Path
) -> None:
    if not request.config.getoption("--all-families"):
        pytest.skip("`make models` tries all families")
    families = [row.family for row in read_table().values() if row.layout in LAYOUTS]
    for family in families:
        small = tiny_config(CONFIG_MAPPING[family](**GIVEN.get(family, {})))
        tiny_model(small, None).save_pretrained(tmp_path / family)
    arguments = (workload["config"], [str(tmp_path / family) for family in families], "bfloat16", str(tmp_path))
    codes = zygote().start(compare, 2, tmp_path / "rank", *arguments, longest_seconds=1500)
    assert not any(codes), logs_of(tmp_path / "rank")
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) > 100
        for path, loaded in found.items():
            assert (path, loaded["start"]["differs"], loaded["resume"]["differs"]) == (path, [], [])
            # Where a class or a module loads in a way of its own (Mamba), transformers reads all of it.
            assert not loaded["resume"]["filled"] or not loaded["resume"]["left out"], path


@pytest.mark.long
def test_each_byte_is_read_by_one_rank(found: dict[str, Any], folders: dict[str, Path]) -> None:
    """But for merged experts, which the first rank reads and hands out."""
    for family, ranks in found.items():
        start = [rank["start"] for rank in ranks]
        stored = read_headers(sorted(folders[family].glob("*.safetensors")))
        assert set(stored) - set(start[0]["left out"]) == {name for name in stored if ".experts." in name}
        # Tied tensors that are stored as two are compared first, by each rank.
        compared = 2 * stored["lm_head.weight"].num_bytes if family == "llama" else 0
        read = [rank["read"] - compared for rank in start]
        assert sum(read) == sum(stored[name].num_bytes for name in start[0]["left out"])
        assert max(read) <= sum(read) / 3 + 4 * len(stored)


@pytest.mark.long
def test_for_a_checkpoint_only_what_is_not_trained_is_read(found: dict[str, Any], folders: dict[str, Path]) -> None:
    for family, ranks in found.items():
        stored = read_headers(sorted(folders[family].glob("*.safetensors")))
        for rank in ranks:
            assert rank["resume"]["filled"] == []
            assert rank["resume"]["left out"] == sorted(stored)
        own = ranks[0]["resume"]["own"]
        assert bool(own) == (family != "llama")
        assert all("vision" in name or "multi_modal" in name or "bias" in name for name in own)


def test_nodes_that_hold_different_weights_are_named(folders: dict[str, Path], tmp_path: Path) -> None:
    """Else the model would be put together from both."""
    ours = folders["gemma3"]
    copy, other = shutil.copytree(ours, tmp_path / "copy"), write_checkpoint("gemma3", tmp_path / "other", seed=1)
    settings = {"folders": [[str(ours), str(copy)], [str(ours), str(other)]]}
    same, different = run_ranks(2, "weights_of_two_nodes", settings)
    assert same == ""
    assert "not the same on all nodes. Nodes that hold the same: node-0; node-1. Needed: a folder" in different


def test_where_a_module_changes_what_it_loads_transformers_reads_all(folders: dict[str, Path]) -> None:
    folder = folders["llama"]
    stored = read_headers(sorted(folder.glob("*.safetensors")))
    skeleton = build_without_weights(ModelConfig(path=str(folder)), AutoConfig.from_pretrained(folder), str(folder))
    check_weights(str(folder), skeleton, stored)

    def sources() -> Sources:
        return find_sources(skeleton, stored, frozenset(), awaits_state=False, is_split=True)

    assert len(sources().own) == len(stored)

    class Halved(nn.Linear):
        def _load_from_state_dict(self, *given: Any) -> None:
            super()._load_from_state_dict(*given)
            self.weight.data /= 2

    with torch.device("meta"):
        skeleton.model.layers[0].mlp.up_proj = Halved(32, 48, bias=False)
    assert sources() == Sources()
