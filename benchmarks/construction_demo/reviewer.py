"""A reviewer who reads each record in a real browser and decides by the exact verifier, by keyboard as people do."""

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.construction_demo.verifier import NO_INPUT, NO_QUESTION, WRONG, what_is_wrong
from tests.review.browser import Browser, browser

REVIEWER = "exact verifier"
ACCEPTED = "accepted"
_REASONS = {WRONG: "1", NO_QUESTION: "2", NO_INPUT: "2"}
"""The key of the page's reason: "wrong answer", "does not do what is asked"."""
_READ = """
const texts = [...document.querySelectorAll("#texts pre")].map((one) => one.textContent);
return [document.querySelector("#title").textContent, texts];
"""
_END_SECONDS = 30


def review(folder: Path, profile: Path, picture: Path, say: Callable[[str], None]) -> Counter[str]:
    """Decide on all records of a folder that `sft construct` has made; how many of each decision.

    Args:
        folder: its records.
        profile: for the files of the browser.
        picture: where the page is drawn, in the middle of the work.
        say: told how far it is.
    """
    decided: Counter[str] = Counter()
    with _page(folder) as address, browser(profile) as window:
        window.open(address)
        done, total = _after(window, -1)
        while done < total:
            task, (prompt, answer) = window.run(_READ)
            wrong = what_is_wrong(task, prompt, answer)
            window.press(*("a" if wrong is None else f"r{_REASONS[wrong]}"))
            done, _ = _after(window, done)
            decided[wrong or ACCEPTED] += 1
            if done == total // 2:
                window.picture(picture)
            if done % 200 == 0 or done == total:
                say(f"{done} of {total} records are reviewed")
    return decided


def _after(window: Browser, before: int) -> tuple[int, int]:
    """How many of how many are decided, once the page says that it is more than `before`."""

    def said() -> tuple[int, int] | None:
        found = re.search(r"(\d+) of (\d+) decided", window.text("#left").replace(",", ""))
        return (int(found[1]), int(found[2])) if found and int(found[1]) > before else None

    numbers: tuple[int, int] = window.wait(said)
    return numbers


@contextmanager
def _page(folder: Path) -> Iterator[str]:
    """The address of the page of an `sft review`, which ends with this."""
    command = [sys.executable, "-m", "launcher", "review", str(folder), "--reviewer", REVIEWER, "--port", "0"]
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
