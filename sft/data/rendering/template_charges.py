"""Inserts charges into the tree of a chat template before it is compiled; works on the tree alone.

A loop charges for the nodes of its body, once for each item, before it begins; a macro charges for its own nodes when
it is called. Output is charged when it is joined. So a sum needs a charge of its own only where its result is kept, or
where it is made from something that the template built:

    {{ '<|im_start|>' + message.role }}     no charge: it is in proportion to the conversation, and is output
    {% set text = text + text %}            charged: the text doubles each time

`is_plain` says which expressions are no larger than a part of the conversation.
"""

from collections.abc import Iterator
from typing import Any

from jinja2 import nodes

# Names of filters. A name with a space cannot be written in a template.
LOOP, BUILT, MADE, TEXT, STEPS = "a loop", "a container", "what was made", "a text", "some steps"
OPERATORS: dict[type[nodes.BinExpr], str] = {nodes.Mul: "times", nodes.Pow: "to the power", nodes.Mod: "formats"}
OPERATORS = {kind: f"{name}, with its charge" for kind, name in OPERATORS.items()}
"""The filters that replace these operators, whose results may be much larger than their operands."""

_MAX_TERMS = 16
"""A sum of more terms charges at each plus."""

_MAX_ROUNDS = 20
"""How many rounds follow which names are made from which; after that every assigned name counts as built."""

_CHARS_A_STEP = 16
_STEPS_OF_CALL = 50

_SHRINKING_FILTERS = {
    *("trim", "length", "count", "first", "last", "upper", "lower", "capitalize", "title", "string", "safe", "int"),
    *("list", "items", "default", "d", "selectattr", "rejectattr", "select", "reject", "reverse", "sort"),
}
SHRINKING_METHODS = frozenset(
    {
        *("strip", "lstrip", "rstrip", "split", "rsplit", "splitlines", "partition", "rpartition"),
        *("startswith", "endswith", "find", "rfind", "index", "count", "removeprefix", "removesuffix"),
        *("upper", "lower", "title", "capitalize", "isdigit", "isspace", "get", "items", "keys", "values"),
    }
)
"""Methods of texts and mappings whose results are no larger than the object that they are called on."""


def insert_charges(template: nodes.Template, environment: Any) -> None:
    """Change the tree so that the filters of these names charge for what it does."""
    _Charges(template, environment).change(template)


class _Charges:
    def __init__(self, template: nodes.Template, environment: Any) -> None:
        self._environment = environment
        self._built = _find_built(template)

    def change(self, node: Any) -> Any:
        """The node with charges in it, or around it."""
        if isinstance(node, nodes.Output):
            node.nodes = [self._written(child) for child in node.nodes]
            return node
        if isinstance(node, nodes.Add | nodes.Concat):
            return self._sum(node)
        self._change_inside(node)
        match node:
            case nodes.For():
                if node.recursive:
                    node.body.insert(0, self._steps(node))
                node.iter = self._charged(node.iter, LOOP, _weight(node))
            case nodes.Macro() | nodes.CallBlock() | nodes.Block():
                node.body.insert(0, self._steps(node, _STEPS_OF_CALL))
            case nodes.Getitem(arg=nodes.Slice()):
                return self._charged(node, MADE)
            case nodes.List() | nodes.Dict() | nodes.Tuple(ctx="load"):
                items = [item.value if isinstance(item, nodes.Pair) else item for item in node.items]
                return node if all(isinstance(item, nodes.Const) for item in items) else self._charged(node, BUILT)
            case nodes.Mul() | nodes.Pow() | nodes.Mod() if not _is_small(node):
                charged = nodes.Filter(node.left, OPERATORS[type(node)], [node.right], [], None, None)
                return charged.set_lineno(node.lineno).set_environment(self._environment)
            case nodes.Compare():
                sides: list[Any] = [node, *node.ops]
                for side in sides:
                    if not is_plain(side.expr, self._built):
                        side.expr = self._charged(side.expr, MADE)
            case nodes.Name(ctx="load", name="varargs" | "kwargs"):
                return self._charged(node, BUILT)
        return node

    def _change_inside(self, node: nodes.Node) -> None:
        for field, value in node.iter_fields():
            if isinstance(value, list):
                value[:] = [self.change(item) if isinstance(item, nodes.Node) else item for item in value]
            elif isinstance(value, nodes.Node):
                setattr(node, field, self.change(value))

    def _written(self, node: Any) -> Any:
        """An output expression; its text is charged when it is joined."""
        terms = list(_terms(node))
        is_text = isinstance(node, nodes.Add) and any(_is_text(term) for term in terms)
        if len(terms) <= _MAX_TERMS and (is_text or all(is_plain(term, self._built) for term in terms)):
            self._change_terms(node)
            return node
        return self._charged(self.change(node), TEXT)

    def _sum(self, node: Any) -> Any:
        terms = list(_terms(node))
        if any(map(_is_number, terms)):  # then all are numbers, or the sum fails
            self._change_inside(node)
            return node
        if len(terms) > _MAX_TERMS and isinstance(node, nodes.Add):
            self._change_inside(node)
        else:
            self._change_terms(node)
        return self._charged(node, MADE)

    def _change_terms(self, node: Any) -> None:
        if isinstance(node, nodes.Add):
            for side in ("left", "right"):
                term = getattr(node, side)
                if isinstance(term, nodes.Add | nodes.Concat):
                    self._change_terms(term)
                else:
                    setattr(node, side, self.change(term))
        elif isinstance(node, nodes.Concat):
            for i, term in enumerate(node.nodes):
                if isinstance(term, nodes.Add | nodes.Concat):
                    self._change_terms(term)
                else:
                    is_free = len(node.nodes) <= _MAX_TERMS and is_plain(term, self._built)
                    changed = self.change(term)
                    node.nodes[i] = changed if is_free else self._charged(changed, TEXT)
        else:
            self._change_inside(node)

    def _charged(self, node: Any, name: str, *numbers: int) -> nodes.Filter:
        arguments: list[nodes.Expr] = [nodes.Const(number, lineno=node.lineno) for number in numbers]
        charged = nodes.Filter(node, name, arguments, [], None, None, lineno=node.lineno)
        charged.set_environment(self._environment)
        return charged

    def _steps(self, node: nodes.Node, num_more: int = 0) -> nodes.ExprStmt:
        steps = self._charged(nodes.Const(_weight(node) + num_more, lineno=node.lineno), STEPS)
        statement = nodes.ExprStmt(steps, lineno=node.lineno)
        statement.set_environment(self._environment)
        return statement


def is_plain(node: Any, built: set[str]) -> bool:
    """Whether an expression yields a part of what the template was given, a constant, or something as large.

    Args:
        node: the expression.
        built: the names of values that the template built itself.
    """

    def plain(*inner: Any) -> bool:
        return all(is_plain(node, built) for node in inner if node is not None)

    if _is_number(node):
        return True
    match node:
        case nodes.Const() | nodes.TemplateData() | nodes.Compare() | nodes.Not() | nodes.Test():
            return True
        case nodes.List() | nodes.Tuple():
            return all(isinstance(item, nodes.Const) for item in node.items)
        case nodes.Name():
            return node.name not in built
        case nodes.Getattr() | nodes.Getitem():
            return plain(node.node)
        case nodes.CondExpr():
            return plain(node.expr1, node.expr2)
        case nodes.And() | nodes.Or():
            return plain(node.left, node.right)
        case nodes.Filter():
            return node.name in _SHRINKING_FILTERS and plain(node.node, *node.args)
        case nodes.Call(node=nodes.Getattr(node=owner, attr=attr)):
            return attr in SHRINKING_METHODS and plain(owner, *node.args)
        case nodes.Call(node=nodes.Name(name="namespace" | "range" | "strftime_now")):
            return plain(*node.args, *(keyword.value for keyword in node.kwargs))
    return False


def _find_built(template: nodes.Template) -> set[str]:
    """The names that stand, anywhere in the template, for a value that it built."""
    built = {"varargs", "kwargs", "caller", "self"}
    macros: Iterator[Any] = template.find_all((nodes.Macro, nodes.CallBlock))
    for macro in macros:
        built |= {argument.name for argument in macro.args} | {getattr(macro, "name", "caller")}
    built |= {name for block in template.find_all(nodes.AssignBlock) for name in _names(block.target)}
    given: list[tuple[set[str], Any]] = [
        *((set(_names(assign.target)), assign.node) for assign in template.find_all(nodes.Assign)),
        *((set(_names(loop.target)), loop.iter) for loop in template.find_all(nodes.For)),
        *(
            (set(_names(target)), v)
            for w in template.find_all(nodes.With)
            for target, v in zip(w.targets, w.values, strict=True)
        ),
    ]
    for _ in range(_MAX_ROUNDS):
        more = {name for names, value in given if not is_plain(value, built) for name in names} - built
        if not more:
            return built
        built |= more
    return built.union(*(names for names, _ in given))


def _names(target: nodes.Node) -> Iterator[str]:
    if isinstance(target, nodes.Name | nodes.NSRef):
        yield target.name
    yield from (inner.name for inner in target.find_all(nodes.Name))
    yield from (inner.name for inner in target.find_all(nodes.NSRef))


def _terms(node: Any) -> Iterator[Any]:
    """The terms that are added or concatenated in an expression."""
    pending = [node]
    while pending:
        term = pending.pop()
        if isinstance(term, nodes.Add):
            pending += (term.left, term.right)
        elif isinstance(term, nodes.Concat):
            pending += term.nodes
        else:
            yield term


def _is_number(node: Any) -> bool:
    """Whether an expression yields a number of a few digits, or fails."""
    match node:
        case nodes.Const():
            return isinstance(node.value, int | float) and abs(node.value) < 1e6
        case nodes.Sub() | nodes.Div() | nodes.FloorDiv() | nodes.Neg() | nodes.Pos():
            return True
        case nodes.Mod():
            return _is_number(node.left) and _is_number(node.right)
        case nodes.Getattr(node=nodes.Name(name="loop"), attr=attr):
            return attr in {"index", "index0", "revindex", "revindex0", "length", "depth"}
        case nodes.Filter():
            return node.name in {"length", "count"}
    return False


def _is_small(node: Any) -> bool:
    return not isinstance(node, nodes.Pow) and _is_number(node.left) and _is_number(node.right)


def _is_text(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) or (isinstance(node, nodes.Const) and isinstance(node.value, str))


def _weight(node: nodes.Node) -> int:
    """The number of nodes below it; its own text counts too."""
    texts = [len(text.data) // _CHARS_A_STEP for text in node.find_all(nodes.TemplateData)]
    return 1 + sum(1 for _ in node.find_all(nodes.Node)) + sum(texts)
