"""Which fields of a config name a file or a folder, said at the field: `dir: AffectsNothing[Annotated[Path, WRITTEN]]`.

From the marks come the paths that are made absolute, those whose home folder must be known, those that a job elsewhere
has to be given in full, the folders that all its machines have to see, and which fields may not be blank.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel
from pydantic.fields import FieldInfo

HubKind = Literal["model", "dataset"]


@dataclass(frozen=True, slots=True)
class NamesPath:
    """What a field names; on this machine, unless it says otherwise."""

    hub: HubKind | None = None
    """It may be the id of one on the Hub instead."""
    is_written: bool = False
    """It is a folder that a run writes to, and that all its machines see."""
    is_of_nodes: bool = False
    """It is looked for on each node, and means something only there."""
    as_path: Callable[[str], str | None] = str
    """The path in a value; None where the value is none."""


WRITTEN = NamesPath(is_written=True)


class NamedPath(NamedTuple):
    """A path that a config names."""

    keys: tuple[str | int, ...]
    """Where it stands; items of lists go by number."""
    field: str
    """The same in words; items of lists go by name."""
    path: str
    mark: NamesPath


def path_mark(field: FieldInfo) -> NamesPath | None:
    """The mark of a field; None of one that names no path."""
    return next((mark for mark in field.metadata if isinstance(mark, NamesPath)), None)


def named_paths(section: BaseModel) -> Iterator[NamedPath]:
    """All paths that are named in a section and in those in it, but for those of the nodes; as they are given."""

    def of(node: BaseModel, keys: tuple[str | int, ...], place: str) -> Iterator[NamedPath]:
        for name, info in type(node).model_fields.items():
            value, mark, key = getattr(node, name), path_mark(info), info.alias or name
            if mark is not None and not mark.is_of_nodes and value is not None:
                path = mark.as_path(str(value))
                if path is not None:
                    yield NamedPath((*keys, key), f"{place}{key}", path, mark)
            elif isinstance(value, BaseModel):
                yield from of(value, (*keys, key), f"{place}{key}.")
            elif isinstance(value, tuple):
                for i, item in enumerate(value):
                    if isinstance(item, BaseModel):
                        yield from of(item, (*keys, key, i), f"{place}{key}.{getattr(item, 'name', i)}.")

    return of(section, (), "")


S = TypeVar("S", bound=BaseModel)


def with_paths(section: S, paths: Mapping[tuple[str | int, ...], str]) -> S:
    """The section with other paths at these keys."""

    def changed(node: Any, keys: tuple[str | int, ...]) -> Any:
        if isinstance(node, tuple):
            return tuple(changed(item, (*keys, i)) for i, item in enumerate(node))
        if not isinstance(node, BaseModel):
            return node
        update = {}
        for name, info in type(node).model_fields.items():
            here, value = (*keys, info.alias or name), getattr(node, name)
            update[name] = type(value)(paths[here]) if here in paths else changed(value, here)
        return node.model_copy(update=update)

    result: S = changed(section, ())
    return result
