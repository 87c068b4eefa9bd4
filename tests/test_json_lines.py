"""Files of JSON lines: what is appended is read, and what a kill or a full disk has left unfinished is nothing."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import pytest

from sft.json_lines import LineTail, append_line, from_json, json_line, whole_lines
from tests.checkpoint.counting import Cost, counted

TORN = ['{"n": 7, "te', "\0\0\0", "x" * 200_000]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("num_before", [0, 2])
def test_an_unfinished_line_is_passed_over_and_cut_off_by_the_next(tmp_path: Path, torn: str, num_before: int) -> None:
    path = tmp_path / "lines.jsonl"
    for number in range(num_before):
        append_line(path, {"n": number})
    with path.open("a") as file:
        file.write(torn)
    tail = LineTail(path)
    assert numbers(tail.read_new()) == list(range(num_before))
    append_line(path, {"n": num_before})
    assert numbers(list(whole_lines(path))) == list(range(num_before + 1))
    assert numbers(tail.read_new()) == [num_before]
    assert path.read_text().count("\n") == num_before + 1, "nothing but whole lines is left"


@pytest.mark.parametrize("rest", ['{"n": 1}', ' {"n": 1} \r', *TORN])
def test_where_people_write_too_a_whole_last_line_without_a_newline_stays(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"n": 0}\n' + rest)
    assert LineTail(path, 9).read_rest() == rest.encode()
    append_line(path, {"n": 2}, by_people=True)
    assert numbers(list(whole_lines(path))) == ([0, 2] if rest in TORN else [0, 1, 2])


@pytest.mark.parametrize("text", ["\ud800 lone \udfff", "数学 👩", "a\nb\u2028\0", '"\\ud800'])
def test_a_line_of_any_text_can_be_written_and_is_read_as_it_was(text: str) -> None:
    line = json_line({"text": text})
    assert json.loads(line.encode()) == {"text": text}
    assert line.index("\n") == len(line) - 1
    assert "数学" not in text or "数学" in line, "people can read it"


@pytest.mark.parametrize("seed", range(20))
def test_from_behind_and_in_pieces_every_line_comes_once_and_whole(tmp_path: Path, seed: int) -> None:
    rng, path = random.Random(seed), tmp_path / "lines.jsonl"
    content = "".join(json.dumps({"n": n, "pad": "x" * rng.randint(0, 90)}) + "\n" for n in range(50)).encode()
    shown = rng.randint(0, len(content))
    path.write_bytes(content[:shown])
    tail, read = LineTail.near_end(path, 300), []
    while True:
        read += tail.read_new()
        if shown == len(content):
            break
        shown = min(len(content), shown + rng.randint(1, 400))
        path.write_bytes(content[:shown])
        tail = LineTail(path, tail.offset)  # another that goes on there
    assert read == content.splitlines(keepends=True)[-len(read) :], "whole lines, each once"
    assert len(read) >= 2


def test_of_a_long_file_the_end_is_read_and_no_more(tmp_path: Path) -> None:
    path, costs = tmp_path / "lines.jsonl", list[Cost]()
    path.write_bytes(b'{"n": 1}\n' * 1_000_000 + b'{"n": 2')
    with counted(costs):
        assert len(LineTail.near_end(path, 9_007).read_new()) == 1000
        append_line(path, {"n": 2})
    assert costs[0].bytes_read < 200_000
    assert numbers(LineTail.near_end(path, 9).read_new()) == [2]


def test_a_file_that_is_not_there_yet_has_no_line_and_then_all(tmp_path: Path) -> None:
    tail = LineTail.near_end(tmp_path / "lines.jsonl", 1)
    assert tail.read_new() == []
    append_line(tmp_path / "lines.jsonl", {"n": 0})
    assert numbers(tail.read_new()) == [0]


@dataclass(frozen=True)
class Point:
    x: float
    name: str
    y: float | None = None


def test_another_versions_record_is_read_as_far_as_it_is_known() -> None:
    assert from_json(Point, {"x": 1.0, "name": "a", "colour": "red"}) == Point(1.0, "a")
    read = from_json(Point, {"x": None, "name": None, "y": None})
    assert (read.x != read.x, read.name, read.y) == (True, "", None)
    for wrong in ({"x": 1.0}, [1.0, "a"], 7, None):
        with pytest.raises(TypeError):
            from_json(Point, wrong)  # type: ignore[arg-type]


def numbers(lines: list[bytes]) -> list[int]:
    return [json.loads(line)["n"] for line in lines]
