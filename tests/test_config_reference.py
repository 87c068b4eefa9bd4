"""What is made of the config's fields for people and for editors is what the fields say."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from launcher.cli import main
from sft.config_effects import EFFECTS
from sft.config_names import with_current_names
from sft.config_schema import config_schema
from sft.job_config import JobFile
from tests.test_config_file import FULL, LEAST

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SCHEMA = config_schema()


@pytest.mark.parametrize(("options", "file"), [((), "configs/schema.json"), (("--markdown",), "docs/CONFIG.md")])
def test_what_is_committed_is_what_the_command_prints(
    options: tuple[str, ...], file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config-schema", *options]) == 0
    assert capsys.readouterr().out == (ROOT / file).read_text(encoding="utf-8"), "`make docs` writes it"


def problems_of(content: Any) -> list[str]:
    return [".".join(map(str, error.absolute_path)) for error in Draft202012Validator(SCHEMA).iter_errors(content)]


def test_the_schema_is_one_and_takes_what_a_config_may_hold() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for content in (FULL, LEAST):
        assert problems_of(json.loads(json.dumps(content))) == []
    another_model = {**LEAST, "from": {"run": "runs/old", "stage": "broad"}}
    del another_model["model"]
    assert problems_of(another_model) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_names_the_schema_for_editors_and_keeps_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert named
    assert json.loads((path.parent / named[1]).read_text(encoding="utf-8")) == SCHEMA
    assert problems_of(yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("train", "packs_per_stp"), 3),
        (("train", "packs_per_step"), 0),
        (("train", "packs_per_step"), "many"),
        (("stages", 0, "mixture", "rates"), "even"),
        (("data", "sources", 0, "task"), {"colum": "category"}),
        (("data", "sources", 0, "task"), 3),
        (("checkpoint", "async"), "no"),
        (("cluster",), {"workers": [2, 0]}),
        (("kubernetes",), {"image": "i"}),
    ],
)
def test_the_schema_refuses_what_is_no_config(place: tuple[Any, ...], value: Any) -> None:
    content = deepcopy(json.loads(json.dumps(FULL)))
    node = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    assert len(problems_of(content)) == 1


def test_the_schema_takes_the_names_that_fields_had_before_and_says_those_of_now() -> None:
    content = deepcopy(json.loads(json.dumps(LEAST)))
    content["train"] = {"micro_packs": 2}
    content["data"]["holdout"] = {"overlap": "remove", "overlap_len_tokens": 8}
    assert with_current_names(content, JobFile)[1], "they are read"
    assert problems_of(content) == []
    of_before = {
        name: field["description"]
        for section in SCHEMA["$defs"].values()
        for name, field in section["properties"].items()
        if field.get("deprecated")
    }
    assert of_before == {
        "micro_packs": "Now `packs_per_micro_batch`.",
        "overlap": "Now `decontaminate`.",
        "overlap_len_tokens": "Now `ngram_tokens`.",
    }
    content["train"]["micro_packs"] = 0
    assert problems_of(content) == ["train.micro_packs"]


def test_every_field_has_a_text_and_says_what_it_affects() -> None:
    for section in (SCHEMA, *SCHEMA["$defs"].values()):
        for name, field in section.get("properties", {}).items():
            assert field.get("description") or "$ref" in field, f"{section['title']}.{name}"
    text = (ROOT / "docs/CONFIG.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]* \| (\w*) \| [^|]+ \|$", text.replace("\\|", ""), re.MULTILINE)
    sections = [section["properties"] for section in SCHEMA["$defs"].values()]
    fields = [name for section in sections for name, field in section.items() if "deprecated" not in field]
    assert sorted(name for name, _ in rows) == sorted(fields)
    assert {effect for _, effect in rows} == {*EFFECTS, ""}
