"""The data card of a construction: what the records are and where they come from, for whoever gets them.

    folder (manifest, records, dropped, decisions) ──write_card──▶ DATA_CARD.md

The form is that of data cards on the Hugging Face Hub: a YAML header and Markdown (Gebru et al. 2021, arXiv 1803.09010,
say what belongs into one). Invariant: the folder alone decides what it says, so it can be brought up to date after a
review; licences and terms are those that the config states, and what is not stated is called so. What data and people
say is escaped: it is never a part of the Markdown.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCardData
from jinja2 import Environment

from sft.atomic_files import write_text
from sft.construction.counts import said_of_others
from sft.construction.filters.registry import FILTERS, VERIFIERS
from sft.construction.folder import ConstructionFolder
from sft.construction.outcome_summary import OTHERS, RecipeFacts, Summary, is_constructed, read_summary
from sft.construction.page_tables import part_rows
from sft.construction.reviewed import read_reviewed
from sft.disk_words import MAKE_ROOM, told_of_disk
from sft.markdown import Markdown, code, fenced, markdown_environment
from sft.printable import counted, fit_to_print, short_name

_NOT_STATED = Markdown("not stated")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_MOST = "1M<n<10M"
_FEW_SEEDS = 10


def write_card(folder: ConstructionFolder, summary: Summary | None = None) -> None:
    """Write `DATA_CARD.md` beside the records.

    Args:
        folder: of a construction.
        summary: what is in it, if the caller has read it.

    Raises:
        UserError: the folder is damaged, or the card cannot be written.
    """
    card = render_card(folder, summary or read_summary(folder))
    with told_of_disk(folder.card, MAKE_ROOM):
        write_text(folder.card, card)


def update_card(path: Path, tell: Callable[[str], Any] = lambda name: None) -> None:
    """Write the card of this folder anew, after people have reviewed its records; of another folder, nothing.

    Args:
        path: the folder.
        tell: called with the name of the card before it is written, which may take some seconds.

    Raises:
        UserError: see `write_card`.
    """
    folder = ConstructionFolder(path)
    if folder.card.is_file() and is_constructed(folder):
        tell(folder.card.name)
        write_card(folder)


def render_card(folder: ConstructionFolder, summary: Summary) -> str:
    """The card as text."""
    manifest = summary.manifest
    stated, section = manifest.get("card", {}), manifest.get("construct", {})
    parts, num_parts = part_rows(summary)
    versions = [facts for of in summary.recipes.values() for facts in of.versions.values()]
    days = sorted(day for of in versions for day in (of.first, of.last) if day)
    settings = {name: section[name] for name in ("recipes", "filters") if section.get(name)}
    return _environment().get_template("card.md.j2").render(
        header=Markdown(_header(folder.path.name, manifest, stated)),
        name=folder.path.name,
        days=_between(days[0], days[-1]) if days else "",
        num_tasks=len({task for (_, task), num in summary.num_kept.items() if num}),
        num_tokens=manifest["num_prompt_tokens"] + manifest["num_reply_tokens"],
        **{n: manifest[n] for n in ("num_kept", "num_wanted", "num_dropped", "num_not_made", "num_open")},
        num_requests=manifest["num_requests"],
        cost=manifest.get("cost"),
        recipes=[row for name, of in sorted(summary.recipes.items()) for row in _recipe_rows(name, of)],
        settings=fenced(fit_to_print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)), "yaml"),
        parts=parts,
        num_parts=num_parts,
        filters=[*_filter_rows(summary)],
        sources=[*_source_rows(manifest.get("sources", {}), stated.get("seed_licences", {}))],
        licence=stated.get("licence", "").strip() or _NOT_STATED,
        terms=stated.get("teacher_terms", "").strip() or _NOT_STATED,
        languages=", ".join(stated.get("language", ())),
        reviewed=read_reviewed(folder),
        limits=[*_limits(summary)],
        notes=Markdown(fit_to_print(stated.get("notes", ""))),
    )  # fmt: skip


def _environment() -> Environment:
    environment = markdown_environment("sft.construction")
    environment.filters |= {
        "short_name": short_name,
        "number": lambda num: Markdown(f"{num:,}"),
        "percent": lambda share: Markdown(f"{share:.1%}"),
        "money": lambda cost: Markdown(f"{cost:,.2f}"),
    }
    return environment


def _header(name: str, manifest: Mapping[str, Any], stated: Mapping[str, Any]) -> str:
    """What the Hub reads: only what is known or stated."""
    licence = stated.get("licence", "").strip()
    # The Hub knows licences by short names, and calls all others so.
    is_name = licence.replace("-", "").replace(".", "").isalnum() and licence == licence.lower()
    num = manifest["num_kept"]
    header = DatasetCardData(
        pretty_name=fit_to_print(name),
        license=(licence if is_name else "other") if licence else None,
        language=list(stated.get("language", ())) or None,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        size_categories=[next((size for most, size in _SIZES if num < most), _MOST)],
        task_categories=["text-generation"],
        tags=["synthetic", "instruction-tuning"],
        configs=[{"config_name": "default", "data_files": "records.jsonl"}],
    )
    return f"{header.to_yaml()}\n"


def _recipe_rows(name: str, of: RecipeFacts) -> Iterator[dict[str, Any]]:
    """A line for each teacher, version of prompts and parameters."""
    for (teacher, prompts, asked), facts in sorted(of.versions.items(), key=lambda item: (item[0] == OTHERS, item[0])):
        counts = {"made": f"{facts.num_made:,}", "kept": f"{facts.num_kept:,}"}
        days = _between(facts.first, facts.last) if facts.first else ""
        about = {"teacher": code(teacher), "prompts": code(prompts) if prompts else "", "parameters": asked}
        yield {"name": name, **about, **counts, "days": days}


def _between(first: str, last: str) -> str:
    return f"on {first}" if first == last else f"from {first} to {last}"


def _filter_rows(summary: Summary) -> Iterator[dict[str, Any]]:
    made, dropped = summary.manifest["num_made"], summary.dropped
    for name in summary.filters:
        settings = summary.manifest.get("filters", {}).get(name, {})
        own = {key: value for key, value in settings.items() if value not in (None, [], {})}
        text = code(", ".join(f"{key}: {value}" for key, value in own.items())) if own else ""
        num = dropped[name]
        yield {"name": name, "num": num, "share": num / made if made else 0.0, "settings": text}


def _source_rows(sources: Mapping[str, int], licences: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for name, num in sorted(sources.items()):
        yield {"name": name, "num": num, "licence": licences.get(name, "").strip() or _NOT_STATED}


def _limits(summary: Summary) -> Iterator[str]:
    """What is not checked, and how often what was checked failed."""
    manifest = summary.manifest
    used = {*manifest.get("filters", {})}
    if there := [name for name in FILTERS if name in used & VERIFIERS]:
        yield f"Answers were verified only as far as these filters can: {', '.join(there)}."
    else:
        yield "No answer was verified."
    if left := [name for name in FILTERS if name not in used]:
        yield f"Filters that were not used: {', '.join(left)}."
    made, wanted = manifest["num_made"], manifest["num_wanted"]
    if made:
        share = manifest["num_dropped"] / made
        yield f"Filters dropped {share:.1%} of what was made. What is as bad and passed them is among the records."
    if manifest["num_not_made"] and wanted:
        yield f"{manifest['num_not_made'] / wanted:.1%} of what was wanted was not made."
    for what, num in manifest.get("noted", {}).items():
        yield f"Kept all the same: {counted(num, 'record')} of which a filter notes: {what}."
    if not_shown := said_of_others(manifest.get("no_seeds", {})):
        yield f"Records that were drawn as seeds, and are none. {not_shown.strip()}"
    num_seeds = sum(manifest.get("sources", {}).values())
    if num_seeds and num_seeds < _FEW_SEEDS * len({task for _, task in summary.num_kept}):
        yield f"There are few seeds: {counted(num_seeds, 'record')} for all tasks together."
