"""An example of the right form, for a value of the config that has another: a section, or a list of them."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_MAX_CHARS = 60


class Forms:
    """What the fields of a section may hold, found in its JSON schema (unions and lists included)."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        """`adapter` is that of the section."""
        self._schema = adapter.json_schema(by_alias=True)

    def keys_at(self, place: Sequence[Any]) -> list[str]:
        """The keys that the section at a place knows, or those of all that may be there."""
        return sorted({key for node in self._at(place) for key in node.get("properties", {})})

    def section_at(self, place: Sequence[Any], given: Any) -> str:
        """An example of the section at a place, with what was given in the first field that takes it."""
        return next((self._section(node, given) for node in self._at(place) if "properties" in node), "{}")

    def list_at(self, place: Sequence[Any], given: Any) -> str:
        """An example of the list at a place, with what was given in it."""
        for node in self._at(place):
            if "prefixItems" in node:
                return f"[{', '.join([_text(given)] * len(node['prefixItems']))}]"
            for item in self._options(node.get("items", {})):
                if "properties" in item:
                    return f"[{self._section(item, given)}]"
        return f"[{_text(given)}]"

    def _section(self, node: Mapping[str, Any], given: Any) -> str:
        fields, needed = node["properties"], node.get("required", [])
        first = needed or list(fields)[:1]
        takes = next((name for name in [*needed, *fields] if self._takes(fields[name], given)), None)
        shown = first if takes is None or takes in needed else [*needed, takes]
        return f"{{{', '.join(f'{name}: {_text(given)}' if name == takes else f'{name}: …' for name in shown)}}}"

    def _takes(self, field: Mapping[str, Any], given: Any) -> bool:
        return any(
            given in node["enum"]
            if "enum" in node
            else isinstance(given, _TYPES.get(node.get("type", ""), ()))
            and (isinstance(given, bool) == (node["type"] == "boolean"))
            and (not isinstance(given, str) or re.search(node.get("pattern", ""), given) is not None)
            for node in self._options(field)
        )

    def _at(self, place: Sequence[Any]) -> list[Any]:
        nodes = self._options(self._schema)
        for key in place:
            if isinstance(key, int):
                children = [node["items"] for node in nodes if "items" in node]
            else:
                children = [_named(node, key) for node in nodes]
            nodes = [option for child in children for option in self._options(child)]
        return nodes

    def _options(self, node: Any) -> list[Any]:
        if "$ref" in node:
            return self._options(self._schema["$defs"][node["$ref"].rpartition("/")[2]])
        inner = (*node.get("anyOf", ()), *node.get("oneOf", ()))
        return [option for part in inner for option in self._options(part)] or [node]


def _named(node: Mapping[str, Any], key: Any) -> Any:
    """What a section or a mapping holds under this name."""
    others = node.get("additionalProperties")
    return node.get("properties", {}).get(key) or (others if isinstance(others, Mapping) else {})


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MAX_CHARS and "\n" not in text else "…"
