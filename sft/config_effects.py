"""What a field of the config changes, said at the field: `Annotated[Path, Affects("nothing")]`.

A field without such a mark changes everything: one that is new, and that nobody has thought of here, makes another
token store rather than finding one that was made without it. Only what changes nothing may be another when a run that
has trained goes on.

    store      the examples themselves, and so all that is made from them
    plan       which examples are trained in which step, and so the numbers
    numbers    what is computed in a step
    nothing    how and where it is done
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

Effect = Literal["store", "plan", "numbers", "nothing"]


class _Never:
    """No value is this one."""


_NEVER: Final = _Never()


@dataclass(frozen=True, slots=True)
class Affects:
    """The first of what a field changes; all that follows changes with it."""

    first: Effect
    by_content: bool = False
    """It names what is read: the content that it leads to counts, not the name. Who reads it puts in a hash of it."""
    absent_at: Any = _NEVER
    """With this value, all is as it was before the field existed. A field that is added with it leaves what was made
    before as it is; without, everything is made again. It is not the default, which may change. Where the default is
    not how it was before, a record from then is read with this value (see `completed`)."""
    only_with: tuple[str, Any] | None = None
    """Another field of the section and its value: with others, this one is not read."""

    def is_input(self, value: Any, section: BaseModel) -> bool:
        """Whether the value of a field with this mark is one of the inputs by which what is made is told apart."""
        is_read = self.only_with is None or getattr(section, self.only_with[0]) == self.only_with[1]
        return is_read and not self.by_content and (self.absent_at is _NEVER or value != self.absent_at)


_EVERYTHING = Affects("store")


def affects(field: FieldInfo) -> Affects:
    """The mark of a field."""
    return next((mark for mark in field.metadata if isinstance(mark, Affects)), _EVERYTHING)


def store_inputs(section: BaseModel) -> dict[str, Any]:
    """All fields of a section, and of those in it, that change the token store, as plain values."""
    plain = section.model_dump(mode="json")
    inputs = {}
    for name, field in type(section).model_fields.items():
        value, mark = getattr(section, name), affects(field)
        if mark.first == "store" and mark.is_input(value, section):
            inputs[name] = _inner(value, plain[name])
    return inputs


def _inner(value: Any, plain: Any) -> Any:
    if isinstance(value, BaseModel):
        return store_inputs(value)
    if isinstance(value, tuple | list):
        return [_inner(item, plain_item) for item, plain_item in zip(value, plain, strict=True)]
    if isinstance(value, dict):
        return {key: _inner(item, plain[key]) for key, item in value.items()}
    return plain


def completed(section: BaseModel, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """What was recorded of a section, with the fields that the version which wrote it did not have.

    Args:
        section: the section as it is now; its fields count, and not their values.
        recorded: as plain values, by the names that the file has.
    """
    result = dict(recorded)
    for name, field in type(section).model_fields.items():
        key = field.alias or name
        if key in result:
            result[key] = _completed_inner(getattr(section, name), result[key])
        elif not field.is_required():
            before = affects(field).absent_at
            value = field.get_default(call_default_factory=True, validated_data=result) if before is _NEVER else before
            result[key] = to_jsonable_python(value, by_alias=True)
    return result


def _completed_inner(value: Any, recorded: Any) -> Any:
    if isinstance(value, BaseModel) and isinstance(recorded, Mapping):
        return completed(value, recorded)
    if isinstance(value, tuple) and isinstance(recorded, list):
        pairs = zip(value, recorded, strict=False)
        return [_completed_inner(*pair) for pair in pairs] + recorded[len(value) :]
    return recorded
