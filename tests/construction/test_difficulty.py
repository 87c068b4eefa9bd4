"""The model that is to be trained measures drafts: each once, as training would see it, and as `sft score` does."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from launcher.cli import main
from sft.construction.draft_losses import DraftLosses, Groups
from sft.construction.filters.chain import filtering
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.registry import read_filters
from sft.construction.script import Dropped, ScriptName
from sft.construction.work import Ended
from sft.data.record_pipeline import RecordPipeline
from sft.difficulty.loss_table import COLUMNS, Floats
from sft.draft import Draft
from sft.errors import UserError
from tests.conftest import SmallRecords
from tests.construction.drafts import draft
from tests.construction.talking import job_of, make_talking_model
from tests.construction.teaching import lines_of


@pytest.fixture(scope="module")
def content(small_records: SmallRecords, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("difficulty")
    made = job_of(make_talking_model(folder / "model"), small_records, folder)
    made["construct"]["filters"] = {"form": False, "copies": False, "difficulty": {"max_ifd": 1000}}
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
    (file,) = Path(content["construct"]["out"]).glob("log/losses-*.jsonl")
    before = file.read_bytes()
    assert len({line["id"] for line in lines_of(file)}) == len({line["id"] for line in records})
    # As `sft score` measures them where they are trained.
    source = {"name": "made", "path": content["construct"]["out"] + "/records.jsonl", "format": "messages"}
    data = {**content["data"], "sources": [source], "unreviewed": True}
    plain = {**{k: v for k, v in content.items() if k != "construct"}, "data": data}
    plain["run"] = {**content["run"], "dir": str(tmp_path / "run")}
    (tmp_path / "plain.yaml").write_text(json.dumps(plain))
    assert main(["score", str(tmp_path / "plain.yaml"), "--out", str(tmp_path / "out.jsonl")]) == 0
    scored = {line["line"]: line["models"]["base"] for line in lines_of(tmp_path / "out.jsonl")}
    assert len(scored) > len(records) / 2
    for number, losses in scored.items():
        ours = records[number - 1]["provenance"]["scores"]
        assert {name: ours[name] for name in ("loss", "ifd")} == pytest.approx(
            {name: losses[name] for name in ("loss", "ifd")}, rel=1e-3
        )
    bound = ifds[len(ifds) // 2]
    capsys.readouterr()
    kept, dropped = construct(content, f"construct.filters={{form: false, copies: false, difficulty: {bound}}}")
    assert file.read_bytes() == before
    assert max(line["provenance"]["scores"]["ifd"] for line in kept) <= bound
    told = [line["dropped"]["reason"] for line in dropped if line["dropped"]["filter"] == "difficulty"]
    assert told == [f"its IFD is above {bound:g}"] * len(told)
    assert len(told) == sum(ifd > bound for ifd in ifds) > 0


def test_what_was_not_measured_is_not_kept_and_no_error(tmp_path: Path) -> None:
    losses = DraftLosses(tmp_path / "losses.jsonl", cast(RecordPipeline, None), lambda groups: iter(()))
    one = draft("Say it.", "It.")
    given = read_filters({"form": False, "copies": False, "difficulty": True})
    with filtering(given, Surroundings(tmp_path, losses=losses.scores)) as passing:
        (ended,) = passing.outcomes([Ended(ScriptName("few_shot", one.task, 0), one)])
    assert ended.outcome == Dropped(one, "difficulty", "its loss is not measured yet")


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
        with filtering(given, Surroundings(tmp_path, losses=losses.scores)) as passing:
            (ended,) = passing.outcomes([Ended(ScriptName("few_shot", one.task, 0), one)])
        assert ended.outcome == one


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
