"""A chat template that always ends: Jinja as transformers sets it up, with every step counted (`template_budget`).

Loops, macros and what the template builds charge in its tree (`template_charges`). Filters, calls, operators that
repeat, and the joining of texts charge in the environment. The rendered text is unchanged.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from transformers.utils.chat_template_utils import _compile_jinja_template

from sft.data.rendering.quick_lookups import add_quick_lookups
from sft.data.rendering.template_budget import (
    BudgetExceededError,
    begin_budget,
    charge,
    charge_built,
    charge_format,
    charge_items,
    charge_result,
    multiply,
    raise_power,
    remainder,
    size,
    text_size,
)
from sft.data.rendering.template_charges import (
    BUILT,
    LOOP,
    MADE,
    OPERATORS,
    SHRINKING_METHODS,
    STEPS,
    TEXT,
    insert_charges,
)
from sft.errors import UserError

MAX_CHARS = 200_000
"""Of a template. The largest in use have about ten thousand."""

MAX_NODES = 20_000
"""Of a template's tree. The largest in use have a few thousand."""

_SCOPES = ("_loop_vars", "_block_vars")
"""Names under which a call receives the variables around it."""

_SMALL = 1024
"""Texts of fewer characters are not charged: the step of their node pays for them."""


class _Environment(ImmutableSandboxedEnvironment):
    """The environment of transformers, with its filters and tags, in which every filter and call charges."""

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        if sum(1 for _ in source.find_all(nodes.Node)) > MAX_NODES:
            raise BudgetExceededError
        insert_charges(source, self)
        return super()._generate(source, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        format_values = wrapped

        @functools.wraps(wrapped)
        def bounded(*args: Any, **kwargs: Any) -> str:
            named = kwargs or (args[0] if args and isinstance(args[0], Mapping) else {})
            charge_format(value.__self__, [*args, *named.values()])
            return cast(str, charge_result(format_values(*args, **kwargs)))

        return bounded

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        owner = getattr(__obj, "__self__", None)
        if (type(owner) is str and len(owner) < _SMALL or type(owner) is dict) and __obj.__name__ in SHRINKING_METHODS:
            for name in _SCOPES:
                kwargs.pop(name, None)
            return __obj(*args, **kwargs)  # Jinja would first check whether it is safe, and what it wants passed
        if not isinstance(__obj, Macro):
            named = [value for name, value in kwargs.items() if name not in _SCOPES]
            if isinstance(owner, str | bytes | int):
                args = _charge_method(owner, __obj.__name__, args, named)
            elif args or named:
                _charge_arguments(size(args[0]) if args else 1, (*args, *named))
        return charge_result(super().call(__context, __obj, *args, **kwargs))

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the output, charged."""
        parts = list(parts)
        charge(sum(map(len, parts)))
        return "".join(parts)


def compile_template(source: str, name: str) -> Callable[[Mapping[str, Any]], str]:
    """A function from a template's variables to its text.

    The function raises `UserError` where the template does more than it may, and any error of the template's own code.

    Args:
        source: the template.
        name: the name of the template in messages.

    Raises:
        UserError: it is not a template, or too large.
    """
    if len(source) > MAX_CHARS:
        raise UserError(f"{name} has {len(source):,} characters; needed: one with at most {MAX_CHARS:,}")
    try:
        begin_budget()  # constants are evaluated when it is compiled
        template = _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(f"{name}: line {error.lineno}: {error.message}") from None
    except (RecursionError, SyntaxError, MemoryError, BudgetExceededError):
        raise UserError(f"{name} cannot be compiled: it is nested too deeply, or too large. Choose another.") from None

    def render(told: Mapping[str, Any]) -> str:
        begin_budget(told)
        try:
            return template.render(told)
        except RecursionError:
            raise jinja2.TemplateRuntimeError("it calls itself without end") from None
        except (BudgetExceededError, MemoryError):
            raise UserError(
                f"{name} was stopped: for a conversation of about {text_size(told):,} characters its text or a "
                "loop in it would not end. Choose another template with model.chat_template."
            ) from None

    return render


@functools.cache
def _environment() -> _Environment:
    theirs = _compile_jinja_template("").environment
    ours = object.__new__(_Environment)
    ours.__dict__.update(theirs.__dict__, cache=None, shared=False)
    ours.filters = {
        name: own if name in _FREE_FILTERS else _bounded_filter(name, own) for name, own in theirs.filters.items()
    }
    ours.filters |= {LOOP: _charge_loop, BUILT: _charge_built, MADE: _charge_made, TEXT: _charge_text}
    operators = {nodes.Mul: multiply, nodes.Pow: raise_power, nodes.Mod: remainder}
    ours.filters |= {STEPS: _charge_steps} | {OPERATORS[kind]: _at_run_time(own) for kind, own in operators.items()}
    ours.globals = {name: own for name, own in theirs.globals.items() if name != "lipsum"}
    ours.extensions = {name: extension.bind(ours) for name, extension in theirs.extensions.items()}
    add_quick_lookups(ours)
    return ours


def _at_run_time(own: Callable[..., Any]) -> Callable[..., Any]:
    @jinja2.pass_context
    def bounded(context: Context, *args: Any) -> Any:
        return own(*args)

    return bounded


# With the context as an argument, none of these is evaluated when the template is compiled.


@jinja2.pass_context
def _charge_loop(context: Context, iterable: Any, steps_per_item: int) -> Any:
    return charge_items(iterable, steps_per_item)


@jinja2.pass_context
def _charge_built(context: Context, value: Any) -> Any:
    return charge_built(value)


@jinja2.pass_context
def _charge_made(context: Context, value: Any) -> Any:
    if type(value) is str and len(value) < _SMALL:
        return value
    return charge_result(value)


@jinja2.pass_context
def _charge_text(context: Context, value: Any) -> str:
    if type(value) is str and len(value) < _SMALL:
        return value
    text = str(charge_built(value))
    charge(len(text))
    return text


@jinja2.pass_context
def _charge_steps(context: Context, num_steps: int) -> None:
    charge(num_steps)


def _charge_arguments(times: int, arguments: Iterable[Any]) -> None:
    """An argument of a filter or a function may appear in its result once for each element that it works on."""
    for argument in arguments:
        if isinstance(argument, list | tuple | dict | Namespace):
            charge_built(argument)
            charge(times * size(argument))
        elif isinstance(argument, int) and abs(argument) > 1:
            charge(abs(argument))


def _charge_method(owner: Any, name: str, args: tuple[Any, ...], named: Sequence[Any]) -> tuple[Any, ...]:
    """Charge what a method of a text or a number makes; returns its arguments, with a consumed iterator replaced."""
    charge(size(owner))
    given = (*args, *named)
    match name, given:
        case "join", (items, *_):
            items = list(charge_items(items, 1))
            charge(sum(map(size, items)) + size(owner) * len(items))
            return (items,)
        case "replace", (str() | bytes() as old, str() | bytes() as new, *_):
            charge(_num_occurrences(owner, old) * len(new))
        case "expandtabs", _:
            charge(owner.count("\t" if isinstance(owner, str) else b"\t") * max([8, *map(_number, given)]))
        case "translate", (table, *_):
            values = table.values() if isinstance(table, Mapping) else table if isinstance(table, list | tuple) else ()
            charge(size(owner) * max(map(size, values), default=1))
        case _:
            charge(sum(map(_number, given)))
    return args


def _num_occurrences(text: Any, old: Any) -> int:
    return len(text) + 1 if not old else int(text.count(old)) if type(text) is type(old) else 0


def _number(value: Any) -> int:
    return abs(value) if isinstance(value, int) else 0


def _bounded_filter(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    charge_more = _FILTERS.get(name)

    def charge_all(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        num_items = size(value)
        charge(num_items)
        if args or kwargs:
            _charge_arguments(num_items, (*args, *kwargs.values()))
        return value if charge_more is None else charge_more(value, args, kwargs)

    if hasattr(own, "jinja_pass_arg"):

        @functools.wraps(own)
        def bounded(context: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            value = charge_all(value, args, kwargs)
            return charge_result(own(context, value, *args, **kwargs))

        return bounded

    @functools.wraps(own)
    def bounded_alone(value: Any, *args: Any, **kwargs: Any) -> Any:
        if type(value) is str and len(value) < _SMALL and not args and not kwargs:
            return own(value)
        value = charge_all(value, args, kwargs)
        return charge_result(own(value, *args, **kwargs))

    return bounded_alone


def _charge_replace(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value, (old, new, *_) = str(value), (*args, *(kwargs.get(key, "") for key in ("old", "new")), "", "")
    charge(_num_occurrences(value, str(old)) * len(str(new)))
    return value


def _charge_join(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = list(charge_items(value, 1))
    separator = args[0] if args else kwargs.get("d", "")
    charge(sum(map(size, value)) + size(separator) * len(value))
    return value


def _charge_indent(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    width = args[0] if args else kwargs.get("width", 4)
    charge((str(value).count("\n") + 1) * (len(width) if isinstance(width, str) else max(_number(width), 1)))
    return value


def _charge_format_filter(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    charge_format(str(value), [*args, *kwargs.values()])
    return value


def _charge_json(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    between = [a for a in (*args, *kwargs.values()) if isinstance(a, int | str | list | tuple) and a is not True]
    width = sum(sum(map(size, a)) if isinstance(a, list | tuple) else size(a) + _number(a) for a in between)
    if width > 64:  # of an indentation, once for each level at each value
        charge(text_size(value) * width)
    return value


def _charge_sum(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    value = list(charge_items(value, 1))
    charge(sum(map(size, value)) * max(len(value), 1))
    return value


def _charge_square(value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    charge(size(value) ** 2 // 100)
    return value


_FREE_FILTERS = {"length", "count", "first", "default", "d", "attr", "abs"}

_FILTERS: dict[str, Callable[[Any, tuple[Any, ...], Mapping[str, Any]], Any]] = {
    "replace": _charge_replace,
    "join": _charge_join,
    "indent": _charge_indent,
    "format": _charge_format_filter,
    "tojson": _charge_json,
    "sum": _charge_sum,
    "striptags": _charge_square,
    "urlize": _charge_square,
    "wordwrap": _charge_square,
}
"""Filters whose result, or whose work, may be much larger than their input."""
