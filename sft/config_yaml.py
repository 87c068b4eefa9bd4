"""Reads YAML as people mean it: where YAML would take it for something else, it is said so, or read as it is meant."""

import re
from typing import Any

import yaml

from sft.bounded_yaml import BoundedLoader
from sft.errors import UserError

_TAG = "tag:yaml.org,2002:"
_KINDS = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}
"""What YAML takes a plain word for that is no text."""
_WITH_TEXT = {"path", "dir", "cache_dir", "staging_dir", "tokenizer", "chat_template", "text"}
"""Fields whose value may well have a ` #` in it."""
_BEHIND_HASH = "what is behind the # is a comment to YAML: put the whole value in quotes"


def parse_yaml(text: str, origin: str, is_field: bool = False) -> Any:
    """The value, made of mappings, lists and scalars, none of which is in two places.

    Args:
        text: what is read.
        origin: begins the message of an error.
        is_field: the text is the value of one field, where a comment makes no sense.

    Raises:
        UserError: it cannot be read, or would not be read as it is meant.
    """
    try:
        if is_field and text.strip() and _is_cut_off(yaml.compose(text, _Loader)):
            raise _TrapError(None, None, _BEHIND_HASH)
        # Copied, because an anchor and its aliases are one object, and a change of one would change all.
        return _copy(yaml.load(text, _Loader))
    except _TrapError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark and not is_field else ""
        raise UserError(f"{origin}:{line} {error.problem}") from None
    except RecursionError:
        raise UserError(f"{origin}: this is not YAML: it is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, such as 2024-13-45
        # Of a field there is one line to look at; where in it says nothing more.
        problem = (error.problem if is_field and isinstance(error, yaml.MarkedYAMLError) else None) or str(error)
        what = "the value" if is_field else "this"
        raise UserError(f"{origin}: {what} is not YAML: {' '.join(problem.split())}") from None


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


class _TrapError(yaml.constructor.ConstructorError):
    """It is YAML, but most likely not what was meant."""


class _Loader(BoundedLoader):
    """YAML's safe loader, without its traps.

    Errors are: a key that stands twice, of which the first would be lost unseen; a key that is no text, such as `no:`;
    a number with a zero in front; a path that a ` #` cuts off. As in YAML 1.2, 5e8 is a number, and 12:30 a text.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are texts, each once."""
        seen = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise _trap(node, f"{key.value!r} is there twice")
            seen.add(key.value)
            if kind := _KINDS.get(key.tag.removeprefix(_TAG)):
                raise _trap(key, f'the key {key.value} is {kind} to YAML: write "{key.value}", in quotes')
            if key.value in _WITH_TEXT and _is_cut_off(value):
                raise _trap(value, _BEHIND_HASH)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """A number, or the text where YAML would count to the base of 60."""
        text = str(self.construct_scalar(node))
        if ":" in text:
            return text
        if re.fullmatch(r"[-+]?0[0-7_]+", text):
            raise _trap(
                node,
                f"{text} is {int(text.replace('_', ''), 8)} to YAML 1.1 and {int(text.replace('_', ''))} to YAML 1.2: "
                f'write the number that is meant without a 0 in front, or "{text}" if it is text',
            )
        return self.construct_yaml_int(node) if node.tag == f"{_TAG}int" else self.construct_yaml_float(node)


_Loader.add_constructor(f"{_TAG}int", _Loader.construct_number)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_number)
_FLOAT = re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789"))


def _trap(node: yaml.Node, message: str) -> _TrapError:
    return _TrapError(None, None, message, node.start_mark)


def _is_cut_off(node: yaml.Node | None) -> bool:
    """Whether a comment that begins like a word follows a plain scalar, or stands in its place."""
    if node is None:
        return True  # nothing but a comment
    mark = node.end_mark
    behind = mark.buffer[mark.pointer : mark.pointer + 99] if mark.buffer else ""
    is_plain = isinstance(node, yaml.ScalarNode) and node.style is None
    return is_plain and re.match(r"[ \t]+#[^\s#]", behind) is not None
