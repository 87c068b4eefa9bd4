"""The config as a JSON schema (draft 2020-12): editors check a config with it, and explain its fields."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sft.job_config import JobFile


class _WithoutTitles(GenerateJsonSchema):
    """Leaves titles out: a title made from a field's name says no more than the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False


def config_schema() -> dict[str, Any]:
    """The schema of a whole file, with the help text and the default of each field."""
    schema = _on_one_line(JobFile.model_json_schema(by_alias=True, schema_generator=_WithoutTitles))
    # With `from`, missing fields of the model are those of the other run.
    schema["required"].remove("model")
    schema["$defs"]["ModelConfig"]["required"].remove("path")
    own_model = {"required": ["model"], "properties": {"model": {"required": ["path"]}}}
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **schema,
        "title": "A job of sft",
        "if": {"required": ["from"]},
        "else": own_model,
    }


def schema_text() -> str:
    """The text of the schema's file."""
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"


def _on_one_line(node: Any) -> Any:
    """A schema whose help texts have no line breaks: an editor has its own width."""
    if isinstance(node, list):
        return [_on_one_line(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: " ".join(value.split()) if key == "description" and isinstance(value, str) else _on_one_line(value)
        for key, value in node.items()
    }
