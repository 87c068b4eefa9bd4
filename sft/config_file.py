"""Turns a YAML file and `section.field=value` overrides into a frozen config, or into one list of all problems.

Invariant: a config that was read obeys every rule; `dump_config` writes it so that it reads back equal.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from sft.config import SftConfig
from sft.config_forms import Forms
from sft.config_lines import NO_LINES, Lines, line_of
from sft.config_names import current_keys, places_of, renames_of, with_current_names
from sft.config_rules import RULES, Problem
from sft.config_section import TASK_NAME
from sft.config_words import LIKE, did_you_mean, in_our_words
from sft.config_yaml import Document, parse_yaml, write_yaml
from sft.errors import UserError
from sft.foreign.answers import answer, identify
from sft.foreign.keys import KEYS, SYSTEMS
from sft.small_files import read_small_text
from sft.url_secrets import remember_path, remember_secrets, without_secrets

_MISSING = "nothing"
_MAX_DEPTH = 20
_MISSPELT = 0.85
"""With at least this similarity, a key counts as a misspelling of the other."""


class ConfigError(UserError):
    """Everything that is wrong with a config, in one message; `problems` holds it line by line."""

    def __init__(self, origin: str, problems: Sequence[Problem], lines: Lines = NO_LINES) -> None:
        """`origin` is the file, or whatever else the config came from; `lines` says where its fields are in it."""
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        told = [f"{origin}: {count}"]
        for p in problems:
            line = line_of(p.path, lines)
            where = f"line {line}: {_short(p.path)}" if line else _short(p.path)
            told += [f"  {where}: {_shown(p.value)}", f"      {p.rule}", f"      → {p.way_out}"]
        super().__init__("\n".join(told))


def read_yaml(path: Path) -> Document:
    """The mapping in a YAML file, read without constructing objects."""
    document = parse_yaml(read_small_text(path, "the config"), str(path))
    if not isinstance(document.content, dict):
        raise UserError(f"{path}: the config must be a mapping of sections, but it is {_shown(document.content)}")
    return document


def read_overrides(
    content: Mapping[str, Any], assignments: Iterable[str], kind: type[SftConfig] = SftConfig
) -> tuple[dict[str, Any], dict[str, str]]:
    """The config with `section.field=value` assignments put in; a list item is named by number or by its name.

    Args:
        content: with current names as keys.
        assignments: may use former names of fields.
        kind: what the config is.

    Returns:
        The config, and the assignment of each changed place, by its path.
    """
    result: dict[str, Any] = _without(content, ())
    given = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = [str(key) for key in current_keys(path.split("."), kind)]
        if not equals or not all(keys):
            raise UserError(
                f"{_shown(assignment)}: an override is section.field=value, such as train.packs_per_step=16"
            )
        value = parse_yaml(text, _shown(assignment), is_field=True).content
        try:
            given[_put(result, keys, value)] = assignment
        except UserError as error:
            raise UserError(f"{_shown(assignment)}: {error}") from None
    return result, given


def _put(content: dict[str, Any], keys: Sequence[str], value: Any) -> str:
    """Put a value in its place; returns the path of the place, with numbers for items of lists."""
    if len(keys) > _MAX_DEPTH:
        raise UserError("no field is nested so deeply")
    node: Any = content
    place = [_key_in(node, keys[0])]
    for key in keys[1:]:
        node = _child(node, place[-1])
        place.append(_key_in(node, key))
    node[place[-1]] = value
    return ".".join(map(str, place))


def quote_overrides(problems: Iterable[Problem], given: Mapping[str, str]) -> list[Problem]:
    """The problems; those of a place that an override changed quote the override."""
    quoted = []
    for problem in problems:
        path = f"{problem.path}."
        # An unknown key may be a whole section, of which the override named a field.
        of_it = [text for place, text in given.items() if path.startswith(f"{place}.") or f"{place}.".startswith(path)]
        rule = f"{problem.rule}, in {_shown(of_it[-1])}" if of_it else problem.rule
        quoted.append(problem._replace(rule=rule))
    return quoted


def build_config(content: Mapping[str, Any], origin: str = "config", lines: Lines = NO_LINES) -> SftConfig:
    """Validate every section and every rule between sections; raise `ConfigError` with all problems."""
    content, _ = with_current_names(content, SftConfig)
    problems = find_problems(content)
    if problems:
        raise ConfigError(origin, problems, lines)
    return SftConfig.model_validate(content)


def find_problems(
    content: Mapping[str, Any], of_start: Iterable[Problem] = (), whole: type[SftConfig] = SftConfig
) -> list[Problem]:
    """All problems of the sections of `SftConfig`, in the order of the sections.

    Args:
        content: the sections.
        of_start: the problems of the place that `from` names (see `sft.lineage`).
        whole: all sections that a config may have, for suggestions.
    """
    remember_secrets(content)
    if isinstance(alerts := content.get("alerts"), Mapping):
        remember_path(alerts.get("url"))
    fields = {field.alias or name: field for name, field in SftConfig.model_fields.items()}
    needed_here = [name for name, field in fields.items() if field.is_required()]
    if not any(name in content for name in needed_here) and (systems := identify(content)):
        whose = f"is written for {' or '.join(SYSTEMS[system] for system in systems)}, not for this program"
        return [Problem("the whole of it", ", ".join(content), whose, "`sft convert FILE` makes a config of it")]
    problems = list(of_start)
    sections: dict[str, Any] = {}
    for key in content:
        if key not in fields:
            known = [*fields, *(name for name in whole.model_fields if name not in SftConfig.model_fields)]
            problems.append(_unknown_key([key], content[key], known, content, whole))
    for name, field in fields.items():
        if name not in content:
            if field.is_required():
                problems.append(Problem(name, _MISSING, "this section is needed", f"add `{name}:` to the config"))
            else:
                sections[name] = field.default
            continue
        # The alternative annotations of a field carry its constraints (such as a least length).
        adapter: TypeAdapter[Any] = TypeAdapter(field.rebuild_annotation())
        found, readable = check_section(adapter, content[name], name)
        problems += found
        if readable is not None or not found:
            sections[name] = readable
    # A misspelt key is one mistake: do not also report that the right one is missing.
    meant = {path for problem in problems for path in problem.also_about}
    if any(problem.path.partition(".")[0] == "from" for problem in problems):
        meant |= {"model", "model.path"}  # that it would have led to
    problems = [p for p in problems if not (p.value == _MISSING and p.path in meant)]
    unread = [path for problem in problems for path in (problem.path, *problem.also_about)]
    for rule, needed in RULES:
        if all(name in sections for name in needed):
            broken = rule(*(sections[name] for name in needed))
            # A rule on a field that could not be read would judge its default, which the user did not give.
            problems += [p for p in broken if not _rests_on(p, unread)]
    return problems


def check_section(adapter: TypeAdapter[Any], value: Any, path: str) -> tuple[list[Problem], Any]:
    """The problems of one section, and the section as far as it can be read (None if it cannot).

    A section with a misspelt key is read without that key, so that the rules between sections are checked too.
    """
    try:
        return [], adapter.validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
    # To pydantic, a list with wrong items is also too short, and a default that depends on an unreadable field is also
    # a mistake. The user made neither.
    details = [d for d in details if d["type"] != "too_short" or not d["input"]]
    details = [d for d in details if d["type"] != "default_factory_not_called"]
    problems = [_as_problem(detail, path, adapter, value) for detail in details]
    try:
        return problems, adapter.validate_python(_without(value, [_keys(d, value) for d in details]))
    except ValidationError:
        return problems, None


def dump_config(config: BaseModel) -> str:
    """The resolved config as YAML: every field with its value, readable by `build_config`."""
    return write_yaml(config.model_dump(mode="json", by_alias=True))


def _rests_on(problem: Problem, unread: Iterable[str]) -> bool:
    fields = (problem.path, *problem.also_about)
    return any(f"{path}.".startswith(f"{field}.") for path in unread for field in fields)


def _keys(detail: Any, value: Any) -> list[Any]:
    """The part of pydantic's `loc` that names keys and indices in `value`; the rest names branches of unions.

    A branch may have the name of a key, so this looks for the reading that ends at the wrong value.
    """
    loc, wrong = detail["loc"], detail["input"]
    if detail["type"] == "missing":
        # The last key is not there; what is shown as wrong is the mapping or list that lacks it.
        loc = loc[:-1]

    def readings(loc: Sequence[Any], node: Any) -> Iterator[tuple[list[Any], Any]]:
        if not loc:
            yield [], node
            return
        key, rest = loc[0], loc[1:]
        if isinstance(node, dict) and key in node or isinstance(node, list) and key in range(len(node)):
            yield from (([key, *keys], end) for keys, end in readings(rest, node[key]))
        yield from readings(rest, node)

    def rank(reading: tuple[list[Any], Any]) -> tuple[bool, bool, int]:
        keys, end = reading
        return end is wrong, keys[-1:] == list(loc[-1:]), len(keys)

    return max(readings(loc, value), key=rank)[0]


def _as_problem(detail: Any, path: str, adapter: TypeAdapter[Any], value: Any) -> Problem:
    keys = _keys(detail, value)
    given = detail["input"]
    where = ".".join([path, *map(str, keys)])
    forms = Forms(adapter)
    match detail["type"]:
        case "extra_forbidden":
            beside = reduce(lambda node, key: node[key], keys[:-1], value)
            return _unknown_key([path, *keys], given, forms.keys_at(keys[:-1]), beside)
        case "missing" if isinstance(given, list):
            return Problem(where, given, f"item {detail['loc'][-1] + 1} is missing", "make the list longer")
        case "missing":
            where = f"{where}.{detail['loc'][-1]}"
            return Problem(where, _MISSING, "this field is needed", f"add `{where}`")
        case "literal_error":
            allowed = str(detail["ctx"]["expected"]).replace("'", "")
            words = allowed.replace(" or ", ", ").split(", ")
            return Problem(where, given, f"must be {allowed}", did_you_mean(given, words))
        case "word_or_number":
            context = detail["ctx"]
            return Problem(where, given, context["rule"], did_you_mean(given, context["words"], context["way_out"]))
        case "string_pattern_mismatch" if detail["ctx"]["pattern"] == TASK_NAME:
            return Problem(where, given, "must be one line, without spaces around it", "choose such a name")
        case "string_pattern_mismatch":
            rule = "may hold letters, digits, dots, dashes and underscores only"
            return Problem(where, given, rule, "choose such a name")
        case "model_type":
            known = ", ".join(forms.keys_at(keys))
            example = without_secrets(forms.section_at(keys, given))
            rule = KEYS[where].note if isinstance(given, str) and where in KEYS else "must be a mapping of fields"
            return Problem(where, given, rule, f"give it fields, such as {example}, or remove it; there are {known}")
        case "string_type" | "path_type" if not isinstance(given, dict | list):
            kind, way_out = _taken_for(given)
            return Problem(where, given, f"must be text, but YAML reads it as {kind}", way_out)
        case "blank":
            return Problem(where, given, "is empty", "write a path, or remove the field")
        case _:
            rule = in_our_words(str(detail["msg"]))
            expected, _, what = detail["type"].partition("_")
            form = _FORMS.get(expected) if what in _WRONG_FORM else None
            if expected == "tuple" and not isinstance(given, dict | None):
                form = without_secrets(f"a list, such as {forms.list_at(keys, given)}")
            way_out = f"write {form}" if form else "correct the value"
            return Problem(where, given, rule[:1].lower() + rule[1:], way_out)


_WRONG_FORM = {"type", "parsing", "from_float", "parsing_size"}
_FORMS = {
    "int": "a whole number, such as 8",
    "float": "a number, such as 0.5 or 1.0e-5",
    "bool": "true or false",
    "tuple": "a list, such as [1, 2]",
    "dict": "a mapping, such as {one: 1, two: 2}",
    "string": 'a text, such as "one"',
    "path": "a path, such as runs/one",
}
"""Pydantic's name of a type → an example of it in YAML."""


def _taken_for(given: Any) -> tuple[str, str]:
    """How YAML reads a word that was meant as text, and what to do."""
    if given is None:
        return "nothing (like ~, null, and what follows a #)", "write a value, in quotes if it is one of these"
    if isinstance(given, bool):
        return "true or false", f'put it in quotes, such as "{str(given).lower()}"'
    if isinstance(given, int | float):
        return "a number", f'put it in quotes, such as "{given}"'
    return "a date", f'put it in quotes, such as "{given}"'


def _unknown_key(
    keys: list[Any],
    value: Any,
    known: Sequence[str],
    beside: Mapping[str, Any],
    whole: type[SftConfig] = SftConfig,
) -> Problem:
    """Names the key that was misspelt, or else the key for what another system calls so, or else a similar one."""
    path = ".".join(map(str, keys))
    if renames := list(renames_of(path, SftConfig)):
        rule = f"is the former name of `{renames[-1].name}`, which is given, too"
        return Problem(path, value, rule, "remove one of the two")
    close = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=_MISSPELT)
    if not close and (foreign := answer(keys, value, beside)):
        return Problem(path, value, foreign.rule, foreign.way_out, foreign.ours)
    if not close and (places := _places_of(keys, whole)):
        way_out = f"here it is {' or '.join(f'`{place}`' for place in places)}"
        return Problem(path, value, "is not a known key", way_out, tuple(places))
    close = close or difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=LIKE)
    if not close:
        return Problem(path, value, "is not a known key", f"known here: {', '.join(known)}")
    meant = ".".join([*map(str, keys[:-1]), close[0]])
    return Problem(path, value, "is not a known key", f"did you mean `{close[0]}`?", (meant,))


def _places_of(keys: Sequence[Any], whole: type[SftConfig]) -> list[str]:
    """Where a field of this name is, if it is in one or two places; of stages, in the one that the key is in."""
    stage = str(keys[1]) if keys[0] == "stages" and len(keys) > 2 else "0"
    places = [re.sub(r"^stages\.0\.", f"stages.{stage}.", place) for place in places_of(str(keys[-1]), whole)]
    return places if len(places) <= 2 else []


def _without(value: Any, locations: Iterable[Sequence[Any]]) -> Any:
    """`value` without the keys at `locations`."""
    wrong = {tuple(loc) for loc in locations}

    def copy(node: Any, loc: tuple[Any, ...]) -> Any:
        if isinstance(node, dict):
            return {k: copy(v, (*loc, k)) for k, v in node.items() if (*loc, k) not in wrong}
        if isinstance(node, list):
            return [copy(v, (*loc, i)) for i, v in enumerate(node)]
        return node

    return copy(value, ())


def _key_in(node: Any, key: str) -> str | int:
    """The key of a mapping, or the place in a list of the item with this name or number."""
    if isinstance(node, dict):
        return key
    if not isinstance(node, list):
        raise UserError(f"{_shown(node)} is a value, not a section, so it has no {key!r}")
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if key in names:
        return names.index(key)
    if key.isdecimal() and len(key) < 9 and int(key) < len(node):
        return int(key)
    known = ", ".join(str(name) for name in names if name is not None)
    raise UserError(f"there is no {_shown(key)}; give a number below {len(node)}, or one of: {known}")


def _child(node: Any, key: str | int) -> Any:
    """The value there; an empty or absent section is made."""
    if isinstance(node, dict) and node.get(key) is None:
        node[key] = {}
    return node[key]


def _shown(value: Any) -> str:
    return _short(value if value == _MISSING else repr(value))


def _short(text: str) -> str:
    text = without_secrets(text)
    return text if len(text) <= 120 else text[:117] + "..."
