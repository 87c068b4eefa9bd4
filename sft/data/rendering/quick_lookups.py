"""Makes a sandboxed Jinja environment look up the keys of messages without the sandbox's checks.

Rendering spends nearly all of its time on `message.role` and the like: the sandbox tries an attribute of the dict,
fails, looks up the key, and then checks whether the value is safe. For the types that a conversation is made of, the
result is known. It equals the sandbox's own: anything not plainly safe goes to the sandbox.
"""

from typing import Any

from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.utils import Namespace

_OF_DICT = frozenset(dir(dict))
_OF_STR = frozenset(name for name in dir(str) if not name.startswith("_")) - {"format", "format_map"}
_OF_LOOP = frozenset(name for name in dir(LoopContext) if not name.startswith("_"))
_NAMESPACE_ATTRIBUTES = "_Namespace__attrs"


def add_quick_lookups(environment: SandboxedEnvironment) -> None:
    """Make the templates that this environment compiles look up keys faster."""
    ask_sandbox, undefined = environment.getattr, environment.undefined

    def look_up(obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute not in _OF_DICT:
            return obj[attribute] if attribute in obj else undefined(obj=obj, name=attribute)
        if (kind is str and attribute in _OF_STR) or (kind is LoopContext and attribute in _OF_LOOP):
            return getattr(obj, attribute)
        if issubclass(kind, Namespace) and not attribute.startswith("_"):
            attributes = object.__getattribute__(obj, _NAMESPACE_ATTRIBUTES)
            if attribute in attributes:
                return attributes[attribute]
        return ask_sandbox(obj, attribute)

    environment.getattr = look_up  # type: ignore[method-assign]
