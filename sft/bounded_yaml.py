"""YAML of bounded size: each alias counts as the values it stands for, so a page full of aliases is refused."""

from typing import Any

from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_NODES = 50_000
"""The most values of a document, with its aliases written out."""

_MAX_NUMBER_CHARS = {"tag:yaml.org,2002:int": 20, "tag:yaml.org,2002:float": 400}
"""Nobody writes a longer number on purpose; it takes time to read, and no float is so large."""


class BoundedComposer(Composer):
    """Makes nodes from a text, and limits how far aliases expand it."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False  # an anchor may be defined again further down
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        """The next node, after it and everything in it is counted."""
        node: Node = super().compose_node(parent, index)
        if id(node) not in self._sizes:
            self._sizes[id(node)] = size = 1 + sum(self._size_of(inner, node) for inner in _inner_nodes(node))
            if size > MAX_NODES:
                raise ComposerError(
                    None, None, f"with its aliases written out it has more than {MAX_NODES:,} values", node.start_mark
                )
            if isinstance(node, ScalarNode) and len(node.value) > _MAX_NUMBER_CHARS.get(str(node.tag), len(node.value)):
                raise ComposerError(None, None, f"a number of {len(node.value):,} digits", node.start_mark)
        return node

    def _size_of(self, inner: Node, outer: Node) -> int:
        if id(inner) not in self._sizes:  # it is not complete: `outer` lies in it
            raise ComposerError(None, None, "an alias stands for a value that contains it", outer.start_mark)
        return self._sizes[id(inner)]


def _inner_nodes(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []
