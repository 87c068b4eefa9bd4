"""The pages for people: how long they may be, and that their links lead somewhere."""

import re
from collections import Counter
from pathlib import Path

import pytest

MAX_LINES = {"README.md": 130, "docs/ARCHITECTURE.md": 350}
LINK = re.compile(r"\]\((?!https?:)([^)\s#]*)(?:#([^)\s]+))?\)")


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[Path, str]:
    """Path → text without blocks of code, of every page."""
    paths = [path for folder in (".", "docs", "slurm", "benchmarks") for path in (root / folder).glob("*.md")]
    return {path: re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S) for path in paths}


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.M):
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return names


@pytest.mark.parametrize("page", MAX_LINES)
def test_what_people_read_first_is_short(root: Path, page: str) -> None:
    assert len((root / page).read_text("utf-8").splitlines()) <= MAX_LINES[page]


def test_every_link_leads_to_a_file_and_a_heading(pages: dict[Path, str]) -> None:
    broken = []
    for page, text in pages.items():
        for name, anchor in LINK.findall(text):
            target = (page.parent / name).resolve() if name else page
            if not target.exists() or (anchor and anchor not in anchors(pages[target])):
                broken.append(f"{page.name}: {name}#{anchor}")
    assert len(pages) > 10
    assert broken == []


def test_every_page_is_reached_from_the_readme(root: Path, pages: dict[Path, str]) -> None:
    reached, waiting = set(), [root / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in pages and page not in reached:
            reached.add(page)
            waiting += [(page.parent / name).resolve() for name, _ in LINK.findall(pages[page]) if name]
    assert {page for page in pages if page.parent.name == "docs"} <= reached
