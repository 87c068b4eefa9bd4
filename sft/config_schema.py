"""The config as a JSON schema (draft 2020-12): editors check a config with it, and explain its fields."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from sft.config_names import former_names
from sft.job_config import JobFile


class _Schema(GenerateJsonSchema):
    """Adds the names that fields had before: they are still read, so an editor must not report them."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never: a title made from a field's name says no more than the name."""
        return False

    def model_schema(self, schema: Any) -> dict[str, Any]:
        """Of a section."""
        section = super().model_schema(schema)
        fields, properties = schema["cls"].model_fields, section["properties"]
        for name, field in ((field.alias or name, field) for name, field in fields.items()):
            of_now = {key: value for key, value in properties[name].items() if key != "default"}
            about = {"deprecated": True, "description": f"Now `{name}`."}
            properties |= {former: {**of_now, **about} for former in former_names(field)}
        return section


def config_schema() -> dict[str, Any]:
    """The schema of a whole file, with the help text and the default of each field."""
    schema = _on_one_line(JobFile.model_json_schema(by_alias=True, schema_generator=_Schema))
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
