"""What all shapes share. Nothing but shape: what it cannot say is checked in the other modules.

Shapes are strict and small on purpose: they are built on first use, and their build is most of what
reading a small file costs. The descriptions and examples become the JSON Schema that editors use.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

ColumnType = Literal["string", "number", "boolean"]
VariableType = Literal["string", "number", "boolean", "list", "object"]
Decide = Literal["interval", "point"]

DURATION = r"^[0-9]{1,9}(?:\.[0-9]{1,3})?(?:ms|s|m|h)$"
#: A number and its unit: ``30s``, ``1.5h``. Its bounds are checked where it becomes seconds.
Duration = Annotated[str, Field(pattern=DURATION)]


#: A git remote is named, never given by its address, which may hold a password.
REMOTE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$"


class Shape(BaseModel):
    """A map with known keys; types are taken as written and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True, allow_inf_nan=False)

    @classmethod
    def known_keys(cls) -> dict[str, FieldInfo]:
        """The fields by their keys in the file; ``from`` and ``schema`` have other names as attributes."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}


class ResourceShape(Shape):
    """What every kind of resource takes."""

    protect: bool = Field(default=False, description="Refuse to delete or replace it.", examples=[True])
