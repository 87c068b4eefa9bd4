"""What all sections of the config are built of."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""Part of the names of files, of which file systems allow 255 characters."""
TASK_NAME = r"^\S([^\r\n]*\S)?$"
TaskName = Annotated[str, Field(pattern=TASK_NAME, max_length=100)]
"""As it stands in data and in tables; with spaces, if it has some."""


class Section(BaseModel):
    """A part of the config: immutable, and with no room for a key that it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )

    @field_validator(
        *("path", "dir", "tokenizer", "chat_template", "cache_dir", "staging_dir"), mode="before", check_fields=False
    )
    @classmethod
    def _is_not_blank(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.strip():  # it would be the folder that the command happens to run in
            raise PydanticCustomError("blank", "is empty")
        return value
