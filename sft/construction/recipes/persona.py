"""Persona-driven instructions (Ge et al. 2024, arXiv 2406.20094): what a certain person would ask of a task.

the user's file    a persona each line, or JSON lines with `persona`
else               asked first: who would be interested in a seed's text (text-to-persona, section 2.1)
then asked         the instruction that this person would give; and its answer
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

from sft.absolute_paths import local_path, near_it
from sft.construction.answer_form import read_object, read_text, schema_of
from sft.construction.filters.refusals import refuses
from sft.construction.recipes.material import Material
from sft.construction.recipes.recipe import About, Chain, Independent, Recipe, Seed
from sft.construction.script import Failed, Script
from sft.errors import UserError

_PERSONA: dict[str, type] = {"persona": str}
_INSTRUCTION: dict[str, type] = {"instruction": str}
_NUM_SHOWN = 3
_MOST_CHARS = 2000
_MOST_PROBLEMS = 10
REFUSED = "its answer is a refusal"


class Persona(Recipe):
    """Instructions of a task as different people would give them."""

    kind: ClassVar[str] = "persona"
    prompts: ClassVar[tuple[str, ...]] = ("persona_person", "persona_instruction", "persona_answer")

    personas: str | None = None
    """A file with a description of a person each line. Default: the teacher makes them from seeds."""

    @property
    def num_requests(self) -> int:
        """The person if there is no file, the instruction, the answer."""
        return 3 if self.personas is None else 2

    def material(self) -> Material:
        """The persons of the file, if there is one."""
        return Material() if self.personas is None else Material(personas=_read(local_path(self.personas)))

    def chain(self, about: About) -> Chain:
        """Persons in turn; without a file, the seeds that they are made from."""
        persons, seeds = about.shuffled(about.material.personas), about.shuffled(about.seeds)
        return Independent(partial(self._script, about, persons, seeds))

    def _script(self, about: About, persons: Sequence[str], seeds: Sequence[Seed], number: int) -> Script:
        random, of = about.random(number), seeds[number % len(seeds)]
        system = about.alike(random)[0] if persons else of.system
        seeds = [seed for seed in seeds if seed.system == system]
        shown = random.sample(seeds, min(_NUM_SHOWN, len(seeds)))
        used = [seed.id for seed in shown]
        if persons:
            person = persons[number % len(persons)]
        else:
            used = [of.id, *(id for id in used if id != of.id)]
            prompt = about.prompt("persona_person", system=system, text=of.prompt)
            person = read_object((yield about.request(prompt, schema_of(_PERSONA))), _PERSONA)["persona"]
        examples = [seed.prompt for seed in shown]
        prompt = about.prompt("persona_instruction", system=system, persona=person, examples=examples)
        reply = yield about.request(prompt, schema_of(_INSTRUCTION))
        instruction = read_object(reply, _INSTRUCTION)["instruction"]
        prompt = about.prompt("persona_answer", instruction=instruction)
        answer = read_text((yield about.request(prompt, system=system)))
        if refuses(answer, instruction):
            return Failed(REFUSED)
        return about.draft(instruction, answer, used, system=system, persona=person)


def _read(path: Path) -> tuple[str, ...]:
    try:
        # A line ends where one of JSON lines does: `splitlines` cuts at signs that stand inside of texts, too.
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(
            f"personas: there is no file {path}{near_it(path)}. Write a person each line into it."
        ) from None
    except OSError as error:
        raise UserError(f"personas: {path} cannot be read: {error.strerror}. Give a file of text.") from None
    except UnicodeDecodeError:
        raise UserError(f"personas: {path} is no text in UTF-8. Convert it.") from None
    is_json = path.suffix in (".jsonl", ".ndjson")
    found, problems = dict[str, None](), []
    for number, line in enumerate(lines, start=1):
        if text := line.strip():
            person = _persona_in(text) if is_json else text
            if person is None:
                problems.append(f"line {number} is no JSON object with a text `persona`")
            elif len(person) > _MOST_CHARS:
                problems.append(f"line {number} has more than {_MOST_CHARS:,} characters")
            else:
                found[person] = None
    if not found and not problems:
        problems.append("it is empty")
    if problems:
        more = [f"and {len(problems) - _MOST_PROBLEMS} more"] if len(problems) > _MOST_PROBLEMS else []
        raise UserError(f"personas: {path}: {'; '.join([*problems[:_MOST_PROBLEMS], *more])}.")
    return tuple(found)


def _persona_in(line: str) -> str | None:
    try:
        content = json.loads(line)
        content["persona"].encode()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return str(content["persona"]).strip() or None
