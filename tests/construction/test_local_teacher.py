"""A model that is loaded here makes records: the default, which needs no server."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from launcher.cli import main
from tests.conftest import SmallRecords, write_tokenizer
from tests.construction.talking import job_of, make_talking_model
from tests.construction.teaching import lines_of, output_of, teach
from tests.endpoint.chat_server import ChatServer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_talking_model(tmp_path_factory.mktemp("talking"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def content(model: Path, small_records: SmallRecords, tmp_path: Path, cache: Path) -> dict[str, Any]:
    made = job_of(model, small_records, tmp_path)
    made["data"]["cache_dir"] = str(cache)
    return made


def construct(content: dict[str, Any], *overrides: str) -> int:
    path = Path(content["construct"]["out"]).with_name("config.yaml")
    path.write_text(json.dumps(content))
    return main(["construct", str(path), *overrides])


def test_without_a_teacher_the_model_of_the_config_writes_instructions_and_answers(
    content: dict[str, Any], model: Path
) -> None:
    assert construct(content) == 0
    out = Path(content["construct"]["out"])
    first = output_of(out)
    manifest = first["manifest"]
    assert manifest["is_complete"]
    assert manifest["num_kept"] > 6
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    log = {line["request"]: line for line in lines_of(out / "log" / "replies.jsonl")}
    for line in lines_of(out / "records.jsonl"):
        provenance, (asked, answered) = line["provenance"], line["messages"]
        assert provenance["teacher"].startswith(f"{model} (")
        instruction, answer = (log[name] for name in provenance["requests"])
        assert instruction["reply"]["text"].strip() == asked["content"]
        assert answer["reply"]["text"].strip() == answered["content"]
        replies = instruction["reply"], answer["reply"]
        assert provenance["num_tokens"] == sum(r["num_tokens"] + r["num_prompt_tokens"] for r in replies)
        # The prompt is the very one of the template, and the end of the turn counts as written.
        prompt = f"<|im_start|>user\n{asked['content']}<|im_end|>\n<|im_start|>assistant\n"
        assert answer["reply"]["num_prompt_tokens"] == len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        assert all("<|" not in reply["text"] for reply in replies)
    assert len({line["messages"][0]["content"] for line in lines_of(out / "records.jsonl")}) == manifest["num_kept"]
    log_file = out / "log" / "replies.jsonl"
    lines = log_file.read_text().splitlines(keepends=True)
    # Half of it lost: what is asked again is answered the same, in other batches.
    log_file.write_text("".join(lines[: len(lines) // 2]))
    assert construct(content) == 0
    assert output_of(out)["records.jsonl"] == first["records.jsonl"]
    assert sorted(log_file.read_text().splitlines(keepends=True)) == sorted(lines)
    # Another model in the same folder is another teacher.
    swapped = Path(content["run"]["dir"]).with_name("swapped")
    shutil.copytree(model, swapped)
    before = {line["request"] for line in lines_of(log_file)}
    content["construct"]["teacher"] = {"path": str(swapped)}
    assert construct(content) == 0
    assert len(lines_of(log_file)) == len(lines), "the same model elsewhere is the same teacher"
    make_talking_model(swapped, seed=1)
    assert construct(content) == 0
    after = [line["request"] for line in lines_of(log_file) if line["request"] not in before]
    assert len(after) > 12


@pytest.mark.long
def test_a_local_and_a_served_teacher_take_turns_by_the_number_of_the_script(
    content: dict[str, Any], model: Path, server: ChatServer
) -> None:
    served = {"name": "served", "endpoint": server.url, "model": "tiny"}
    content["construct"] |= {
        "teacher": [{"name": "here", "path": str(model)}, served],
        "recipes": [
            {"kind": "few_shot", "num": 12, "tasks": ["copy", "sort"], "max_tokens": 40},
            {"kind": "few_shot", "name": "of_one", "num": 8, "tasks": ["copy"], "teacher": "served"},
            {"kind": "magpie", "num": 4, "tasks": ["copy"], "max_tokens": 40},
        ],
    }
    assert construct(content) == 0
    out = Path(content["construct"]["out"])
    asked = Counter[tuple[str, str, int]]()
    for line in lines_of(out / "log" / "replies.jsonl"):
        recipe, task, number = line["for"].split("/")
        if recipe == "probe":
            continue  # the last requests of a teacher had no answer
        asked[(recipe, line["url"], int(number) % 2)] += 1
        assert (line["url"] == "local") == (recipe == "magpie" or (recipe == "few_shot" and int(number) % 2 == 0))
    assert asked[("few_shot", server.url, 1)] == 6
    assert sum(num for (recipe, url, _), num in asked.items() if recipe == "of_one" and url == server.url) == 8
    teachers = {line["provenance"]["teacher"] for line in lines_of(out / "records.jsonl")}
    assert f"tiny at {server.url}" in teachers
    assert output_of(out)["manifest"]["teachers"][1] == f"tiny at {server.url}"
    num, first = len(server.asked), output_of(out)
    server.respond, server.status = teach, 500
    assert construct(content) == 0
    assert (len(server.asked), output_of(out)) == (num, first)


def test_what_cannot_be_asked_is_said_before_anything_is(
    content: dict[str, Any], model: Path, server: ChatServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def said(teacher: Any, *parts: str, **about: Any) -> None:
        content["construct"] |= {"teacher": teacher, **about}
        assert construct(content) == 2
        message = capfd.readouterr().err
        for part in parts:
            assert part in message, message
        assert not (tmp_path / "made" / "log" / "replies.jsonl").exists() or not lines_of(
            tmp_path / "made" / "log" / "replies.jsonl"
        )

    url = server.url
    said({"endpoint": url}, "needs a local teacher")
    said({"endpoint": url, "path": str(model)}, "has either an `endpoint` or a `path`")
    said({"path": str(model), "api_key_env": "KEY"}, "construct.teacher.api_key_env", "and this teacher has a `path`")
    said([{"path": str(model)}, {"path": str(model)}], "2 teachers have this name")
    said([{"path": str(model), "at_onc": 3}], "did you mean `at_once`?")
    said([], "construct.teacher")
    recipe = {"kind": "few_shot", "num": 2, "tasks": "all", "teacher": "heer"}
    said([{"name": "here", "path": str(model)}], "did you mean `here`?", recipes=[recipe])
    said(None, "there is no teacher of this name", "give construct.teacher", recipes=[recipe])
    del recipe["teacher"]
    judge = {"judge": {"at_least": 3, "teacher": "heer"}}
    here = [{"name": "here", "path": str(model)}]
    said(here, "construct.filters.judge.teacher", "did you mean `here`?", recipes=[recipe], filters=judge)
    content["construct"]["filters"] = {}
    said({"path": str(tmp_path / "nowhere")}, "construct.teacher.path", "nowhere", recipes=[recipe])
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    write_tokenizer(bare, None)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    said({"path": str(bare)}, "it has no chat template")
    magpie = {"kind": "magpie", "num": 2, "tasks": "all"}
    (bare / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}")
    said({"path": str(bare)}, "does not mark where a user's words begin", recipes=[magpie])
    assert not server.asked
