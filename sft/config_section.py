"""What all sections of the config are built from."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from sft.config_effects import check_marks
from sft.config_paths import path_mark

Share = Annotated[float, Field(ge=0.0, le=1.0)]
BelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""Part of file names, which file systems limit to 255 characters."""
TASK_NAME = r"^\S([^\r\n]*\S)?$"
TaskName = Annotated[str, Field(pattern=TASK_NAME, max_length=100)]
"""As it is in data and in tables; it may have spaces."""


class Section(BaseModel):
    """A part of the config: immutable; refuses unknown keys and fields that do not say what they affect."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True, allow_inf_nan=False
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Raises: TypeError: a field does not say what it affects."""
        super().__pydantic_init_subclass__(**kwargs)
        check_marks(cls)

    @field_validator("*", mode="before")
    @classmethod
    def _path_is_not_blank(cls, value: Any, info: ValidationInfo) -> Any:
        is_path = path_mark(cls.model_fields[str(info.field_name)]) is not None
        # It would mean the working folder of the command.
        if is_path and isinstance(value, str) and not value.strip():
            raise PydanticCustomError("blank", "is empty")
        return value


def given_instead(field: str, of: str, which_is: Any) -> Any:
    """A validator for a section: if `field` is given, `of` is `which_is` by default."""

    def fill(given: Any) -> Any:
        return {of: which_is, **given} if isinstance(given, dict) and given.get(field) is not None else given

    return model_validator(mode="before")(fill)
