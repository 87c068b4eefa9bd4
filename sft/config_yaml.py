"""Reads YAML 1.2 with the line of each value, and refuses traps; writes YAML that every version reads the same way."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from sft.bounded_yaml import BoundedComposer
from sft.errors import UserError

Place = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

_TAG = "tag:yaml.org,2002:"
_KINDS = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}
"""How YAML reads a plain word that is not text."""
_WITH_TEXT = {"path", "dir", "cache_dir", "staging_dir", "tokenizer", "chat_template", "text"}
"""Fields whose value may contain ` #`."""
_BEHIND_HASH = "for YAML, everything after the # is a comment: put the whole value in quotes"


class Document(NamedTuple):
    """The content of a text: mappings, lists and scalars, none of which is in two places."""

    content: Any
    lines: Mapping[Place, int]
    """The line of each key and of each item of a list; the first line is 1."""


def parse_yaml(text: str, origin: str, is_field: bool = False) -> Document:
    """The content of a text in YAML 1.2.

    Args:
        text: the text to read.
        origin: begins the message of an error.
        is_field: the text is the value of one field, where a comment makes no sense.

    Raises:
        UserError: it cannot be read, or would be read differently than it is meant: a key that is there twice, one of
            which would be lost silently; a key that is not text, such as `2024:`; a number with a leading zero; a path
            that a ` #` cuts off.
    """
    reader = YAML(typ="safe", pure=True)
    reader.Composer = _Composer
    try:
        node = reader.compose(text)
        if is_field and text.strip() and _is_cut_off(node):
            raise _TrapError(None, None, _BEHIND_HASH)
        if node is None:
            return Document(None, {})
        # Copied, because an anchor and its aliases are the same object: a change of one would change all.
        content = _copy(reader.constructor.construct_document(node))
        return Document(content, dict(_lines(node)))
    except RecursionError:
        raise UserError(f"{origin}: this is not YAML: it is nested too deeply") from None
    except (YAMLError, ValueError) as error:  # ValueError: an impossible date, such as 2024-13-45
        mark = getattr(error, "problem_mark", None)
        # The value of a field is one line, so a line number says nothing.
        line = f" line {mark.line + 1}:" if mark and not is_field else ""
        problem = (error.problem if isinstance(error, MarkedYAMLError) else None) or str(error)
        what = "" if isinstance(error, _TrapError) else f" {'the value' if is_field else 'this'} is not YAML:"
        raise UserError(f"{origin}:{line}{what} {' '.join(str(problem).split())}") from None


def write_yaml(content: Any) -> str:
    """A text that every version of YAML reads as this content. Keys keep their order."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _TrapError(MarkedYAMLError):
    """Valid YAML, but most likely not what was meant."""


class _Composer(BoundedComposer):
    """Refuses what YAML would read differently than it was meant."""

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """A mapping whose keys are texts, each once."""
        node: MappingNode = super().compose_mapping_node(anchor)
        seen = set()
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise _trap(key, "a key must be a text, not a list or a mapping")
            if key.value in seen:
                raise _trap(key, f"{key.value!r} is there twice")
            seen.add(key.value)
            if kind := _KINDS.get(str(key.tag).removeprefix(_TAG)):
                raise _trap(key, f'YAML reads the key {key.value} as {kind}: write "{key.value}", in quotes')
            if key.value in _WITH_TEXT and _is_cut_off(value, key):
                raise _trap(value, _BEHIND_HASH)
        return node

    def compose_scalar_node(self, anchor: Any) -> ScalarNode:
        """A scalar. A number must be the same in every version of YAML."""
        node: ScalarNode = super().compose_scalar_node(anchor)
        digits = node.value.replace("_", "")
        if node.tag == f"{_TAG}int" and re.fullmatch(r"[-+]?0[0-9]+", digits):
            of_old = int(digits, 8) if not set("89") & set(digits) else "a text"
            raise _trap(
                node,
                f"{node.value} is {of_old} in YAML 1.1 and {int(digits)} in YAML 1.2: write the number "
                f'without a leading 0, or "{node.value}" if it is text',
            )
        return node


def _trap(node: Node, message: str) -> _TrapError:
    return _TrapError(None, None, message, node.start_mark)


def _is_cut_off(node: Node | None, key: Node | None = None) -> bool:
    """Whether a comment that begins like a word follows a plain scalar, or replaces the value after the key."""
    if node is None:
        return True  # nothing but a comment
    if not isinstance(node, ScalarNode) or node.style is not None:
        return False
    is_empty = key is not None and not node.value
    mark = key.end_mark if key is not None and is_empty else node.end_mark
    behind = mark.buffer[mark.pointer : mark.pointer + 99]
    return re.match(r"[ \t]*:[ \t]+#[^\s#]" if is_empty else r"[ \t]+#[^\s#]", behind) is not None


def _copy(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _copy(value) for key, value in node.items()}
    return [_copy(value) for value in node] if isinstance(node, list) else node


def _lines(node: Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """The lines in a constructed node, which includes what was merged into its mappings."""
    if isinstance(node, MappingNode):
        parts: list[tuple[Any, Node, Node]] = [(key.value, key, value) for key, value in node.value]
    else:
        parts = [(i, item, item) for i, item in enumerate(node.value)] if isinstance(node, SequenceNode) else []
    for key, at, value in parts:
        if isinstance(key, str | int):
            yield (*place, key), at.start_mark.line + 1
            yield from _lines(value, (*place, key))


class _Dumper(yaml.SafeDumper):
    """Quotes what only some versions of YAML read as text, and Unicode line breaks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    is_number = _NUMBER_OF_1_2.fullmatch(text) or any(char in text for char in "\x85\u2028\u2029")
    return dumper.represent_scalar(f"{_TAG}str", text, style='"' if is_number else None)


_NUMBER_OF_1_2 = re.compile(
    r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]+)?|[-+]?\.[0-9_]+([eE][-+]?[0-9]+)?|0o[0-7_]+"
)
"""The dumper writes YAML 1.1, which reads some of these as text."""
_Dumper.add_representer(str, _represent_text)
