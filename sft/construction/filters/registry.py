"""All filters by name, the cheapest first, and the forms in which a config gives them.

filters: {}                                          form and copies, which are always there
filters: {min_words: 3, similarity_to_existing: 0.7, overlap_with_heldout: remove}
filters: {form: {min_words: 3}, copies: 0.7, heldout: remove, refusals: true}      the same, and one more
filters: {copies: false, verify: {code: {allow_code: true}, math: agree_of_5, json: parses}}
"""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from sft.config_rules import Problem
from sft.config_words import did_you_mean, in_our_words
from sft.construction.filters.code_tests import CodeAnswer
from sft.construction.filters.copies import Copies
from sft.construction.filters.difficulty import Difficulty
from sft.construction.filters.diversity import Diversity
from sft.construction.filters.filter import Filter
from sft.construction.filters.form import Form
from sft.construction.filters.heldout import HeldOut
from sft.construction.filters.json_answer import JsonAnswer
from sft.construction.filters.judge import Graded
from sft.construction.filters.language import Language
from sft.construction.filters.numbers import Numbers
from sft.construction.filters.passage import Passage
from sft.construction.filters.refusals import Refusals

FILTERS: Mapping[str, type[Filter]] = {
    kind.name: kind
    for kind in (
        *(Form, JsonAnswer, Numbers, Passage, Refusals, Language, HeldOut, Copies, CodeAnswer),
        *(Difficulty, Graded, Diversity),
    )
}
"""In the order in which a draft goes through them."""

_ALWAYS = ("form", "copies")
_FIELD = "construct.filters"
_VERIFY = "verify"
_VERIFIERS = {"json": "json", "math": "numbers", "numbers": "numbers", "passage": "passage", "code": "code"}
VERIFIERS = frozenset(_VERIFIERS.values())
"""The filters that look whether an answer is right."""
_SETTINGS = {
    "min_words": ("form", "min_words"),
    "max_words": ("form", "max_words"),
    "similarity_to_existing": ("copies", "similarity_to_existing"),
    "overlap_with_heldout": ("heldout", "mode"),
}
"""A word of a config → the filter and its setting."""

Settings = dict[str, dict[str, Any]]
"""Filter → its settings."""


def filter_problems(forms: Mapping[str, Any]) -> Iterator[Problem]:
    """What is wrong with the filters that a config gives."""
    problems: list[Problem] = []
    for name, settings in _read(forms, problems).items():
        try:
            FILTERS[name](**settings)
        except ValidationError as error:
            problems += _problems(name, error)
    yield from problems


def read_filters(forms: Mapping[str, Any]) -> tuple[Filter, ...]:
    """The filters that a config without problems gives, in their order."""
    settings = _read(forms, [])
    return tuple(kind(**settings[name]) for name, kind in FILTERS.items() if name in settings)


def _read(forms: Mapping[str, Any], problems: list[Problem]) -> Settings:
    settings: Settings = {name: {} for name in _ALWAYS}
    off: list[str] = []
    for word, form in forms.items():
        place = f"{_FIELD}.{word}"
        if word in _SETTINGS:
            name, setting = _SETTINGS[word]
            _add(settings, name, {setting: form}, place, problems)
        elif word == _VERIFY and isinstance(form, Mapping):
            for verifier, given in form.items():
                if verifier in _VERIFIERS:
                    _read_one(_VERIFIERS[verifier], given, f"{place}.{verifier}", settings, off, problems)
                else:
                    way_out = did_you_mean(verifier, [*_VERIFIERS])
                    problems.append(Problem(f"{place}.{verifier}", given, "there is no such verifier", way_out))
        elif word == _VERIFY:
            way_out = f"give verifiers with their settings: {', '.join(_VERIFIERS)}"
            problems.append(Problem(place, form, "it is no section", way_out))
        elif word in FILTERS:
            _read_one(word, form, place, settings, off, problems)
        else:
            way_out = did_you_mean(word, [*FILTERS, *_SETTINGS, _VERIFY])
            problems.append(Problem(place, form, "there is no filter of this name", way_out))
    for name in off:
        if settings.get(name):
            rule = f"it is turned off and has settings: {', '.join(settings[name])}"
            problems.append(Problem(f"{_FIELD}.{name}", False, rule, "give one of both"))
        settings.pop(name, None)
    return settings


def _read_one(name: str, form: Any, place: str, settings: Settings, off: list[str], problems: list[Problem]) -> None:
    kind = FILTERS[name]
    if form is False:
        off.append(name)
    elif form is True or form is None or (kind.word and form == kind.word):
        _add(settings, name, {}, place, problems)
    elif isinstance(form, Mapping):
        _add(settings, name, {str(key): value for key, value in form.items()}, place, problems)
    elif kind.shorthand and isinstance(form, str | int | float | list):
        _add(settings, name, {kind.shorthand: form}, place, problems)
    else:
        words = ", ".join(filter(None, ("true", "false", kind.word)))
        problems.append(Problem(place, form, f"{name} is given by {words} or its settings", _example(kind)))


def _add(settings: Settings, name: str, given: dict[str, Any], place: str, problems: list[Problem]) -> None:
    there = settings.setdefault(name, {})
    for setting in there.keys() & given.keys():
        problems.append(Problem(place, given[setting], f"{setting} of {name} is given twice", "remove one of them"))
    there.update(given)


def _problems(name: str, error: ValidationError) -> Iterator[Problem]:
    kind = FILTERS[name]
    # One of several types is named at the end of a place: a wrong value has a problem for each.
    by_setting = {str(problem["loc"][0]) if problem["loc"] else "": problem for problem in error.errors()}
    for setting, problem in by_setting.items():
        place = f"{_FIELD}.{name}.{setting}".rstrip(".")
        if problem["type"] == "extra_forbidden":
            way_out = did_you_mean(setting, [*kind.model_fields])
            yield Problem(place, problem["input"], f"{name} has no such setting", way_out)
        elif problem["type"] == "missing":
            yield Problem(place, "", f"{name} needs it", _example(kind))
        else:
            rule = in_our_words(problem["msg"].removeprefix("Value error, "))
            yield Problem(place, problem["input"], rule, "correct it")


def _example(kind: type[Filter]) -> str:
    return f"write {kind.name}: {kind.example}"
