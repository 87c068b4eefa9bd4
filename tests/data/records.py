"""Records as they are read from files, one valid one of each format, and what formatting makes of them."""

import pytest

from sft.config import SourceConfig
from sft.data.formats.formatting import expand_record, format_record
from sft.errors import RecordError
from sft.schema import Record, RecordLocation

PLACE = RecordLocation("s.jsonl", 4)

CALL = {"id": "c1", "type": "function", "function": {"name": "rain", "arguments": '{"place": "Oslo"}'}}
TOOL = {"name": "rain", "description": "Whether it rains.", "parameters": {"type": "object", "properties": {}}}

VALID = {
    "instruction": {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Be brief."},
    "prompt_completion": {"prompt": "1 + 2 =", "completion": " 3"},
    "messages": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Rain?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL], "train": False},
            {"role": "tool", "content": "no", "tool_call_id": "c1"},
            {"role": "assistant", "content": "No.", "reasoning_content": "It says no.", "weight": 1},
        ],
        "tools": [{"type": "function", "function": TOOL}],
    },
    "sharegpt": {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": '{"name": "rain", "arguments": {"place": "Oslo"}}'},
            {"from": "observation", "value": "no"},
            {"from": "gpt", "value": "No."},
        ],
        "system": "Be brief.",
        "tools": '[{"name": "rain", "description": "Whether it rains."}]',
    },
    "super_natural_instructions": {
        "Categories": ["Arithmetic", "Other"],
        "Definition": ["Add."],
        "Positive Examples": [{"input": "1 1", "output": "2", "explanation": "A sum."}],
        "Instances": [{"id": "a", "input": "1 2", "output": ["3", "three"]}, {"id": "b", "input": "4", "output": "4"}],
    },
    "seed_tasks": {"name": "sums", "instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}]},
    "tokens": {"input_ids": [5, 8, 9, 2, 0], "labels": [-100, -100, 9, 2, -100], "attention_mask": [1, 1, 1, 1, 0]},
}
"""Format → a record of it."""


def record(**fields):
    return Record("s", 3, PLACE, fields)


def source(form="auto", **settings):
    return SourceConfig(name="s", path="s.jsonl", format=form, **settings)


def formatted(form, fields, turns="strict", **settings):
    """Of every record that the fields expand to, in order."""
    config = source(form, **settings)
    return [format_record(r, config, turns) for r in expand_record(record(**fields), config)]


def reason(form, fields, **settings):
    """Why the first record that cannot be used cannot."""
    with pytest.raises(RecordError) as error:
        formatted(form, fields, **settings)
    return str(error.value)
