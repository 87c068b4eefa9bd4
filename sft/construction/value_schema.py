"""JSON schemas (draft 2020-12) that a user or a teacher gives: whether one can be used, and whether a value fits it."""

import json
import re
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable

from sft.strict_json import read_json

_SAID = 300


class UnusableSchema(ValueError):
    """It is no JSON schema, or refers to what is not there; the text is the reason."""


def schema_validator(schema: Any) -> Draft202012Validator:
    """What judges by a schema.

    Raises:
        UnusableSchema: it cannot be used, as far as that can be seen without a value.
    """
    try:
        return _validator(json.dumps(schema, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise UnusableSchema(str(error)[:_SAID]) from None
    except RecursionError:
        raise UnusableSchema("it is nested too deep") from None


def fits(value: Any, schema: Any) -> bool:
    """Whether a value fits a schema. A number that is too large to compute with does not.

    Raises:
        UnusableSchema: it cannot be told.
    """
    validator = schema_validator(schema)
    try:
        return bool(validator.is_valid(value))
    except OverflowError:
        return False
    except (Unresolvable, RecursionError, re.error) as error:
        raise UnusableSchema(f"{type(error).__name__}: {str(error)[:_SAID]}") from None


@lru_cache(maxsize=256)
def _validator(schema: str) -> Draft202012Validator:
    content = read_json(schema)
    try:
        # Its formats say whether patterns are regular expressions.
        Draft202012Validator.check_schema(content, format_checker=Draft202012Validator.FORMAT_CHECKER)
    except (SchemaError, OverflowError, re.error) as error:
        raise UnusableSchema(error.message if isinstance(error, SchemaError) else str(error)) from None
    # With an empty registry, a reference to another address is not fetched.
    return Draft202012Validator(content, registry=Registry())
