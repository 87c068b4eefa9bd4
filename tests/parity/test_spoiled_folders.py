"""An exported folder that was spoiled is found, and what was done to it is named; one that was not is found equal."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sft.data.rendering.chat_template import load_tokenizer
from sft.parity.parity_result import ParityResult
from sft.run_folder import RunFolder
from sft.training.checkpoint_export import export_checkpoint, find_model
from sft.training.export_check import check_export
from sft.training.exported_folder import ExportedFolder
from sft.world import World
from tests.conftest import SmallRecords
from tests.parity.exported_run import checked, copy_of, in_this_process, train_run

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("spoiled")
    return train_run(folder, tiny_model_dir, small_records, 1, checkpoint={"check_export": False})


def change_json(file: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def without_eos(folder: Path) -> None:
    change_json(folder / "generation_config.json", lambda c: c.update(eos_token_id=[0]))


def other_template(folder: Path) -> None:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("'\\n' + message['content']", "': ' + message['content']"))


def swapped_rows(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    rows = tensors["model.embed_tokens.weight"]
    rows[[300, 301]] = rows[[301, 300]]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def with_bos(folder: Path) -> None:
    def add(content: Any) -> None:
        token = {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}
        single = [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<|endoftext|>": token},
        }

    change_json(folder / "tokenizer.json", add)


def lower_case(folder: Path) -> None:
    change_json(folder / "tokenizer.json", lambda c: c.update(normalizer={"type": "Lowercase"}))


def other_dtype(folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c.update(dtype="bfloat16"))


def other_rope(folder: Path) -> None:
    change_json(folder / "config.json", lambda c: c["rope_parameters"].update(rope_theta=10.0))


ENDS = r"ends answers at '<\|endoftext\|>' \(0\); training ends them at '<\|im_end\|>' \(2\)"
SPOILED: dict[str, dict[Spoil, tuple[str, str]]] = {
    "files": {
        without_eos: ("ends", ENDS),
        with_bos: ("files", 'config.json: dtype is "bfloat16"; the run writes "float32"'),
        other_dtype: ("dtype", "transformers loads the folder in bfloat16"),
    },
    "template": {other_template: ("prompts", "training saw")},
    "texts and rows": {
        lower_case: ("prompts", "training saw"),
        swapped_rows: ("weights", r"embed_tokens.weight has other values in 2 of \d+ rows: 300, 301"),
    },
    "rope": {other_rope: ("log-probabilities", "log-probability")},
}
"""What is done to one folder → the check that finds it, and what it says."""


def found_in(result: ParityResult) -> dict[str, str]:
    return {check.name: check.first for check in result.checks if check.num_different}


@pytest.mark.parametrize("name", SPOILED)
def test_what_was_done_to_the_folder_is_found_and_named(
    name: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    folder = copy_of(run, tmp_path)
    for spoil in SPOILED[name]:
        spoil(folder)
    result = checked(run, folder)
    found = found_in(result)
    assert not result.is_equal
    for spoil, (check, text) in SPOILED[name].items():
        assert re.search(text, found.get(check, "")), (spoil.__name__, found)
    assert "files" in found
    files = {cause.partition(":")[0] for cause in result.causes}
    assert {"files": {"config.json", "generation_config.json", "tokenizer.json"}}.get(name, files) == files != set()


def test_a_folder_that_does_the_same_is_equal_whatever_its_settings_of_sampling(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    folder = copy_of(run, tmp_path)
    change_json(folder / "generation_config.json", lambda c: c.update(temperature=0.6, do_sample=True))
    result = checked(run, folder)
    assert found_in(result) == {}
    assert result.is_equal
    assert [cause.partition(" ")[0] for cause in result.causes] == ["generation_config.json:"] * 2
    numbers = {check.name: check.num_compared for check in result.checks}
    assert numbers["prompts"] >= 9
    assert numbers["answers"] == numbers["prompts"] + 8  # held-out examples, of which only the tokens are known
    assert numbers["log-probabilities"] > 60
    facts = next(check.facts for check in result.checks if check.name == "log-probabilities")
    assert facts["largest_nats"] < facts["allowed_token_nats"] / 10


def test_a_folder_that_cannot_be_loaded_is_a_difference_in_words(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_this_process(monkeypatch)
    folder = copy_of(run, tmp_path)
    change_json(folder / "config.json", lambda c: c.update(hidden_size=32))
    found = found_in(checked(run, folder))
    assert "plain transformers cannot use the folder" in found["loading"]
    assert "hidden_size is 32; the run writes 64" in found["files"]


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.long)])
def test_rounding_is_no_difference(dtype: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    model = find_model(run, None, "last")
    with model.opened() as reader:
        export_checkpoint(model, reader, load_tokenizer(model.config.model), tmp_path / "model", dtype)
        result = check_export(ExportedFolder(tmp_path / "model", model, dtype), reader, World())
    assert found_in(result) == {}
