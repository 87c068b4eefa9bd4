"""A reviewer who reads records in a real browser and decides by the exact verifier, by keyboard as people do."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.construction_demo.verifier import NO_INPUT, NO_QUESTION, WRONG, what_is_wrong
from tests.review.browser import Browser, browser

REVIEWER = "exact verifier"
_REASONS = {WRONG: "1", NO_QUESTION: "2", NO_INPUT: "2"}
"""The key of the page's reason: "wrong answer", "does not do what is asked"."""
_READ = """
const texts = [...document.querySelectorAll("#texts pre")].map((one) => one.textContent);
return [document.querySelector("#title").textContent, texts];
"""
_SUFFICES = "That suffices"
_END_SECONDS = 30
_PICTURED = 10
"""So many records are decided when the page is drawn."""


def review(
    folder: Path,
    profile: Path,
    picture: Path,
    say: Callable[[str], None],
    bound: float | None = None,
    most: int | None = None,
) -> None:
    """Decide on records of a folder that `sft construct` has made, in the order of the page.

    Args:
        folder: its records.
        profile: for the files of the browser.
        picture: where the page is drawn, early in the work: a sample may suffice soon.
        say: told how far it is.
        bound: a random sample is read, until the page says that it suffices; None: each record is.
        most: no more are decided than so many.
    """
    with _page(folder, bound) as address, browser(profile) as window:
        window.open(address)
        done, total = _after(window, -1)
        last = min(total, most or total)
        while done < last and _SUFFICES not in window.text("#sample-text"):
            task, (prompt, answer) = window.run(_READ)
            wrong = what_is_wrong(task, prompt, answer)
            window.press(*("a" if wrong is None else f"r{_REASONS[wrong]}"))
            done, _ = _after(window, done)
            if done == min(_PICTURED, last):
                window.picture(picture)
            if done % 100 == 0:
                say(f"{done} of {total} records are reviewed")
        if bound is not None:
            say(f"The page says: {window.text('#sample-text')}")
        window.open("about:blank")  # whoever leaves the page gives back the record that it shows


def _after(window: Browser, before: int) -> tuple[int, int]:
    """How many of how many are decided, once the page says that it is more than `before`."""

    def said() -> tuple[int, int] | None:
        found = re.search(r"(\d+) of (\d+) decided", window.text("#left").replace(",", ""))
        return (int(found[1]), int(found[2])) if found and int(found[1]) > before else None

    numbers: tuple[int, int] = window.wait(said)
    return numbers


@contextmanager
def _page(folder: Path, bound: float | None) -> Iterator[str]:
    """The address of the page of an `sft review`, which ends with this."""
    command = [sys.executable, "-m", "launcher", "review", str(folder), "--reviewer", REVIEWER, "--port", "0"]
    if bound is not None:
        command += ["--sample", str(bound)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
        assert page.stdout is not None
        try:
            yield next(found[0] for line in page.stdout if (found := re.search(r"http://\S+", line)))
        finally:
            page.send_signal(signal.SIGINT)
            try:
                page.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                page.kill()
