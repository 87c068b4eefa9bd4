"""`sft construct` as people call it: from the rare tasks of a config to a folder of records that can be trained on."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.cli import main
from sft.config import DataConfig, ModelConfig
from sft.data.planning.holdout import held_out_examples
from sft.data.preparation import prepare_store
from tests.conftest import SmallRecords
from tests.construction import recipe_teacher
from tests.construction.teaching import lines_of
from tests.endpoint.chat_server import ChatServer
from tests.forked_ranks import warm_command


@pytest.fixture
def content(
    tiny_model_dir: Path, small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory, server: ChatServer
) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("construct")
    source = {"name": "words", "path": str(small_records.instructions), "task": {"column": "task"}}
    return {
        "run": {"name": "made", "dir": str(folder / "run")},
        "model": {"path": str(tiny_model_dir), "dtype": "float32"},
        "data": {
            "sources": [source],
            "cache_dir": str(folder / "cache"),
            "max_len_tokens": 256,
            "holdout": {"share": 0.3, "tasks": ["reverse"]},
        },
        "stages": [{"name": "only", "budget": {"steps": 1}, "optimizer": {"lr": 1e-3}}],
        "construct": {
            "teacher": {"endpoint": server.url},
            "recipes": [{"kind": "few_shot", "num": 12}, {"kind": "self_instruct", "tasks": ["copy"], "num": 3}],
            "out": str(folder / "made"),
        },
    }


def written(content: dict[str, Any], folder: Path) -> str:
    path = folder / "config.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def test_rare_tasks_get_more_and_no_held_out_record_is_shown(
    content: dict[str, Any], server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = written(content, tmp_path)
    assert main(["construct", config]) == 0
    said = capfd.readouterr().out
    out = Path(content["construct"]["out"])
    made = {path.name for path in out.iterdir()}
    assert made == {"records.jsonl", "dropped.jsonl", "manifest.json", "log", "construct.html", "DATA_CARD.md"}
    assert re.search(r"^\| words \| \d+ \| not stated \|$", (out / "DATA_CARD.md").read_text(), re.MULTILINE)
    parts = {(part["recipe"], part["task"]): part["num_wanted"] for part in lines_of_manifest(out)["parts"]}
    assert parts[("self_instruct", "copy")] == 3
    few = {task: num for (recipe, task), num in parts.items() if recipe == "few_shot"}
    assert few.keys() == {"count", "sort"}, "copy has more than its share, and reverse is held out"
    assert sum(few.values()) == 12
    for words in ("15 records wanted, in all at most about 21 requests", "self_instruct", "spent: ", str(out)):
        assert words in said
    store = prepare_store(DataConfig(**content["data"]), ModelConfig(**content["model"]))
    held_out = held_out_examples(store, DataConfig(**content["data"]).holdout)
    records = lines_of(Path(content["data"]["sources"][0]["path"]))
    prompts = "\n".join(json.dumps(one["messages"]) for one in server.asked)
    trained = {records[i]["input"] for i in store.record_ids[~held_out].tolist()}
    hidden = {records[i]["input"] for i in store.record_ids[held_out].tolist()} - trained
    long = [text for text in hidden if len(text.split()) > 4]
    assert len(long) > 20
    assert not [text for text in long if text in prompts]
    assert [text for text in trained if len(text.split()) > 4 and text in prompts]
    # What is made is a source like any other, but not of the config that makes it.
    num = len(server.asked)
    content["data"]["sources"].append({"name": "made", "path": str(out / "records.jsonl"), "task": {"column": "task"}})
    both = prepare_store(DataConfig(**content["data"], unreviewed=True), ModelConfig(**content["model"]))
    assert len(both) == len(store) + len(lines_of(out / "records.jsonl"))
    assert main(["construct", written(content, tmp_path)]) == 2
    assert "is what the source made reads" in capfd.readouterr().err
    assert len(server.asked) == num
    # A judge asks more than recipes do, which is said before.
    del content["data"]["sources"][1]
    content["construct"] |= {
        "filters": {"judge": 4},
        "budget": {"requests": num, "price_per_million_tokens": [1e4, 2e4]},
    }
    assert main(["construct", written(content, tmp_path)]) == 0
    said = " ".join(capfd.readouterr().out.split())
    estimate = re.search(r"and the judge: at most about 15 requests, ([\d,]+) tokens, cost (\S+), one for each", said)
    assert estimate
    # What the teacher may write, 12 answers and 3 times 3, and a verdict of each; the cost of it by the prices given.
    least = (12 + 3 * 3) * 1024 + 15 * 512
    tokens = int(estimate[1].replace(",", ""))
    assert least < tokens < least + 15 * 500
    assert float(estimate[2]) == pytest.approx((tokens + 15 * 512) / 100, abs=0.01)
    assert len(server.asked) == num, "the budget counts them, too"


def test_where_all_records_have_a_system_text_what_is_made_has_one_of_theirs(
    content: dict[str, Any], tmp_path: Path
) -> None:
    source = content["data"]["sources"][0]
    records = [{**line, "system": f"You {line['task']} words."} for line in lines_of(Path(source["path"]))[::4]]
    source["path"] = str(tmp_path / "records.jsonl")
    Path(source["path"]).write_text("".join(json.dumps(line) + "\n" for line in records))
    assert main(["construct", written(content, tmp_path)]) == 0
    made = lines_of(Path(content["construct"]["out"]) / "records.jsonl")
    assert made
    assert all(line["messages"][0] == {"role": "system", "content": f"You {line['task']} words."} for line in made)


def test_no_recipe_shows_what_is_held_out_and_documents_make_a_task_of_their_own(
    content: dict[str, Any], server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = DataConfig(**content["data"])
    store = prepare_store(data, ModelConfig(**content["model"]))
    held_out = held_out_examples(store, data.holdout)
    records = lines_of(Path(data.sources[0].path))
    hidden = {records[i]["input"] for i in store.record_ids[held_out].tolist()}
    hidden = {text for text in hidden if len(text.split()) > 30}
    assert len(hidden) > 10
    server.respond = recipe_teacher.teach
    forms = recipe_teacher.recipes(tmp_path, num=2)
    for number, text in enumerate(sorted(hidden)):
        (tmp_path / f"{number}.md").write_text(f"{text}\n\n{recipe_teacher.DOCUMENT}")
    bounds = {"min_chars": 40, "max_chars": 1000}
    content["construct"]["recipes"] = [{**form, **(bounds if "documents" in form else {})} for form in forms]
    assert main(["construct", written(content, tmp_path)]) == 0
    out = Path(content["construct"]["out"])
    prompts = "\n".join(json.dumps(one["messages"]) for one in server.asked)
    assert not [text for text in hidden if text in prompts]
    assert "Osgiliath" in prompts
    assert "back_from_documents: " in (said := capfd.readouterr().out)
    assert "passages not shown" in said
    assert lines_of_manifest(out)["num_passages_not_shown"]["from_documents"] > len(hidden) // 2
    parts = {(part["recipe"], part["task"]): part["num_wanted"] for part in lines_of_manifest(out)["parts"]}
    assert parts[("from_documents", "rivers")] == parts[("tool_calls", "calls")] == 2
    assert {task for recipe, task in parts if recipe == "evolve"} <= {"count", "sort"}
    assert sum(num for (recipe, _), num in parts.items() if recipe == "evolve") == 2
    for path in tmp_path.glob("*.md"):
        path.write_text(next(iter(hidden)))
    capfd.readouterr()
    assert main(["construct", written(content, tmp_path)]) == 2
    assert "from_documents.documents: each passage shares" in capfd.readouterr().err
    content["construct"]["recipes"] = [{**forms[1], "task": "reverse"}]
    assert main(["construct", written(content, tmp_path)]) == 2
    assert "reverse: held out" in capfd.readouterr().err


def test_the_tests_of_records_are_read_with_them(
    content: dict[str, Any], server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sampling = {"kind": "rejection_sampling", "verify": "code", "allow_code": True, "answers": 1, "num": 1}
    content["construct"]["recipes"] = [{**sampling, "tasks": ["count"]}]
    assert main(["construct", written(content, tmp_path)]) == 2
    assert (
        "verify: code: of the records of the task 'count' that may be shown, none has tests" in capfd.readouterr().err
    )
    source = content["data"]["sources"][0]
    tested = [{**record, "tests": ["assert one() == 1"]} for record in lines_of(Path(source["path"]))]
    source["path"] = str(tmp_path / "tested.jsonl")
    Path(source["path"]).write_text("".join(json.dumps(record) + "\n" for record in tested))
    server.respond = lambda asked: "```python\ndef one():\n    return 1\n```"
    assert main(["construct", written(content, tmp_path)]) == 0
    (made,) = lines_of(Path(content["construct"]["out"]) / "records.jsonl")
    assert made["evidence"]["tests"] == ["assert one() == 1"]
    assert made["messages"][0]["content"] in {f"{one['instruction']}\n\n{one['input']}" for one in tested}


def lines_of_manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


def test_what_is_wrong_is_said_at_once(
    content: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    construct = content["construct"]
    construct["recipes"] = [{"kind": "few_shots", "num": 3}, {"kind": "self_instruct", "nums": 3}]
    construct["budget"] = {"cost": 3, "request": 5}
    assert main(["construct", written(content, tmp_path)]) == 2
    message = capfd.readouterr().err
    assert "did you mean `requests`?" in message
    del construct["budget"]["request"]
    assert main(["construct", written(content, tmp_path)]) == 2
    message = capfd.readouterr().err
    for part in ("4 problems", "there is no recipe of this kind", "did you mean `num`?", "construct.budget.cost"):
        assert part in message
    construct["recipes"], construct["budget"] = [{"kind": "few_shot", "num": 3}], {}
    construct["card"] = {"seed_licences": {"wrds": "CC0"}}
    assert main(["construct", written(content, tmp_path)]) == 2
    assert "card.seed_licences: there is no source wrds; did you mean `words`?" in capfd.readouterr().err
    del content["construct"]
    assert main(["construct", written(content, tmp_path)]) == 2
    assert "needs a section `construct`" in capfd.readouterr().err


def test_a_second_one_is_refused_and_a_signal_ends_the_first_in_order(
    content: dict[str, Any], server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.seconds = 0.3
    config, out = written(content, tmp_path), Path(content["construct"]["out"])
    content["construct"]["teacher"]["at_once"] = 1
    command = warm_command("launcher", "construct", written(content, tmp_path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while len(server.asked) < 3:
            assert process.poll() is None, process.stdout and process.stdout.read()
            time.sleep(0.02)
        assert main(["construct", config]) == 2
        assert f"{out} is in use by another job" in capfd.readouterr().err
        holder = json.loads((out / "lock").read_text())["pid"]
        os.kill(holder, signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "Ended by SIGTERM" in said
    assert f"Every answer that came is kept in {out}" in said
    assert "Traceback" not in said
    num = len(server.asked)
    server.seconds = 0
    assert main(["construct", config]) == 0
    assert len(lines_of(out / "log" / "replies.jsonl")) <= len(server.asked) <= num + 22
    kept = [json.dumps(one["messages"]) for one in server.asked]
    assert len(kept) - len(set(kept)) <= 1


def test_a_key_that_is_refused_is_one_message_with_the_counts(
    content: dict[str, Any], server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.status, server.num_well = 401, 5
    assert main(["construct", written(content, tmp_path), "construct.teacher.at_once=1"]) == 2
    said = capfd.readouterr()
    assert "refuses (status 401)" in said.err
    assert "it waits for" in said.out
    server.status = 0
    assert main(["construct", written(content, tmp_path)]) == 0
