"""YAML that cannot become more than it is: aliases count as what they stand for, and so a page of them is refused."""

from typing import Any

from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_NODES = 50_000
"""Values of a document, with its aliases written out."""

_MAX_NUMBER_CHARS = {"tag:yaml.org,2002:int": 20, "tag:yaml.org,2002:float": 400}
"""A longer one is no number that anybody means; it takes time to read, and no float is so large."""


class BoundedComposer(Composer):
    """Makes nodes of a text, with a limit on what aliases make of it."""

    def __init__(self, loader: Any = None) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False  # an anchor may stand for something else from some line on
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node:
        """The next node, when it and all that is in it is counted."""
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
        if id(inner) not in self._sizes:  # it is not finished: `outer` lies in it
            raise ComposerError(None, None, "an alias stands for what it is in", outer.start_mark)
        return self._sizes[id(inner)]


def _inner_nodes(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []
