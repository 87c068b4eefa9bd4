"""What axe-core (https://github.com/dequelabs/axe-core) finds on pages for who hears them, or sees little: nothing.

It looks at roles, names, headings and contrasts; that the way by keyboard is whole, test_page.py shows.
"""

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from sft.construction.page import write_page
from tests.construction.folders import SEEDS, folder_of, outcomes
from tests.review.browser import Browser, browser, needs_browser
from tests.review.served import record, served, write_records

pytestmark = needs_browser

AXE = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
STATES = {
    "a record": [],
    "its edit": ["e", "x"],
    "why it is rejected": ["r"],
    "a search": ["/", "c"],
    "the keys": ["?"],
}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


def problems(window: Browser) -> list[str]:
    """What is wrong, and where, in light and in dark."""
    found = []
    for scheme in ("light", "dark"):
        window.set_media(scheme)
        run = "axe.run({resultTypes: ['violations']}).then(found => { window.axeFound = found.violations; });"
        window.run(f"{AXE}; window.axeFound = null; {run}")
        violations = window.wait(lambda: window.run("return window.axeFound && [JSON.stringify(window.axeFound)]"))
        for one in json.loads(violations[0]):
            found += [f"{scheme}: {one['id']}: {one['help']}: {node['html']}" for node in one["nodes"]]
    return found


def test_nothing_of_the_page_of_a_review_is_out_of_reach(chromium: Browser, tmp_path: Path) -> None:
    records = [record(f"Cut {i}\n```python\ncut()\n```", "It is $x^2$") for i in range(3)]
    with served(write_records(tmp_path / "made", records)) as address:
        chromium.open(address)
        chromium.wait_for("#status", "0 of 3 decided")
        for what, keys in STATES.items():
            chromium.press(*keys)
            if what == "a search":
                chromium.wait_for("#hits", "3 found")
            assert not problems(chromium), what
            chromium.press("Escape")
        for _ in range(3):
            before = chromium.text("#status")
            chromium.press("a")
            chromium.wait(lambda before=before: chromium.text("#status") != before)
        assert not problems(chromium), "the end"


def test_nothing_of_the_page_of_a_construction_is_out_of_reach(chromium: Browser, tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "made", outcomes(40))
    write_page(folder, SEEDS)
    chromium.open(folder.page.as_uri())
    assert not problems(chromium)


def test_what_is_wrong_is_found(chromium: Browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><title>t</title><main><h1>t</h1><p style='color: #bbb'>pale</p><input></main>")
    chromium.open(page.as_uri())
    assert {one.split(": ")[1] for one in problems(chromium)} == {"color-contrast", "html-has-lang", "label"}
