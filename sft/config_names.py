"""Former names of the config's fields, which are still read wherever a config comes from.

packs_per_micro_batch: AffectsNothing[Annotated[PositiveInt, Was("micro_packs")]] = 1
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeGuard, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo


@dataclass(frozen=True, slots=True)
class Was:
    """A former name of a field. If there are several, the oldest comes first."""

    name: str


class Rename(NamedTuple):
    """A field that was given by a former name."""

    path: str
    name: str
    """The current name."""

    def __str__(self) -> str:
        return f"{self.path} is called `{self.name}` now; the old name is still read"


def former_names(field: FieldInfo) -> tuple[str, ...]:
    """The former names of a field, the oldest first."""
    return tuple(mark.name for mark in field.metadata if isinstance(mark, Was))


def first_name(name: str, field: FieldInfo) -> str:
    """The name of a field in fingerprints, which never changes."""
    return next(iter(former_names(field)), name)


def with_current_names(content: Any, kind: Any) -> tuple[Any, list[Rename]]:
    """Plain values with the current names as keys of a section, and of all sections in it.

    A field given by both names keeps both, and so is refused when it is read.

    Args:
        content: as it is in a file or a record; it need not be valid.
        kind: the section, or an annotation with sections in it.
    """
    renames: list[Rename] = []

    def current(node: Any, kind: Any, path: str) -> Any:
        for part in alternatives(kind):
            inner = get_args(part)
            if isinstance(node, Mapping) and is_section(part):
                node = {key: value for key, value in section(node, part, path)}
            elif isinstance(node, Mapping) and get_origin(part) is dict:
                node = {key: current(value, inner[1], f"{path}{key}.") for key, value in node.items()}
            elif isinstance(node, list) and get_origin(part) is tuple:
                node = [current(item, inner[0], f"{path}{i}.") for i, item in enumerate(node)]
        return node

    def section(node: Mapping[Any, Any], kind: type[BaseModel], path: str) -> Iterator[tuple[Any, Any]]:
        for given, value in node.items():
            name, field = _find(kind, given)
            key = given if name in node else name
            if key != given:
                renames.append(Rename(f"{path}{given}", name))
            yield key, value if field is None else current(value, field.annotation, f"{path}{key}.")

    return current(content, kind, ""), renames


def current_keys(keys: Sequence[str | int], kind: Any) -> list[str | int]:
    """The keys that lead to a place in a section, with current names; an unknown key stays as it is."""
    kinds, result = [kind], []
    for key in keys:
        name = key
        inner: list[Any] = []
        for part in (part for kind in kinds for part in alternatives(kind)):
            if is_section(part):
                found, field = _find(part, key)
                name, inner = found, inner if field is None else [*inner, field.annotation]
            elif get_origin(part) in (tuple, dict):  # the key is a number, or a name that the user chose
                inner.append(get_args(part)[get_origin(part) is dict])
        result.append(name)
        kinds = inner
    return result


def renames_of(path: str, kind: Any) -> Iterator[Rename]:
    """The former names in a dotted path, such as the path of an override."""
    keys = path.split(".")
    for i, (key, current) in enumerate(zip(keys, current_keys(keys, kind), strict=True)):
        if key != current:
            yield Rename(".".join(keys[: i + 1]), str(current))


def places_of(name: str, kind: Any) -> Iterator[str]:
    """The paths of all fields in a section that are called so; of lists, in the first item."""
    for part in alternatives(kind):
        if get_origin(part) is tuple:
            yield from (f"0.{place}" for place in places_of(name, get_args(part)[0]))
        for key, field in part.model_fields.items() if is_section(part) else ():
            current = field.alias or key
            if current == name:
                yield current
            yield from (f"{current}.{place}" for place in places_of(name, field.annotation))


def _find(section: type[BaseModel], key: Any) -> tuple[Any, FieldInfo | None]:
    """The current name and the field that a key means."""
    for name, field in section.model_fields.items():
        current = field.alias or name
        if key == current or key in former_names(field):
            return current, field
    return key, None


def is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    """Whether an annotation is a section."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def alternatives(kind: Any) -> Iterator[Any]:
    """What a value of an annotation may be."""
    if get_origin(kind) is Annotated:
        yield from alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for part in get_args(kind):
            yield from alternatives(part)
    else:
        yield kind
