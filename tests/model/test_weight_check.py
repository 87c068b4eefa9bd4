"""A model whose files do not hold all of it, and nothing else, is refused with the names: nothing is filled in."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sft.config import ModelConfig
from sft.errors import UserError
from sft.model.loading import check_model, load_model
from tests.conftest import TokenizerDir
from tests.model.tiny_checkpoints import CHECKPOINTS, write_checkpoint

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tokenizer_dir: TokenizerDir) -> Callable[[str], Path]:
    """A function from a family to its folder, with a tokenizer; not to be changed."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            write_checkpoint(family, root / family)
            shutil.copytree(tokenizer_dir("chatml"), root / family, dirs_exist_ok=True)
        return root / family

    return folder


def refusal(folder: Path) -> str:
    """What is said before any machine is held, and in the same words where the weights would be loaded."""
    model = ModelConfig(path=str(folder))
    with pytest.raises(UserError) as before:
        check_model(model)
    with pytest.raises(UserError) as loading:
        load_model(model, str(folder), torch.float32)
    assert str(before.value) == str(loading.value)
    return str(before.value)


def changed(base: Path, folder: Path, change: Callable[[Tensors], object]) -> Path:
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("family", CHECKPOINTS)
def test_a_whole_model_passes(family: str, checkpoints: Callable[[str], Path]) -> None:
    assert check_model(ModelConfig(path=str(checkpoints(family))), 512) == []


CLASSIFIER = "classifier.weight"
CHANGES: dict[str, tuple[str, Callable[[Tensors], object], str]] = {
    "a head that is not tied": ("qwen2", lambda t: t.pop("lm_head.weight"), r"missing:\n    lm_head\.weight\n"),
    "a tensor of a layer": (
        "llama",
        lambda t: t.pop("model.layers.1.mlp.up_proj.weight"),
        r"missing:\n    model\.layers\.1\.mlp\.up_proj\.weight\n",
    ),
    "a whole layer": (
        "llama",
        lambda t: [t.pop(name) for name in list(t) if ".layers.1." in name],
        r"missing:\n(    model\.layers\.1\..*\n){8}    and 1 more",
    ),
    "a head for classes": (
        "llama",
        lambda t: t.update({"score.weight": torch.zeros(2, 32)}),
        r"not of this model:\n    score\.weight\n",
    ),
    "another shape": (
        "gpt2",
        lambda t: t.update({"transformer.ln_f.weight": torch.ones(31)}),
        r"of another shape:\n    transformer\.ln_f\.weight \(31,\), needed \(32,\)",
    ),
    "one expert": (
        "mixtral",
        lambda t: [t.pop(name) for name in list(t) if ".layers.0." in name and "experts.2." in name],
        r"of another shape:\n    model\.layers\.0\.mlp\.experts\.\w+ \(3, ",
    ),
    "a part of an expert": (
        "mixtral",
        lambda t: t.pop(next(name for name in t if ".layers.0." in name and "experts.2.w1" in name)),
        r"missing:\n    model\.layers\.0\.block_sparse_moe\.experts\.2\.w1\.weight\n",
    ),
    "what sees": (
        "gemma3",
        lambda t: [t.pop(name) for name in list(t) if "vision_tower" in name],
        r"missing:\n    model\.vision_tower\.",
    ),
    "numbers of eight bits": (
        "llama",
        lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.float8_e4m3fn)}),
        r"quantized:\n    model\.norm\.weight F8_E4M3",
    ),
    "whole numbers": (
        "llama",
        lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int32)}),
        r"quantized:\n    model\.norm\.weight I32",
    ),
    "a head that should be tied and is another one": (
        "llama",
        lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}),
        r"tied by tie_word_embeddings .*:\n    lm_head\.weight and model\.embed_tokens\.weight\n",
    ),
    "such a head, and names without the prefix of the body": (
        "llama",
        lambda t: t.update(
            {name.removeprefix("model."): t.pop(name) for name in list(t)}, **{"lm_head.weight": torch.ones(640, 32)}
        ),
        r"tied by tie_word_embeddings .*:\n    lm_head\.weight and model\.embed_tokens\.weight\n",
    ),
    "such a head of a model that sees": (
        "gemma3",
        lambda t: t.update({"lm_head.weight": torch.ones(640, 32)}),
        r"tied by tie_word_embeddings .*:\n    lm_head\.weight and model\.language_model\.embed_tokens\.weight\n",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_is_missing_left_over_or_of_another_shape_is_named(
    kind: str, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    family, change, expected = CHANGES[kind]
    text = refusal(changed(checkpoints(family), tmp_path / "model", change))
    assert re.search(expected, text), text
    assert "which its config.json asks for" in text


def test_what_transformers_declares_ignorable_is_ignored(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()  # tied, and saved all the same

    folder = changed(checkpoints("llama"), tmp_path / "model", add)
    check_model(ModelConfig(path=str(folder)))
    load_model(ModelConfig(path=str(folder)), str(folder), torch.float32)


def test_a_pointer_of_git_lfs_is_told_from_weights(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 988097824\n"
    (folder / "model.safetensors").write_text(pointer)
    assert refusal(folder).startswith(f"model: {folder}/model.safetensors is a pointer of Git LFS")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.3, 0.999])
def test_a_file_that_is_cut_off_is_named(part: float, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    assert f"{file} is cut off or damaged" in refusal(folder)


def header_changed(change: Callable[[dict[str, dict[str, object]]], object]) -> Callable[[bytes], bytes]:
    def with_header(content: bytes) -> bytes:
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        change(header["model.norm.weight"])
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[end:]

    return with_header


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b"x",
        lambda content: (100_000).to_bytes(8, "little") + b"[" * 100_000,
        header_changed(lambda tensor: tensor.update(shape=[-1, -32])),
        header_changed(lambda tensor: tensor.update(shape=[10**12, 10**12])),
        header_changed(lambda tensor: tensor.update(shape="32")),
        header_changed(lambda tensor: tensor.update(dtype="BF16")),
        header_changed(lambda tensor: tensor.update(data_offsets=[64, 0])),
        header_changed(lambda tensor: tensor.update(data_offsets=[0, 128])),
    ],
    ids=["longer", "deep", "negative", "huge", "text", "other dtype", "backwards", "overlapping"],
)
def test_a_file_whose_header_does_not_fit_it_is_named(
    damage: Callable[[bytes], bytes], checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    file = folder / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    assert refusal(folder).startswith(f"model: {file} is cut off or damaged: ")


def test_a_tensor_that_two_files_hold_is_refused(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    save_file({"model.norm.weight": torch.ones(32)}, folder / "two.safetensors", metadata={"format": "pt"})
    names = dict.fromkeys(load_file(folder / "one.safetensors"), "one.safetensors")
    index = {"weight_map": {**names, "model.norm.weight": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model.norm.weight is in one.safetensors and in two.safetensors" in refusal(folder)


@pytest.mark.parametrize("content", ["[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_an_index_that_is_none_is_refused(content: str, checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(content)
    assert "is not an index of weights" in refusal(folder)


def test_an_index_that_names_a_missing_file_is_refused(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    index = {"weight_map": {"model.norm.weight": names[0], "lm_head.weight": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    text = refusal(folder)
    assert f"{folder} lacks {names[1]}, which its model.safetensors.index.json names" in text


def test_an_adapter_is_refused_with_the_way_out(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/model"}))
    assert "merge_and_unload" in refusal(folder)


def test_a_package_that_is_missing_is_named(checkpoints: Callable[[str], Path], tmp_path: Path) -> None:
    """Of the model's own code, which transformers looks through before it runs it."""
    folder = Path(shutil.copytree(checkpoints("llama"), tmp_path / "model"))
    (folder / "own_code.py").write_text("import no_such_package\nfrom transformers import LlamaForCausalLM as Own\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "own_code.Own"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="needs a package that is not installed here: .*no_such_package"):
        check_model(ModelConfig(path=str(folder), trust_remote_code=True))


QUANTIZED = {
    "bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "gptq": {"quant_method": "gptq", "bits": 4, "group_size": 128},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}},
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}


@pytest.mark.parametrize("method", QUANTIZED)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_a_quantized_folder_is_refused_with_the_way_out(
    family: str, method: str, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints(family), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    # Some write it beside the text's own settings.
    section = config["text_config"] if family == "gemma3" and method == "fp8" else config
    section["quantization_config"] = QUANTIZED[method]
    (folder / "config.json").write_text(json.dumps(config))
    text = refusal(folder)
    assert f"are quantized ({method})" in text
    assert "Needed: the same model in bfloat16" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "no causal language model"),
        ({"model_type": "no_such_model"}, "no_such_model"),
        ({"hidden_size": 36}, r"of another shape:\n    lm_head\.weight"),
        # What transformers itself says of these are errors of many classes.
        ({"attention_dropout": "0.5"}, "'attention_dropout'"),
        ({"rope_parameters": [1]}, "'rope_parameters'"),
        ({"hidden_act": "zoop"}, "KeyError: 'zoop'"),
        ({"dtype": "float99"}, "float99"),
        ({"quantization_config": {}}, "quantized"),
        ({"quantization_config": "awq"}, "cannot be read"),
    ],
)
def test_what_transformers_cannot_load_so_is_refused_with_the_reason(
    change: dict[str, object], expected: str, checkpoints: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoints("qwen2"), tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert re.search(expected, refusal(folder))
