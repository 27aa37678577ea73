"""``llmops.yaml`` to what one environment should be, with every error found at once.

``find_file`` → ``load`` → ``environment_name`` → ``resolve``. The file is read to a tree that keeps the place
of every value; each resource becomes a typed shape; references, files, templates and what fits together are
checked; and each resource gets its resolved spec and revision. ``ResourceShape`` and ``Shape`` are what kinds of
other packages make the shapes of their entries from (``docs/extending.md``).

What reads a file (YAML, pydantic) is imported when it is first used: a file that did not change is not read again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llmctl.spec.project import Document, Inputs, Resolved, find_file

if TYPE_CHECKING:
    from llmctl.spec.base import base_rules
    from llmctl.spec.datasets import dataset_rows
    from llmctl.spec.document import environment_name, inputs_of, load, place, resolve
    from llmctl.spec.models import ResourceShape, Shape
    from llmctl.spec.schema import json_schema

_READ_BY = {
    "ResourceShape": "models",
    "Shape": "models",
    "base_rules": "base",
    "dataset_rows": "datasets",
    "environment_name": "document",
    "inputs_of": "document",
    "json_schema": "schema",
    "load": "document",
    "place": "document",
    "resolve": "document",
}

__all__ = [
    "Document",
    "Inputs",
    "Resolved",
    "ResourceShape",
    "Shape",
    "base_rules",
    "dataset_rows",
    "environment_name",
    "find_file",
    "inputs_of",
    "json_schema",
    "load",
    "place",
    "resolve",
]


def __getattr__(name: str) -> object:
    if name not in _READ_BY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_READ_BY[name]}"), name)
