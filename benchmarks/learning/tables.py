"""The tables of docs/LEARNING.md, with their pictures, between two comments for each, from the JSON of what came out.

An experiment that has come out nowhere yet has a sentence in their place.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.learning.experiments import EXPERIMENTS, Group

_NOTHING = "*Not measured yet.*"
_PLACE = re.compile(r"<!-- table: ([\w-]+) -->\n(?:(.*?)\n)??<!-- end -->", re.DOTALL)
Finding = Mapping[str, Any]
"""A mean or a contrast, as `benchmarks.learning.findings` writes it."""


def without_tables(page: str) -> str:
    """The page before anything has come out."""
    return _PLACE.sub(rf"<!-- table: \1 -->\n{_NOTHING}\n<!-- end -->", page)


def in_page(page: str, found: Mapping[str, Any]) -> str:
    """The page with its tables made anew; those of experiments that are not in the file stay as they are."""
    tables = tables_of(found)

    def table(place: re.Match[str]) -> str:
        name = place[1]
        is_known = name.partition("-")[0] in found
        text = tables.get(name, _NOTHING) if is_known else place[2] or _NOTHING
        return _between(name, text)

    return _PLACE.sub(table, page)


def in_comments(page: str, tables: Mapping[str, str]) -> str:
    """The page with these tables between their comments."""
    return _PLACE.sub(lambda place: _between(place[1], tables[place[1]]) if place[1] in tables else place[0], page)


def _between(name: str, text: str) -> str:
    return f"<!-- table: {name} -->\n{text}\n<!-- end -->"


def tables_of(found: Mapping[str, Any]) -> dict[str, str]:
    """`EXPERIMENT`, `EXPERIMENT-ways` and `EXPERIMENT-differences` → Markdown."""
    tables = {}
    for name, own in found.items():
        groups = EXPERIMENTS[name].groups
        means, contrasts = own["means"], own["contrasts"]
        picture = f"![{EXPERIMENTS[name].title}](learning-{name}.png)"
        tables[name] = f"{picture}\n\n{means_table([mean for mean in means if mean['way'] == 'all'], groups)}"
        if own["num_missing"]:
            num = own["num_missing"] + own["num_trainings"]
            tables[name] += f"\n\n**{own['num_missing']} of {num} trainings are missing.**"
        tables[f"{name}-differences"] = differences_table([one for one in contrasts if one["way"] == "all"], groups)
        of_unseen = [mean for mean in means if mean["way"] != "all" and mean["group"] == "unseen tasks"]
        if of_unseen:
            tables[f"{name}-ways"] = _ways(of_unseen, groups)
    return tables


def means_table(means: Sequence[Finding], groups: Sequence[Group]) -> str:
    shown = [group for group in groups if _of(means, group)]
    rows = [["model", *map(str, shown), "trainings"]]
    for model in _names(means, "model"):
        own = {(mean["group"], mean["shots"]): mean for mean in means if mean["model"] == model}
        num_trainings = max(len(mean["by_training"]) for mean in own.values())
        rows.append([model, *(_mean(own.get(group)) for group in shown), str(num_trainings)])
    return _rows(rows)


def _ways(means: Sequence[Finding], groups: Sequence[Group]) -> str:
    columns = [(group, way) for group in groups for way in ("written", "chosen") if _of(means, group)]
    chances = {mean["chance"] for mean in means if mean["way"] == "chosen"}
    guessed = f" (guessing: {100 * sum(chances) / len(chances):.0f})" if chances else ""
    rows = [["model", *(f"{group}, {way}{guessed if way == 'chosen' else ''}" for group, way in columns)]]
    for model in _names(means, "model"):
        own = {(Group(mean["group"], mean["shots"]), mean["way"]): mean for mean in means if mean["model"] == model}
        rows.append([model, *(_mean(own.get(column)) for column in columns)])
    return _rows(rows)


def differences_table(contrasts: Sequence[Finding], groups: Sequence[Group]) -> str:
    shown = [group for group in groups if _of(contrasts, group)]
    rows = [["from → to", *map(str, shown)]]
    for pair in dict.fromkeys((one["first"], one["second"]) for one in contrasts):
        of_pair = [one for one in contrasts if (one["first"], one["second"]) == pair]
        own = {(one["group"], one["shots"]): one for one in of_pair}
        rows.append([" → ".join(pair), *(_contrast(own.get(group)) for group in shown)])
    return _rows(rows)


def _of(findings: Iterable[Finding], group: Group) -> list[Finding]:
    return [finding for finding in findings if (finding["group"], finding["shots"]) == group]


def _names(findings: Iterable[Finding], key: str) -> list[str]:
    return list(dict.fromkeys(finding[key] for finding in findings))


def _mean(mean: Finding | None) -> str:
    if mean is None:
        return "–"
    return f"{100 * mean['value']:.1f} ({100 * mean['low']:.0f} to {100 * mean['high']:.0f})"


def _contrast(one: Finding | None) -> str:
    """The difference in points, its interval, and in how many trainings it is above zero; in bold if it is seen."""
    if one is None:
        return "–"
    higher = sum(value > 0 for value in one["by_training"])
    value = f"{100 * one['value']:+.1f}"
    paired = ", by task" if one["paired"] == "tasks" else ""
    return (
        f"{f'**{value}**' if one['is_seen'] else value} ({100 * one['low']:+.0f} to {100 * one['high']:+.0f}; "
        f"{higher} of {len(one['by_training'])}{paired})"
    )


def _rows(rows: Sequence[Sequence[str]]) -> str:
    head, *others = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|---|" + "---:|" * (len(rows[0]) - 1), *others])
