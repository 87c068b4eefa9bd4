"""docs/MIGRATE.md shows the table of foreign keys as it is. `pytest tests/test_migrate_page.py --pin` writes it."""

from pathlib import Path

import pytest

from sft.foreign.keys import KEYS, SYSTEMS, System

PAGE = Path(__file__).resolve().parents[1] / "docs" / "MIGRATE.md"
BEGINS = "\n### TRL\n"


def table(system: System) -> str:
    """Their keys, in the order of the table; those that are the same here stand together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, key in KEYS.items():
        if system in key.systems:
            places = ", ".join(f"`{place}`" for place in key.ours.split(", ") if place)
            here = places or ("no equal" if key.is_needed else "not needed")
            rows.setdefault((here, key.note), []).append(f"`{name}`")
    lines = [f"| {', '.join(names)} | {here} | {note} |" for (here, note), names in rows.items()]
    return "\n".join([f"### {SYSTEMS[system]}", "", "| there | here | |", "|---|---|---|", *lines])


def test_the_page_has_every_key(request: pytest.FixtureRequest) -> None:
    tables = "\n\n".join(table(system) for system in ("trl", "axolotl", "llama_factory"))
    text = PAGE.read_text(encoding="utf-8")
    written = f"{text.partition(BEGINS)[0].rstrip()}\n\n{tables}\n"
    if request.config.getoption("--pin"):
        PAGE.write_text(written, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == written
