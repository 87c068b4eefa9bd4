"""A teacher by script, and constructions that need no data: what the tests of this folder share."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sft.config_construction import ConstructConfig
from sft.construction.construction import Constructed, construct_all
from sft.construction.prompts import Prompts
from sft.construction.recipes.recipe import Seed
from sft.construction.recipes.registry import read_recipes
from sft.construction.work import Part, Work
from sft.endpoint.endpoint import Patience

HASTE = Patience(seconds=20, seconds_in_all=30, retries=0)
BOTH = ({"kind": "self_instruct", "num": 36, "tasks": "all"}, {"kind": "few_shot", "num": 12, "tasks": "all"})
FEW_SHOT = ({"kind": "few_shot", "num": 20, "tasks": "all"},)
NO_FILTERS = {"form": False, "copies": False}
SEEDS = [Seed(f"seed-{i}", f"Say {i} in words, then {i * i}", f"answer {i}", "words") for i in range(30)]


def teach(content: Mapping[str, Any]) -> str:
    """What the teacher says depends on the prompt alone."""
    prompt = content["messages"][-1]["content"]
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    if '{"instruction"' in prompt:
        # Now and then something that was there, or not what was asked for.
        words = " ".join(digest[i : i + 4] for i in range(0, 32, 4))
        if digest[0] in "0123":
            words = f"the same few words again and again {digest[:4]}"
        return json.dumps({"instruction": words, "is_classification": digest[1] in "01234567"})
    if '{"input"' in prompt:
        return json.dumps({"input": digest[:6]})
    if '{"output"' in prompt:
        return json.dumps({"output": digest[:3]})
    if '{"prompt"' in prompt:
        return (
            json.dumps({"prompt": digest, "answer": digest[:4]}) if digest[0] not in "01234" else "I would rather not."
        )
    return f"answer {digest[:8]}"


def section(url: str, out: Path, recipes: Any = BOTH, **about: Any) -> ConstructConfig:
    about.setdefault("filters", NO_FILTERS)
    teacher = {"endpoint": url, "model": "tiny", "at_once": about.pop("at_once", 8)}
    return ConstructConfig.model_validate({"teacher": teacher, "recipes": recipes, "out": out, **about})


def work_of(given: ConstructConfig, tasks: tuple[str, ...] = ("words",)) -> Work:
    """Each recipe makes `num` of each task, or of its own one."""
    parts = [
        Part(recipe, task, recipe.num, () if recipe.new_task else SEEDS, material=recipe.material())
        for recipe in read_recipes(given.recipes)
        for task in ((recipe.new_task,) if recipe.new_task else tasks)
    ]
    return Work(parts, Prompts(given.prompts), run_seed=3)


def run(given: ConstructConfig, **about: Any) -> Constructed:
    return construct_all(work_of(given, **about), given, patience=HASTE)


def output_of(out: Path) -> dict[str, Any]:
    """What is written, but for the addresses, which differ between servers."""
    files = {name: (out / name).read_text() for name in ("records.jsonl", "dropped.jsonl")}
    return {**files, "manifest": json.loads((out / "manifest.json").read_text())}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
