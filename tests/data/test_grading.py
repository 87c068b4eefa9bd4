"""What a record says about how answers to it are measured."""

from typing import Any

import pytest

from sft.config import SourceConfig
from sft.data.formats.grading import read_grading
from sft.errors import RecordError
from sft.scoring.code_tests import what_is_wrong

CHECK = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(1) == 2\n"


@pytest.mark.parametrize(
    ("fields", "grading", "tests"),
    [
        ({"test": CHECK, "entry_point": "add"}, {}, (CHECK, "check(add)")),
        ({"own": CHECK, "name": "add"}, {"tests": "own", "entry_point": "name"}, (CHECK, "check(add)")),
        ({"test": CHECK}, {}, ()),
        ({"test_list": ["assert add(1) == 2"], "entry_point": "add"}, {}, ("assert add(1) == 2",)),
        ({"tests": CHECK, "entry_point": "by the door"}, {}, (CHECK,)),
    ],
)
def test_tests_of_the_form_of_humaneval_are_called(
    fields: dict[str, Any], grading: dict[str, str], tests: tuple[str, ...]
) -> None:
    source = SourceConfig.model_validate({"name": "s", "path": "s.jsonl", "grading": grading})
    assert read_grading(fields, source).tests == tests
    if "check(add)" in tests:
        assert not what_is_wrong(tests)


def test_a_column_that_does_not_name_a_function_is_refused_where_the_config_names_it() -> None:
    source = SourceConfig.model_validate({"name": "s", "path": "s.jsonl", "grading": {"entry_point": "name"}})
    with pytest.raises(RecordError, match="'name' does not hold the name of one function"):
        read_grading({"tests": CHECK, "name": "by the door"}, source)
