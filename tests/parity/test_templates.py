"""The prompts of a folder that was exported well are those of training, with every committed template."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from sft.config import SftConfig
from sft.data.record_pipeline import RecordPipeline
from sft.data.rendering.chat_template import TEMPLATE_DATE, load_tokenizer
from sft.data.rendering.saved_template import saved_template
from sft.parity.cases import fixed_cases
from sft.parity.comparison import Shown, compare_prompts
from sft.parity.parity_result import Check
from sft.parity.plain_process import PlainCase
from sft.parity.plain_transformers import prompt_of
from tests.checkpoint.exported import run_config
from tests.conftest import TEMPLATES, TokenizerDir

UNUSABLE = ("no_answer", "no_stop_token", "upper_case")
"""Templates with which nothing is learned."""


def prompts(tokenizer: Path, folder: Path, template: str | None = None) -> tuple[Check, set[str]]:
    """The check of the prompts of a saved tokenizer, and which cases there are."""
    config = run_config(tokenizer, "float32")
    content = json.loads(config.model_dump_json(by_alias=True))
    content["data"]["task_tag"] = {"text": "Task: {task}"}
    config = SftConfig.model_validate(content)
    pipeline = RecordPipeline(config.data, config.model)
    saved = load_tokenizer(config.model)
    saved.chat_template = saved_template(saved) if template is None else template
    saved.save_pretrained(folder)
    cases, left_out = fixed_cases(pipeline, config)
    plain = AutoTokenizer.from_pretrained(folder)
    found = []
    for case in cases:
        made = prompt_of(json.loads(json.dumps(case.as_json())), plain, TEMPLATE_DATE.isoformat())
        ids = {name: tuple(value) for name, value in made.items() if name != "refused"}
        found.append(PlainCase((), (), (), refused=made.get("refused", ""), **ids))
    assert len(cases) + len(left_out) == 9
    return compare_prompts(cases, found, Shown(pipeline.tokenizer.text_of)), {case.name for case in cases}


@pytest.mark.parametrize("template", sorted({path.stem for path in TEMPLATES.glob("*.jinja")} - {*UNUSABLE}))
def test_there_is_no_false_alarm(template: str, tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    check, names = prompts(tokenizer_dir(template), tmp_path)
    assert check.first == ""
    assert check.num_compared >= 6
    assert {"one turn", "several turns", "unicode"} <= names


def test_a_template_that_writes_the_date_is_said_and_no_difference(tokenizer_dir: TokenizerDir, tmp_path: Path) -> None:
    dated = tmp_path / "dated"
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir("chatml"))
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + tokenizer.chat_template
    tokenizer.save_pretrained(dated)
    check, _ = prompts(dated, tmp_path / "saved")
    assert check.first == ""
    assert "today's date" in check.notes[0]


def test_without_its_prelude_the_first_prompt_that_differs_is_shown(
    tokenizer_dir: TokenizerDir, tmp_path: Path
) -> None:
    plain = (TEMPLATES / "chatml.jinja").read_text().removesuffix("\n")
    check, _ = prompts(tokenizer_dir("chatml"), tmp_path, plain)
    assert check.num_different == 2
    assert check.first.startswith("tools: at token ")
    assert "training saw" in check.first
