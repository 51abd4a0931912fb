"""Configuration: sections declared beside what they configure, merged from layers, every field tagged.

*Identity* fields change the numbers of a run (resuming with another value is refused, they enter the comparability code);
*operational* fields do not (ports, folders, thread counts).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Tag = Literal["identity", "operational"]


class Section(BaseModel):
    """Base of every configuration section: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def identity(default: Any, **constraints: Any) -> Any:
    """A field whose value changes the numbers; its docstring is its help text. ``constraints`` as in pydantic's Field."""
    return Field(default, json_schema_extra={"tag": "identity"}, **constraints)


def operational(default: Any, **constraints: Any) -> Any:
    """A field whose value does not change the numbers."""
    return Field(default, json_schema_extra={"tag": "operational"}, **constraints)
