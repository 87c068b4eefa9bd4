"""The model that is to be trained measures drafts: each once, as training would see it, and as `sft score` does."""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast, get_args, get_origin

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from launcher.cli import main
from sft.config import DataConfig, ModelConfig, TaskTagConfig
from sft.config_effects import affects
from sft.construction.draft_losses import DraftLosses, Groups, losses_name
from sft.construction.filters.chain import filtering
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.registry import read_filters
from sft.construction.script import Dropped, ScriptName
from sft.construction.work import Ended
from sft.data.record_pipeline import RecordPipeline
from sft.difficulty.loss_table import COLUMNS, Floats
from sft.draft import Draft
from sft.errors import UserError
from tests.conftest import SmallRecords, write_tokenizer
from tests.construction.drafts import draft
from tests.construction.talking import job_of, make_talking_model
from tests.construction.teaching import lines_of


@pytest.fixture(scope="module")
def content(small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("difficulty")
    made = job_of(make_talking_model(folder / "model"), small_records, folder)
    after = str(make_talking_model(folder / "after", seed=1))
    made["construct"]["filters"] = {"form": False, "copies": False, "difficulty": {"max_ifd": 1000, "after": after}}
    made["data"]["task_tag"] = {"dropout": 0.0}
    return made


def construct(content: dict[str, Any], *overrides: str) -> list[list[dict[str, Any]]]:
    """What is kept, and what is dropped."""
    out = Path(content["construct"]["out"])
    path = out.with_name("config.yaml")
    path.write_text(json.dumps(content))
    assert main(["construct", str(path), *overrides]) == 0
    return [lines_of(out / f"{name}.jsonl") for name in ("records", "dropped")]


def test_each_draft_is_measured_once_and_other_bounds_measure_nothing(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records, dropped = construct(content)
    assert not [line for line in dropped if line["dropped"]["filter"] == "difficulty"]
    ifds = sorted(line["provenance"]["scores"]["ifd"] for line in records)
    files = [*Path(content["construct"]["out"]).glob("log/losses-*.jsonl")]
    before = [file.read_bytes() for file in files]
    assert [len({line["id"] for line in lines_of(file)}) for file in files] == [
        len({line["id"] for line in records})
    ] * 2
    # As `sft score` measures them where they are trained.
    source: dict[str, Any] = {
        "name": "made",
        "path": content["construct"]["out"] + "/records.jsonl",
        "format": "messages",
    }
    source["task"] = {"column": "task"}
    data = {**content["data"], "sources": [source], "unreviewed": True}
    plain = {**{k: v for k, v in content.items() if k != "construct"}, "data": data}
    plain["run"] = {**content["run"], "dir": str(tmp_path / "run")}
    (tmp_path / "plain.yaml").write_text(json.dumps(plain))
    after = content["construct"]["filters"]["difficulty"]["after"]
    score = ["score", str(tmp_path / "plain.yaml"), "--out", str(tmp_path / "out.jsonl")]
    assert main([*score, "--model", "base", "--model", after]) == 0
    scored = {line["line"]: [*line["models"].values()] for line in lines_of(tmp_path / "out.jsonl")}
    assert len(scored) > len(records) / 2
    for number, (losses, losses_after) in scored.items():
        expected = {"loss": losses["loss"], "ifd": losses["ifd"], "gain": losses["loss"] - losses_after["loss"]}
        ours = records[number - 1]["provenance"]["scores"]
        assert {name: ours[name] for name in expected} == pytest.approx(expected, rel=1e-3, abs=1e-3)
    bound = ifds[len(ifds) // 2]
    gains = [scores["gain"] for line in records if (scores := line["provenance"]["scores"])["ifd"] <= bound]
    least = sorted(gains)[len(gains) // 2]
    capsys.readouterr()
    bounds = f"{{max_ifd: {bound}, after: '{after}', min_gain: {least}}}"
    kept, dropped = construct(content, f"construct.filters={{form: false, copies: false, difficulty: {bounds}}}")
    assert [file.read_bytes() for file in files] == before
    assert max(line["provenance"]["scores"]["ifd"] for line in kept) <= bound
    assert min(line["provenance"]["scores"]["gain"] for line in kept) >= least
    told = Counter(line["dropped"]["reason"] for line in dropped if line["dropped"]["filter"] == "difficulty")
    assert told == {f"its IFD is above {bound:g}": sum(ifd > bound for ifd in ifds)} | {
        f"its gain is below {least:g}": sum(gain < least for gain in gains)
    }
    assert min(told.values()) > 0


def test_what_was_not_measured_is_not_kept_and_no_error(tmp_path: Path) -> None:
    losses = DraftLosses(tmp_path / "losses.jsonl", cast(RecordPipeline, None), lambda groups: iter(()))
    one = draft("Say it.", "It.")
    given = read_filters({"form": False, "copies": False, "difficulty": True})
    with filtering(given, Surroundings(tmp_path, losses=[losses.scores])) as passing:
        (ended,) = passing.outcomes([Ended(ScriptName("few_shot", one.task, 0), one)])
    assert ended.outcome == Dropped(one, "difficulty", "its loss is not measured yet", is_final=False)


class _Pipeline:
    """Makes one example of each record, and none of those that say so."""

    def prepare(self, records: Any, source: Any, first: int) -> tuple[list[Any], list[Any]]:
        able = [one for one in records if "nothing" not in one.fields["messages"][0]["content"]]
        return [SimpleNamespace(record_id=one.index, examples=["example"]) for one in able], []


def test_it_tells_how_many_drafts_are_measured_those_of_before_too(tmp_path: Path) -> None:
    def measure(groups: Groups) -> Iterator[tuple[list[tuple[str, int]], Floats]]:
        for of, examples in groups:
            yield of, np.ones((len(examples), len(COLUMNS)))

    drafts = [draft(f"Say {i}" if i % 9 else f"Say nothing of {i}", "It.") for i in range(150)]
    for num in (100, 150):
        told: list[int] = []
        losses = DraftLosses(tmp_path / "losses.jsonl", cast(RecordPipeline, _Pipeline()), measure)
        losses.measure(drafts[:num], told.append)
        assert told[-1] == num
        assert told == sorted(told)
        assert told[0] == (64 if num == 100 else num)


def _measured(tmp_path: Path, drafts: list[Draft], loss: float, asked: list[int]) -> DraftLosses:
    def measure(groups: Groups) -> Iterator[tuple[list[tuple[str, int]], Floats]]:
        for of, examples in groups:
            asked.append(len(examples))
            yield of, np.tile([1.0 if name.startswith("num") else loss for name in COLUMNS], (len(examples), 1))

    losses = DraftLosses(tmp_path / "losses.jsonl", cast(RecordPipeline, _Pipeline()), measure)
    losses.measure(drafts)
    return losses


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_measured_once_and_its_draft_is_kept(tmp_path: Path, loss: float) -> None:
    one, given = draft("Say it.", "It."), read_filters({"form": False, "copies": False, "difficulty": True})
    for asked_before in ([], [1]):  # the second process reads what the first has written
        asked = list[int]()
        losses = _measured(tmp_path, [one], loss, asked)
        assert len(asked) == 1 - len(asked_before)
        with filtering(given, Surroundings(tmp_path, losses=[losses.scores])) as passing:
            (ended,) = passing.outcomes([Ended(ScriptName("few_shot", one.task, 0), one)])
        assert ended.outcome == one


@pytest.mark.parametrize(
    ("after", "said"),
    [("only", "only: this stage of .* has no model yet"), ("no/model", ".*no/model")],
)
def test_a_model_after_that_is_not_there_is_said_before_anything_is_asked(
    content: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], after: str, said: str
) -> None:
    made = {**content, "construct": {**content["construct"], "out": str(tmp_path / "made")}}
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(made))
    assert main(["construct", str(path), f"construct.filters.difficulty.after={after}"]) == 2
    assert re.search(f"construct.filters.difficulty.after: {said}", capsys.readouterr().err)
    assert not [*(tmp_path / "made").glob("log/*.jsonl")]


def test_a_gain_is_one_of_two_models() -> None:
    with pytest.raises(ValidationError, match="name it with `after`"):
        read_filters({"difficulty": {"min_gain": 0.1}})


def test_equal_drafts_are_measured_once(tmp_path: Path) -> None:
    asked = list[int]()
    losses = _measured(tmp_path, [draft("Say it.", "It.") for _ in range(150)], 1.0, asked)
    assert asked == [1]
    assert set(cast(dict[str, float], losses.scores(draft("Say it.", "It."))).values()) == {1.0}
    assert len(lines_of(tmp_path / "losses.jsonl")) == 1


def test_a_damaged_line_of_losses_is_named(tmp_path: Path) -> None:
    (tmp_path / "losses.jsonl").write_text('{"id": "00000000000000000000aaaa", "losses": []}\n{"losses": []}\n')
    with pytest.raises(UserError, match=r"losses.jsonl:2 is damaged .* Remove this line"):
        _measured(tmp_path, [], 1.0, [])


# ---------------------------------------------------------------- what losses depend on

READ: dict[type[BaseModel], set[str]] = {}
"""Section → its fields that were read."""


class _Noted(BaseModel):
    """Notes which fields are read."""

    def __getattribute__(self, name: str) -> Any:
        kind = type(self).__mro__[2]
        if name in object.__getattribute__(self, "__class__").__pydantic_fields__:
            READ.setdefault(kind, set()).add(name)
        return super().__getattribute__(name)


class _Data(_Noted, DataConfig):
    pass


class _Model(_Noted, ModelConfig):
    pass


class _Tag(_Noted, TaskTagConfig):
    pass


def _another(section: BaseModel, name: str) -> BaseModel:
    """The section with another value of this field."""
    value, field = getattr(section, name), type(section).model_fields[name]
    if get_origin(field.annotation) is Literal:
        value = next(option for option in get_args(field.annotation) if option != value)
    elif isinstance(value, bool):
        value = not value
    elif isinstance(value, int | float):
        value = value + 1 if value >= 1 else value / 2 + 0.1
    elif isinstance(value, BaseModel):
        value = None
    elif isinstance(value, dict):
        value = {**value, "sorting": "to sort"}
    else:
        value = f"{value} other"
    return section.model_copy(update={name: value})


def _tagged(path: Path, **about: Any) -> tuple[DataConfig, ModelConfig]:
    tag, source = _Tag(dropout=0.0), {"name": "s", "path": str(path / "s.jsonl"), "format": "messages"}
    data = _Data.model_validate({"sources": [source], "max_len_tokens": 200, "overlong": "truncate", **about})
    return data.model_copy(update={"task_tag": tag}), _Model(path=str(path))


def _seen(folder: Path, data: DataConfig, model: ModelConfig, drafts: list[Draft]) -> list[str]:
    """The examples that are measured, as texts."""
    pipeline, texts = RecordPipeline(data, model), list[str]()

    def measure(groups: Groups) -> Iterator[tuple[list[tuple[str, int]], Floats]]:
        for of, examples in groups:
            texts.extend(pipeline.tokenizer.text_of(one.input_ids.tolist()) for one in examples)
            yield of, np.ones((len(examples), len(COLUMNS)))

    DraftLosses(folder / "losses.jsonl", pipeline, measure).measure(drafts)
    return texts


def test_a_draft_is_measured_under_its_own_task(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "chatml")
    drafts = [draft("Sort: b a", "a b", task=task) for task in ("sorting", "other_task")]
    texts = _seen(tmp_path, *_tagged(tmp_path), drafts)
    assert ["Task type: sorting" in text for text in texts] == [True, False]
    assert ["Task type: other task" in text for text in texts] == [False, True]


def test_losses_are_found_again_only_where_nothing_that_reaches_an_example_is_otherwise(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "chatml")
    READ.clear()
    data, model = _tagged(tmp_path)
    assert len(_seen(tmp_path, data, model, [draft("Sort: " + "b a " * num, "a b") for num in (1, 300)])) == 2
    read = {kind: {*names} for kind, names in READ.items()}
    assert {"max_len_tokens", "overlong", "turns", "train_on", "train_on_thoughts", "task_tag"} <= read[DataConfig]
    assert {"text", "texts", "dropout"} <= read[TaskTagConfig]
    names = [losses_name(data, model, "template", "weights")]
    tag = data.task_tag
    assert tag is not None
    for kind, section in ((DataConfig, data), (ModelConfig, model), (TaskTagConfig, tag)):
        for name in sorted(read[kind] - {"sources"}):
            mark = affects(kind.model_fields[name])
            assert mark is not None
            # What is named counts by its content, which tokenizer, template and weights are.
            if mark.first == "nothing" or mark.by_content:
                continue
            changed = _another(section, name)
            of_data = data.model_copy(update={"task_tag": changed}) if kind is TaskTagConfig else data
            given = (changed if kind is DataConfig else of_data), (changed if kind is ModelConfig else model)
            names.append(losses_name(*cast(Any, given), "template", "weights"))
    names += [losses_name(data, model, *what) for what in (("other", "weights"), ("template", "others"))]
    names.append(losses_name(data, cast(ModelConfig, _another(model, "dtype")), "template", "weights"))
    assert len(set(names)) == len(names) > 12
    elsewhere = data.model_copy(update={"cache_dir": tmp_path, "sources": (), "max_bad_share": 0.5})
    assert losses_name(elsewhere, model, "template", "weights") == names[0]
