"""What a field of the config affects, marked at the field: `overlong: AffectsStore[Literal["drop", "error"]] = "drop"`.

Every field has one such mark, except a field that is a section: the fields in it have theirs. `sft.config_section`
refuses a section with an unmarked field. The marks determine the fingerprint of the token store, the inputs of the
plans, what may change when a run that has trained goes on, and the tables of docs/CONFIG.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from sft.config_names import first_name, former_names

Effect = Literal[
    "store", "split", "plan", "budget", "rate", "numbers", "checkpoints", "measured", "asked", "ends", "nothing"
]


class Meaning(NamedTuple):
    """What an effect is, and whether a field with it may change when a run that has trained goes on."""

    text: str
    on_resume: str


EFFECTS: Final[Mapping[Effect, Meaning]] = {
    "store": Meaning("the examples, and so everything that is made from them", "no"),
    "split": Meaning("which examples are held out or drawn, and so all plans", "no"),
    "plan": Meaning("which examples are trained in which step", "no"),
    "budget": Meaning("when a stage ends", "more, for the last stage that has begun"),
    "rate": Meaning("the learning rate of a step", "for what more budget adds"),
    "numbers": Meaning("what a step computes", "no"),
    "checkpoints": Meaning("which checkpoints the run goes on from", "no"),
    "measured": Meaning("which held-out examples are measured", "yes"),
    "asked": Meaning("which prompts the model answers, and how answers are scored", "yes"),
    "ends": Meaning("whether a stage ends before its budget does", "yes"),
    "nothing": Meaning("how and where the run is done, but not its result", "yes"),
}
"""Each effect includes those that follow from it: another store is another plan, and another plan other numbers."""


class _Never:
    """No value is this one."""


_NEVER: Final = _Never()


@dataclass(frozen=True, slots=True)
class Affects:
    """The first thing that a field changes; what follows from it changes, too."""

    first: Effect
    by_content: bool = False
    """The field names what is read or made: the content counts, not the name. Whoever reads it adds the content to the
    inputs."""
    held_by_plan: bool = False
    """What the field resolves to is in the inputs of the plans, so that it may be written differently on a resume."""
    absent_at: Any = _NEVER
    """With this value, the result is as it was before the field existed. A new field that has it leaves earlier stores
    and plans valid; without it, everything is made again. It need not be the default, which may change. If the default
    differs, a record from before the field is read with this value (see `completed`)."""
    only_with: tuple[str, Any] | None = None
    """Another field of the section and its value: with other values, this field is not read."""

    @property
    def may_change(self) -> bool:
        """Whether the value may change when a run that has trained goes on."""
        return self.held_by_plan or EFFECTS[self.first].on_resume == "yes"

    def is_in_store(self, value: Any, section: BaseModel) -> bool:
        """Whether the value of a field with this mark is one of the inputs that identify a token store."""
        is_read = self.only_with is None or getattr(section, self.only_with[0]) == self.only_with[1]
        return self.first == "store" and is_read and not self.by_content and value != self.absent_at


T = TypeVar("T")
AffectsStore = Annotated[T, Affects("store")]
AffectsSplit = Annotated[T, Affects("split")]
AffectsPlan = Annotated[T, Affects("plan")]
AffectsBudget = Annotated[T, Affects("budget")]
AffectsRate = Annotated[T, Affects("rate")]
AffectsNumbers = Annotated[T, Affects("numbers")]
AffectsCheckpoints = Annotated[T, Affects("checkpoints")]
AffectsMeasured = Annotated[T, Affects("measured")]
AffectsAsked = Annotated[T, Affects("asked")]
AffectsEnds = Annotated[T, Affects("ends")]
AffectsNothing = Annotated[T, Affects("nothing")]


def holds_sections(field: FieldInfo) -> bool:
    """Whether a field holds only one or more sections, whose own fields say what they affect."""
    kinds = [kind for kind in get_args(field.annotation) or [field.annotation] if kind is not Ellipsis]
    return all(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds)


def affects(field: FieldInfo) -> Affects | None:
    """The mark of a field; None for a field that is a section."""
    return next((mark for mark in field.metadata if isinstance(mark, Affects)), None)


def check_marks(section: type[BaseModel]) -> None:
    """Check the marks of a section.

    Raises:
        TypeError: a field does not say what it affects, or says it although its own fields do.
    """
    for name, field in section.model_fields.items():
        num_marks = sum(isinstance(mark, Affects) for mark in field.metadata)
        if num_marks != (0 if holds_sections(field) else 1):
            raise TypeError(
                f"{section.__name__}.{name} has {num_marks} marks. A field says once what it affects, such as "
                "AffectsNothing[int] (see sft.config_effects); a field that is a section leaves that to its fields."
            )


def store_inputs(section: BaseModel) -> dict[str, Any]:
    """All fields of a section, and of those in it, that change the token store, as plain values.

    They keep their first names, so that a store is still found after a field was renamed.
    """
    plain = section.model_dump(mode="json")
    inputs = {}
    for name, field in type(section).model_fields.items():
        value, mark = getattr(section, name), affects(field)
        inner = _inner(value, plain[name])
        if mark.is_in_store(value, section) if mark else inner:
            inputs[first_name(name, field)] = inner
    return inputs


def _inner(value: Any, plain: Any) -> Any:
    if isinstance(value, BaseModel):
        return store_inputs(value)
    if isinstance(value, tuple | list):
        return [_inner(item, plain_item) for item, plain_item in zip(value, plain, strict=True)]
    if isinstance(value, dict):
        return {key: _inner(item, plain[key]) for key, item in value.items()}
    return plain


def as_written(section: BaseModel, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded inputs of a store, updated with what the section says now.

    What the config alone does not say stays as it was recorded: contents, and what was found in them.
    """
    marks = {first_name(name, field): affects(field) for name, field in type(section).model_fields.items()}
    told = {name for name, mark in marks.items() if mark and not mark.by_content and not mark.held_by_plan}
    kept = {name: value for name, value in recorded.items() if name not in told}
    return kept | {name: value for name, value in store_inputs(section).items() if name in told}


def inputs_of(section: BaseModel, *effects: Effect) -> dict[str, Any]:
    """The fields of a section, and of the sections in it, that have one of these effects, as plain values.

    Without fields that count by their content.
    """
    plain = section.model_dump(mode="json")
    inputs = {}
    for name, field in type(section).model_fields.items():
        value, mark = getattr(section, name), affects(field)
        if mark is not None and mark.first in effects and not mark.by_content:
            inputs[name] = plain[name]
        elif mark is None and isinstance(value, BaseModel) and (inner := inputs_of(value, *effects)):
            inputs[name] = inner
    return inputs


def sections_of(section: BaseModel) -> Iterator[BaseModel]:
    """The sections that a section holds one by one, such as `data` of the config, but not `stages`."""
    return (value for _, value in section if isinstance(value, BaseModel))


def completed(section: BaseModel, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded section as this version would record it: with current names, and with its new fields.

    Args:
        section: the section as it is now; its fields count, not their values.
        recorded: plain values, by the names that the file had.
    """
    result = dict(recorded)
    for name, field in type(section).model_fields.items():
        key = field.alias or name
        for former in former_names(field):
            if former in result and key not in result:
                result[key] = result.pop(former)
        if key in result:
            result[key] = _completed_inner(getattr(section, name), result[key])
        elif not field.is_required():
            mark = affects(field)
            value = mark.absent_at if mark else _NEVER
            if value is _NEVER:
                value = field.get_default(call_default_factory=True, validated_data=result)
            result[key] = to_jsonable_python(value, by_alias=True)
    return result


def _completed_inner(value: Any, recorded: Any) -> Any:
    if isinstance(value, BaseModel) and isinstance(recorded, Mapping):
        return completed(value, recorded)
    if isinstance(value, tuple) and isinstance(recorded, list):
        pairs = zip(value, recorded, strict=False)
        return [_completed_inner(*pair) for pair in pairs] + recorded[len(value) :]
    return recorded
