"""What a user names as a config and is none, or one that would never end, is refused at once."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from launcher.cli import main
from launcher.layout_check import find_layout
from sft.config_file import read_overrides, read_yaml
from sft.errors import UserError
from sft.job_config import load_job
from sft.model_sizes import ImpossibleSizesError, check_sizes
from sft.small_files import MAX_CONFIG_BYTES, read_small_json, read_small_text

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "vocab_size": 600,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}


@pytest.fixture(autouse=True)
def _at_once() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < 10


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, said in (("/dev/zero", "a device"), (tmp_path / "pipe", "a pipe"), (tmp_path, "a folder")):
        with pytest.raises(UserError, match=said):
            read_yaml(Path(path))
    with pytest.raises(UserError, match="null byte"):
        read_yaml(Path("a\0b"))


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(UserError, match="10,737,418,240 bytes; needed: at most 1,000,000"):
        read_yaml(large)
    large.write_text("a" * MAX_CONFIG_BYTES)
    assert len(read_small_text(large, "the text")) == MAX_CONFIG_BYTES
    with pytest.raises(UserError, match="at most 9"):
        read_small_text(large, "the text", max_bytes=9)


def test_a_mark_at_the_beginning_is_no_content_and_no_other_encoding_is_guessed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(path).content == {"a": 1}
    path.write_bytes("a: é".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8 .byte 3"):
        read_yaml(path)


def bomb(first: str, again: str) -> str:
    lines = [f"a{i}: &a{i} {again.replace('@', ', '.join([f'*a{i - 1}'] * 10))}" for i in range(1, 10)]
    return "\n".join([f"a0: &a0 {first}", *lines])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb("[1, 1]", "[@]"), "more than 50,000 values"),
        (bomb("{k: 1}", "{<<: [@]}"), "more than 50,000 values"),
        ("a: &a [*a]", "nested too deeply"),
        ("a: &a {b: *a}", "nested too deeply"),
        ("[" * 5_000, "nested too deeply"),
        ("{a: " * 5_000, "nested too deeply"),
        ("a: " + "9" * 5_000, "a number of 5,000 digits"),
        ("a: 0.1" + "1" * 5_000, "a number of 5,003 digits"),
    ],
)
def test_yaml_that_becomes_more_than_it_is_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said):
        read_yaml(path)


def test_aliases_that_are_written_out_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n")
    assert read_yaml(path).content == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


@pytest.mark.parametrize(
    "assignment", ["stages.999999999=1", "stages." + "9" * 6_000 + "=1", "a." * 50_000 + "a=1", "a=" + "[" * 9_000]
)
def test_an_override_of_nothing_is_one_short_message(assignment: str) -> None:
    with pytest.raises(UserError) as refused:
        read_overrides({"stages": [{"name": "s"}]}, [assignment])
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"num_hidden_layers": 1e9},
        {"num_hidden_layers": 10**9},
        {"hidden_size": -4},
        {"vocab_size": 10**30},
        {"num_attention_heads": 0},
        {"intermediate_size": "128"},
        {"num_key_value_heads": True},
        {"vocab_size": float("nan")},
        {"hidden_size": float("inf")},
        {"model_type": ["llama"]},
        {"hidden_act": ["silu"]},
        {"num_key_value_heads": [1, 2]},
        {"hidden_size": -4, "vocab_size": -1},
    ],
)
def test_sizes_of_no_model_are_refused_with_their_names(
    change: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_job(tmp_path, LLAMA | change)
    code = main(["plan", str(config)])
    shown = " ".join("".join(capsys.readouterr()).split())
    assert (code, "Traceback" in shown) in ((0, False), (2, False)), "a note, or an error: without sizes, no forecast"
    for key in change:
        assert f"{key}:" in shown


@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**9}, {"num_labels": 10**9}, {"text_config": "llama"}])
def test_nothing_is_prepared_for_sizes_of_no_model(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ImpossibleSizesError, match=f"  {next(iter(change))}: "):
        find_layout(load_job(write_job(tmp_path, LLAMA | change), []).sft)


def write_job(folder: Path, model: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(model))
    config = folder / "c.yaml"
    config.write_text(
        f"run: {{name: a, dir: {folder}/run}}\nmodel: {{path: {folder}}}\n"
        f"data: {{sources: [{{name: a, path: {folder}/a.jsonl}}], cache_dir: {folder}/cache}}\n"
        "stages: [{name: s, budget: {steps: 1}, optimizer: {lr: 1.0e-3}}]\n"
    )
    return config


@pytest.mark.parametrize("section", ["text_config", "vision_config", "thinker_config.text_config"])
@pytest.mark.parametrize("change", [{"num_hidden_layers": 10**9}, {"depth": 1e9}, {"hidden_size": -4}])
def test_sizes_in_a_section_are_sizes_too(section: str, change: dict[str, Any], tmp_path: Path) -> None:
    config: dict[str, Any] = change
    for name in reversed(section.split(".")):
        config = {name: config}
    (key,) = change
    with pytest.raises(ImpossibleSizesError, match=rf"  {section}\.{key}: "):
        check_sizes({"model_type": "gemma3", **config}, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"attention_types": [[["global", "local"], 10**9]]}, "attention_types: 1000000000; needed: at most 10,000"),
        ({"layer_types": ["full_attention"] * 50_000}, r"layer_types: .*at most 10,000 entries"),
        ({"hybrid_override_pattern": "M" * 50_000}, r"hybrid_override_pattern: .*at most 10,000 entries"),
        ({"block_configs": [{"ffn": {"num_layers": 10**9}}]}, r"block_configs\.ffn\.num_layers: "),
        ({"a": {"b": {"c": {"d": {"e": {"num_hidden_layers": 10**9}}}}}}, r"a\.b\.c\.d\.e\.num_hidden_layers: "),
        ({"num_attention_heads": [4, 10**9]}, "num_attention_heads: 1000000000"),
        ({"state_size": 10**9}, "state_size: "),
        ({"conv_kernel": 10**9}, "conv_kernel: "),
        ({"num_labels": 10**9}, "num_labels: "),
        ({"num_codebooks": 10**9}, "num_codebooks: "),
        ({"text_config": "llama"}, "text_config: 'llama'; needed: a section"),
        ({"text_config": [{"hidden_size": 64}]}, "text_config: .*needed: a section"),
    ],
)
def test_whatever_is_counted_through_is_bounded_at_any_depth(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ImpossibleSizesError, match=f"  {said}"):
        check_sizes({"model_type": "a", **config}, tmp_path / "config.json")


def test_large_numbers_that_nothing_counts_through_are_left_alone(tmp_path: Path) -> None:
    said = {"rope_theta": 10**10, "seed": 2**40, "max_pixels": 10**8, "num_parameters": 7 * 10**10, "text_config": None}
    lists = {"id2label": {str(i): "a" for i in range(20_000)}, "suppress_tokens": list(range(20_000))}
    check_sizes({"model_type": "a", **said, **lists}, tmp_path / "config.json")


def test_no_family_of_transformers_has_such_sizes(tmp_path: Path) -> None:
    for family in ("gemma3", "qwen3_omni_moe", "glm5_next", "lxmert", "mamba", "t5"):
        check_sizes(CONFIG_MAPPING[family]().to_dict(), tmp_path / "config.json")


def test_json_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for text, said in (("[" * 200_000, "nested too deeply"), ("{", "not JSON"), ("9" * 6_000, "not JSON")):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            read_small_json(path, "the model's config")
