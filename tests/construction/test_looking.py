"""What filters see in drafts is the same in any batches and in any number of processes."""

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sft.construction.filters import looking
from sft.construction.filters.filter import Surroundings
from sft.construction.filters.looking import Looking, looked_at
from sft.construction.filters.registry import read_filters
from sft.draft import Draft
from sft.errors import UserError
from tests.construction.drafts import draft, passed, seeds
from tests.construction.looks import Given, Hurt, Length, OfEach, all_of, of_sea

KNOWN = seeds("Write a poem about the sea.", "Count the words of this text.", "Say yes or no.", "Sort 3 1 2 upwards.")
EVERYTHING: Any = {
    "min_words": 1,
    "copies": 0.7,
    "refusals": {"patterns": ["night"]},
    "overlap_with_heldout": "count",
    "language": "en",
    "verify": {"json": "parses", "math": "agree_of_2", "passage": "supported"},
}
WORDS = ["write", "a", "poem", "about", "sea", "night", "and", "i", "am", "an", "ai", '{"', "```", "海", "\ud800", "\n"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)
DRAFTS = st.lists(st.builds(draft, TEXTS, TEXTS, st.sampled_from(["words", "other"])), max_size=20)


def look_of(filters: Any, around: Surroundings) -> Looking:
    return Looking([(one, one.look(around), one.begin(around) is None) for one in read_filters(filters)])


@settings(max_examples=30, deadline=None)
@given(DRAFTS, st.integers(1, 7), st.integers(1, 900))
def test_batches_change_nothing(
    tmp_path_factory: pytest.TempPathFactory, drafts: list[Draft], size: int, most_bytes: int
) -> None:
    look = look_of(EVERYTHING, Surroundings(tmp_path_factory.mktemp("a"), KNOWN, of_held_out=partial(OfEach, of_sea)))
    ended = all_of(drafts)
    alone = [
        (one, pickle.dumps(one), look([one.outcome])[0] if isinstance(one.outcome, Draft) else []) for one in ended
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(looking, "_BATCH", size)
        patch.setattr(looking, "_MOST_BYTES", most_bytes)
        assert [*looked_at(look, iter(ended))] == alone


def test_a_look_sees_the_same_where_it_is_sent_to(tmp_path: Path) -> None:
    look = look_of(EVERYTHING, Surroundings(tmp_path, KNOWN, of_held_out=partial(OfEach, of_sea)))
    assert sum(one is not None for _, one, _ in look.looks) == 8
    drafts = [draft("Write a poem about the sea", "no"), draft("a b c", "I am an AI night")]
    assert pickle.loads(pickle.dumps(look))(drafts) == look(drafts)


def test_what_decides_ends_the_looking_and_a_filter_sees_only_what_concerns_it(tmp_path: Path) -> None:
    filters = {"form": {"tasks": ["words"], "min_words": 3}, "refusals": True, "copies": False}
    look = look_of(filters, Surroundings(tmp_path))
    short, refusal = draft("a b", "yes"), draft("a b c", "I'm sorry, but I can't help with that.")
    assert look([short, refusal, draft("a b", "yes", "other")]) == [
        ["the prompt has fewer than 3 words"],
        [None, "the answer is a refusal"],
        [None, None],
    ]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Other processes look after a few drafts; they have ended with the looking."""
    for name, value in (("_FEW", 4), ("_BATCH", 2), ("_MOST_PROCESSES", 2)):
        monkeypatch.setattr(looking, name, value)
    before = psutil.Process().children()
    yield
    # Python's own, of which there is one for all, ends with this process.
    started = [one for one in psutil.Process().children() if one not in before]
    assert not [one for one in started if "resource_tracker" not in " ".join(one.cmdline())]


def test_processes_change_nothing(soon: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = [
        draft(f"Write {WORDS[i % 7]} poem {i // 3} about {WORDS[i % 5]}", f"{WORDS[i % 11]} x") for i in range(60)
    ]
    # That of languages takes each process a second to load.
    filters = {name: given for name, given in EVERYTHING.items() if name != "language"}
    ended, found = passed(drafts, filters, tmp_path, KNOWN, of_sea)
    assert found.noted
    assert len(found.dropped) > 2
    monkeypatch.setattr(looking, "_FEW", 10**9)
    alone, counted = passed(drafts, filters, tmp_path, KNOWN, of_sea)
    assert (ended, found.dropped, found.noted) == (alone, counted.dropped, counted.noted)


@pytest.mark.parametrize("num_handles", [0, 3, 6])
def test_where_no_process_can_be_started_it_is_looked_at_here(
    soon: None, num_handles: int, capfd: pytest.CaptureFixture[str]
) -> None:
    look, ended = Looking([(Given(), Length(), False)]), all_of([draft("go on" * i, "yes") for i in range(20)])
    alone = [(one, look([one.outcome])[0] if isinstance(one.outcome, Draft) else []) for one in ended]
    resource_tracker.ensure_running()  # as where it is started before there are few handles left
    free = [os.dup(0) for _ in range(num_handles + 1)]
    for handle in free:
        os.close(handle)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], limits[1]))
    try:
        found = [(one, seen) for one, _, seen in looked_at(look, iter(ended))]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert found == alone
    assert capfd.readouterr().err.count("Too many open files") == 1


@pytest.mark.parametrize(
    ("word", "error", "message"), [("die", UserError, "was killed.* goes on"), ("raise", AssertionError, "raised here")]
)
def test_a_process_that_is_lost_is_one_message(soon: None, word: str, error: type[Exception], message: str) -> None:
    drafts = [draft(word if i == 20 else "go on", "yes") for i in range(40)]
    with pytest.raises(error, match=message):
        [*looked_at(Looking([(Given(), Hurt(), True)]), all_of(drafts))]


def test_the_processes_of_a_killed_one_end() -> None:
    code = "from tests.construction.looks import look_for_ever; look_for_ever()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        for line in asking.stdout:
            if line.strip():
                break
        children = [psutil.Process(pid) for pid in map(int, line.split())]
        asking.kill()
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=30)[1]
