"""Folders as `sft construct` writes them, made without a teacher."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sft.construction.filters.registry import read_filters
from sft.construction.folder import ConstructionFolder
from sft.construction.output import write_output
from sft.construction.recipes.recipe import Seed
from sft.construction.script import Dropped, Failed, Outcome, ScriptName
from sft.construction.work import Ended
from sft.draft import Draft, Provenance

_ASKED = "a poem on rain", "how bread is baked", "three cities by the sea", "a letter to my aunt", "why leaves fall"
SEEDS = [("words", Seed(f"seed-{i}", f"Write {what}", "it is", "by_hand")) for i, what in enumerate(_ASKED)]
HOSTILE = (
    "</script><script>document.title = 'taken'</script>",
    "<img src=x onerror=alert(1)> <!-- ]]> {{ 7 * 7 }}",
    "\x1b[31mred\x07\x00 \u202eright to left\u2066\u2028\ufeff \ud800",
    "مرحبا بالعالم 数学 👩‍👩‍👧 e\u0301",
    "https://user:hunter22@example.org/x ![a](http://evil.example/x.png) [b](javascript:x) `c` | d\n---\n# e",
)


def made(
    prompt: str, answer: str = "an answer", task: str = "words", recipe: str = "few_shot", cost: float = 0.01
) -> Draft:
    about = Provenance(recipe, "big at http://127.0.0.1:8000/v1", "0123456789abcdef", {"temperature": 0.7}, (),
                       (f"of {prompt}",), 100, cost, "2026-11-20")  # fmt: skip
    return Draft(({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}), task, about)


def outcomes(num: int, task: str = "words") -> list[Outcome]:
    """In turn kept, dropped by a recipe's own rule and by filters, and not made."""
    kinds: list[Outcome] = []
    for i in range(num):
        draft = made(f"Write sentence {i} about number {i * 7}", f"answer {i}", task)
        dropped = [Dropped(draft, name, reason) for name, reason in (("novelty", "not new"), ("form", "too short"))]
        kinds.append([draft, draft, *dropped, Failed("the answer is no JSON"), draft][i % 6])
    return kinds


def folder_of(path: Path, given: Sequence[Outcome], *, card: Any = None, **about: Any) -> ConstructionFolder:
    """The folder of these outcomes; what it cost is what the drafts cost, and two requests more."""
    path.mkdir(parents=True, exist_ok=True)
    drafts = [one.draft if isinstance(one, Dropped) else one for one in given if not isinstance(one, Failed)]
    tasks = [one.draft.task if isinstance(one, Dropped) else getattr(one, "task", "words") for one in given]
    ended = [
        Ended(ScriptName("few_shot", task, i), one) for i, (task, one) in enumerate(zip(tasks, given, strict=True))
    ]
    content = {
        "construct": {"recipes": [{"kind": "few_shot", "num": len(given)}], "filters": {"refusals": True}},
        "filters": {one.name: one.model_dump(mode="json") for one in read_filters({"refusals": True})},
        "card": card or {},
        "sources": {"by_hand": len(SEEDS)},
        "seed": 3,
        "num_requests": len(drafts) + 2,
        "num_prompt_tokens": 80 * len(drafts),
        "num_reply_tokens": 20 * len(drafts) + 50,
        "cost": 0.01 * len(drafts) + 0.02,
        "reached": "",
        "noted": {},
    }
    folder = ConstructionFolder(path)
    write_output(folder, ended, {**content, **about})
    return folder
