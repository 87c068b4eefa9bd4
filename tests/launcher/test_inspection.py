"""`sft inspect` shows examples, writes a page, or checks every row: exit code 1 where an invariant is broken."""

import json
import re

import numpy as np
import pytest

from launcher.cli import main
from sft.inspection.check_result import Invariant

CONFIG = """
run: {{name: small, dir: run}}
model: {{path: {model}}}
data:
  cache_dir: cache
  sources:
    - {{name: basic, path: {instructions}, format: instruction, task: {{column: task}}}}
    - {{name: lists, path: {prompts}, format: prompt_completion}}
stages: [{{name: broad, budget: {{epochs: 1}}, optimizer: {{lr: 1.0e-4}}}}]
"""


@pytest.fixture
def sft(tmp_path, monkeypatch, capsys, small_records, tokenizer_dir):
    """The verb on a small config, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    paths = {"instructions": small_records.instructions, "prompts": small_records.prompts}
    (tmp_path / "small.yaml").write_text(CONFIG.format(model=tokenizer_dir("chatml"), **paths))

    def run(*arguments):
        try:
            code = main(["inspect", "small.yaml", *map(str, arguments)])
        except SystemExit as error:  # argparse ends the process itself
            code = int(error.code or 0)
        return (code, *capsys.readouterr())

    return run


def test_examples_are_shown_with_marks_around_what_is_learned(sft, small_records):
    code, out, err = sft()
    assert (code, err) == (0, "")
    headers = re.findall(r"^row (\d+) · task (\w+) · source (\w+) · (\d+) tokens, (\d+) learned$", out, re.M)
    assert len(headers) == 3
    assert "\x1b" not in out
    answers = re.findall(r"<\|im_start\|>assistant↵\n⟦(.+)<\|im_end\|>⟧↵", out)
    records = [json.loads(line) for file in small_records for line in file.read_text().splitlines()]
    assert len(answers) == 3
    assert set(answers) <= {record.get("output", record.get("completion")) for record in records}
    assert sft()[1] == out
    assert sft("--seed", 3)[1] != out


def test_examples_are_chosen_by_task_source_length_and_row(sft):
    out = sft("--task", "sort", "--source", "basic", "--num", 5, "--min-tokens", 40)[1]
    headers = re.findall(r"^row (\d+) · task (\w+) · source (\w+) · (\d+) tokens", out, re.M)
    assert len(headers) == 5
    assert {(task, source) for _, task, source, _ in headers} == {("sort", "basic")}
    assert min(int(length) for *_, length in headers) >= 40
    row = headers[2][0]
    assert re.findall(r"^row (\d+) ", sft("--row", row)[1], re.M) == [row]


def test_the_place_of_a_row_is_that_of_its_record(sft, small_records):
    out = sft("--source", "lists", "--num", 1)[1]
    file, line = re.search(r"^(.+prompts\.jsonl):(\d+)$", out, re.M).groups()
    assert file == str(small_records.prompts)
    record = json.loads(small_records.prompts.read_text().splitlines()[int(line) - 1])
    assert f"⟦{record['completion']}<|im_end|>⟧" in out


def test_a_page_is_written(sft, tmp_path):
    code, out, err = sft("--html", "shown.html", "--task", "copy")
    assert (code, err) == (0, "")
    page = (tmp_path / "shown.html").read_text()
    num_rows = page.count("<article ")
    assert num_rows == page.count('data-task="copy"') > 30
    assert out == f"{num_rows} rows: shown.html\n"


def test_a_check_says_for_each_invariant_what_holds(sft):
    code, out, err = sft("--check")
    assert (code, err) == (0, "")
    assert all(invariant.value in out for invariant in Invariant)
    assert "Every invariant holds." in out


def test_a_broken_store_is_exit_code_1_with_the_row_and_its_record(sft, tmp_path):
    sft()
    (file,) = tmp_path.glob("cache/tokens/*/num_supervised.npy")
    numbers = np.load(file)
    numbers[4] += 1
    np.save(file, numbers)
    code, out, err = sft("--check")
    assert (code, err) == (1, "")
    assert re.search(
        rf"^{Invariant.COUNT.value}:\n  row 4 \(.+instructions\.jsonl:\d+\): \d+ tokens are learned", out, re.M
    )
    assert "Every invariant holds." not in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "sorted"], "Did you mean 'sort'?"),
        (["--html", "small.yaml/shown.html"], "--html small.yaml/shown.html: the page cannot be written"),
        (["--check", "--task", "copy"], "leave out --task copy"),
        (["--num", "0"], "argument --num: 0 is less than 1"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(sft, arguments, words):
    code, _, err = sft(*arguments)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
