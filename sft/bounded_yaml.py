"""YAML that cannot become more than it is: aliases count as what they stand for, and so a page of them is refused."""

from typing import Any

import yaml
from yaml.constructor import ConstructorError

MAX_NODES = 50_000
"""Values of a document, with its aliases written out."""

_MAX_NUMBER_CHARS = {"tag:yaml.org,2002:int": 20, "tag:yaml.org,2002:float": 400}
"""A longer one is no number that anybody means; it takes time to read, and no float is so large."""


class BoundedLoader(yaml.SafeLoader):
    """YAML's safe loader, with a limit on what aliases make of a text."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node, when it and all that is in it is counted."""
        node = super().compose_node(parent, index)
        if node is not None and id(node) not in self._sizes:
            self._sizes[id(node)] = size = 1 + sum(self._size_of(inner, node) for inner in _inner_nodes(node))
            if size > MAX_NODES:
                problem = f"with its aliases written out it has more than {MAX_NODES:,} values"
                raise ConstructorError(None, None, problem, node.start_mark)
        return node

    def _size_of(self, inner: yaml.Node, outer: yaml.Node) -> int:
        if id(inner) not in self._sizes:  # it is not finished: `outer` lies in it
            raise ConstructorError(None, None, "an alias stands for what it is in", outer.start_mark)
        return self._sizes[id(inner)]

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        """The text of a scalar; of a number only if it is not too long."""
        if len(node.value) > _MAX_NUMBER_CHARS.get(node.tag, len(node.value)):
            raise ConstructorError(None, None, f"a number of {len(node.value):,} digits", node.start_mark)
        return super().construct_scalar(node)


def _inner_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
