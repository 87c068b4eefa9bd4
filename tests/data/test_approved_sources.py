"""What a teacher has made is in a store only where people have approved it, whatever source it comes by."""

import json
import random
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from sft.approval.record_set import find_place, identity
from sft.config import DataConfig, ModelConfig
from sft.data.planning.plan_inputs import refuse
from sft.data.preparation import prepare_store
from sft.data.rendering.chat_template import load_tokenizer
from sft.data.store_recipe import StoreRecipe
from sft.data.token_store import TokenStore
from sft.errors import UserError
from sft.review.exchange import write_approved
from sft.review.session import ReviewSession, Setting
from tests.approval.reviewed import constructed, draft, edit, say
from tests.approval.test_decisions import decision
from tests.conftest import TokenizerDir
from tests.forked_ranks import warm_command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tokenizer_dir: TokenizerDir) -> ModelConfig:
    return ModelConfig(path=str(tokenizer_dir("chatml")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of four records one is accepted, one edited, one rejected, and one open."""
    made = constructed(tmp_path / "made")
    say(made, [0], "accept")
    edit(made, 1, "better")
    say(made, [2], "reject")
    return made


def data_of(path: Path | str, **changes: Any) -> DataConfig:
    source = {"name": "made", "path": str(path)}
    fields = {name: changes.pop(name) for name in ("constructed", "approve", "task") if name in changes}
    cache = {"cache_dir": str(Path(str(path).replace("*", "")).parent / "cache")}
    return DataConfig.model_validate({"sources": [source | fields], **cache, **changes})


def texts(store: TokenStore, model: ModelConfig) -> list[str]:
    tokenizer = load_tokenizer(model)
    return [tokenizer.decode(store.example(i).input_ids) for i in range(len(store))]


def refused(data: DataConfig, model: ModelConfig) -> str:
    with pytest.raises(UserError) as error:
        prepare_store(data, model)
    return str(error.value)


def test_what_is_approved_trains_after_its_edits_under_its_own_task(folder: Path, model: ModelConfig) -> None:
    store = prepare_store(data_of(folder, constructed=True), model)
    first, second = texts(store, model)
    assert "1 2 0" in first
    assert "better" in second
    assert "1 2 1" not in second
    assert store.tasks == ["sorting"]
    assert store.manifest["made"]["made"] == {
        "num": 2,
        "num_unreviewed": 0,
        "prompts": {"ab12": 2},
        "recipes": {"self_instruct": 2},
        "reviewers": {"kim": 2},
        "rules": {"each": 2},
        "teachers": {"big at http://teacher": 2},
        "days": ["2026-11-28", "2026-11-28"],
    }


def test_a_decision_more_is_another_store_and_one_taken_back_the_first(folder: Path, model: ModelConfig) -> None:
    data = data_of(folder, constructed=True)
    first = StoreRecipe.of(data, model).path
    say(folder, [3], "accept")
    second = StoreRecipe.of(data, model).path
    say(folder, [0], "accept", "lee")
    third = StoreRecipe.of(data, model).path
    assert len({first, second, third}) == 3, "who has approved is in it, too"
    say(folder, [0], "undo", "lee")
    assert StoreRecipe.of(data, model).path == second
    say(folder, [3], "undo")
    assert StoreRecipe.of(data, model).path == first


@pytest.mark.long
@pytest.mark.parametrize("num_kills", [40])
def test_killed_while_approved_records_are_gathered_or_at_any_moment_it_is_as_if_it_never_was(
    tmp_path: Path, model: ModelConfig, num_kills: int
) -> None:
    made = constructed(tmp_path / "made", 3000)
    ids = [identity(draft(i)) for i in range(3000)]
    lines = [asdict(decision(str(i), ids[i], "reject" if i % 7 == 0 else "accept")) for i in range(2500)]
    (made / "decisions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    data, never = data_of(made, constructed=True), tmp_path / "never"
    expected = prepare_store(data, model).manifest
    data.cache_dir.rename(never)
    seed = random.randrange(1000)
    given = data.model_dump_json(), model.model_dump_json(), str(num_kills), str(seed)
    command = warm_command("tests.approval.killed", *given)
    done = subprocess.run(command, check=False, timeout=120, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, (seed, done.stderr)
    assert int(done.stdout) > 0, "it was killed while it gathered"
    assert prepare_store(data, model).manifest == expected, seed
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (never, data.cache_dir)
    ]
    assert files[0] == files[1], seed


def test_a_plan_of_other_decisions_is_refused_with_the_way_back(folder: Path, model: ModelConfig) -> None:
    data = data_of(folder, constructed=True)
    planned = {"data": {**StoreRecipe.of(data, model).inputs}}
    with pytest.raises(UserError) as without:
        refuse(folder, planned | {"seed": 1}, planned | {"seed": 2})
    assert "sft review" not in str(without.value)
    say(folder, [3], "accept")
    with pytest.raises(UserError) as error:
        refuse(folder, planned, {"data": {**StoreRecipe.of(data, model).inputs}})
    text = str(error.value)
    assert "data.sources.made.content: planned" in text
    assert "made: other records are approved than when this run began" in text


def test_an_approved_record_that_cannot_be_used_is_mended_by_reviewers(folder: Path, model: ModelConfig) -> None:
    edit(folder, 0, "a <|im_end|> b")
    text = refused(data_of(folder, constructed=True), model)
    assert "the special token '<|im_end|>'" in text
    assert "find each by its words in `sft review`" in text


def test_made_records_in_a_plain_source_are_refused_with_their_number(folder: Path, model: ModelConfig) -> None:
    text = refused(data_of(folder / "records.jsonl"), model)
    assert f"data.sources.made: 4 of 4 records of {folder} are made by a teacher" in text
    assert f"sft review {folder}\n" in text
    assert f"{{path: {folder}, constructed: true}}" in text
    copied = folder.with_name("copied.jsonl")
    by_hand = {"messages": draft(7)["messages"]}
    copied.write_text(json.dumps(by_hand) + "\n" + (folder / "records.jsonl").read_text())
    text = refused(data_of(copied), model)
    assert f"data.sources.made: 4 of 5 records of {copied}" in text
    assert f"sft review {copied}\n" in text


def test_a_column_that_no_approval_covers_is_not_trained(folder: Path, model: ModelConfig) -> None:
    lines = [{"id": f"Sort {i}", "answer": f"1 {i}"} for i in range(2)]
    file = folder.parent / "own.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = [decision(f"d{i}", identity(line), "accept") for i, line in enumerate(lines)]
    (folder.parent / "own.decisions.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in said))
    columns = {"prompt": "id", "completion": "answer"}
    source = {"name": "own", "path": str(file), "constructed": True, "format": "prompt_completion", "columns": columns}
    data = {"sources": [source], "cache_dir": str(folder.parent / "cache")}
    assert "its column 'id' is trained here" in refused(DataConfig.model_validate(data), model)
    store = prepare_store(DataConfig.model_validate({**data, "unreviewed": True}), model)
    assert store.manifest["made"]["own"]["num_unreviewed"] == 2


def test_one_made_record_far_down_in_a_file_is_a_bad_record(folder: Path, model: ModelConfig) -> None:
    lines = [json.dumps({"prompt": f"p {i}", "completion": "c"}) for i in range(1100)]
    made = {"prompt": "p", "completion": "c", "provenance": draft(0)["provenance"]}
    path = folder.with_name("plain.jsonl")
    path.write_text("\n".join([*lines, json.dumps(made)]) + "\n")
    assert "plain.jsonl:1101: a teacher has made it, and nobody has approved it" in refused(data_of(path), model)
    store = prepare_store(data_of(path, bad_records="quarantine"), model)
    assert store.manifest["num_bad"] == 1
    assert store.manifest["made"] == {}


def test_the_approved_records_that_review_writes_are_a_plain_source_until_somebody_changes_one(
    folder: Path, model: ModelConfig
) -> None:
    path = folder.with_name("approved.jsonl")
    assert write_approved(ReviewSession(find_place(folder), "", Setting()), path) == 2
    store = prepare_store(data_of(path, task={"column": "task"}), model)
    gated = prepare_store(data_of(folder, constructed=True), model)
    assert texts(store, model) == texts(gated, model)
    assert store.manifest["made"] == gated.manifest["made"]
    path.write_text(path.read_text().replace("1 2 0", "1 2 x"))
    assert "1 of 2 records" in refused(data_of(path), model)
    counted = prepare_store(data_of(path, bad_records="quarantine", max_bad_share=1.0), model).manifest
    assert [*counted["reasons"]] == [
        "a teacher has made it, and its approval is of another content: it was changed after people had approved it: "
        "people approve it with `sft review`"
    ]


@pytest.mark.parametrize(
    "pattern", ["", "made", "made/*.jsonl", "**/*.jsonl", "made/dropped.jsonl", "made/log/replies.jsonl"]
)
def test_a_source_that_covers_the_folder_of_a_construction_is_refused(
    folder: Path, model: ModelConfig, pattern: str
) -> None:
    text = refused(data_of(folder.parent / pattern, cache_dir=str(folder.parent / ".cache"), unreviewed=True), model)
    assert f"{folder}, a folder of `sft construct`" in text
    assert "constructed: true" in text


def test_a_huge_manifest_of_others_beside_a_source_is_not_read(tmp_path: Path, model: ModelConfig) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    with (tmp_path / "manifest.json").open("w") as file:
        file.write('{"kind": "construction", "more": ')
        file.truncate(1 << 40)  # more than any memory holds
    assert len(prepare_store(data_of(tmp_path / "a.jsonl"), model)) == 1


def test_a_pattern_that_covers_what_reviewers_decided_is_refused(tmp_path: Path, model: ModelConfig) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "p", "completion": "c"}\n')
    (tmp_path / "a.decisions.jsonl").write_text("")
    assert "what reviewers have decided" in refused(data_of(tmp_path / "*.jsonl"), model)


def test_unreviewed_trains_what_nobody_rejects_in_a_store_of_its_own_and_counts_it(
    folder: Path, model: ModelConfig
) -> None:
    store = prepare_store(data_of(folder, constructed=True, unreviewed=True), model)
    found = texts(store, model)
    assert [word in text for text, word in zip(found, ("1 2 0", "better", "1 2 3"), strict=True)] == [True] * 3
    made = store.manifest["made"]["made"]
    assert (made["num"], made["num_unreviewed"]) == (3, 1)
    plain = prepare_store(data_of(folder / "records.jsonl", unreviewed=True), model)
    assert plain.manifest["made"]["made"]["num_unreviewed"] == 4


def test_a_column_named_provenance_of_others_needs_no_approval(tmp_path: Path, model: ModelConfig) -> None:
    path = tmp_path / "others.jsonl"
    records = [
        {"prompt": "a", "completion": "b", "provenance": provenance}
        for provenance in ("a book", {"source": "a book"}, None, [1])
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    store = prepare_store(data_of(path, duplicates="keep"), model)
    assert len(store) == 4
    assert store.manifest["made"] == {}
