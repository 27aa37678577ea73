"""``llmops.yaml`` to what one environment should be, with every error found at once.

``find_file`` → ``load`` → ``environment_name`` → ``resolve``. The file is read to a tree that keeps the place
of every value; each resource becomes a typed shape; references, files, templates and what fits together are
checked; and each resource gets its resolved spec and revision. ``ResourceShape`` and ``Shape`` are what kinds of
other packages make the shapes of their entries from (``docs/extending.md``).
"""

from __future__ import annotations

from llmctl.spec.base import base_rules
from llmctl.spec.datasets import dataset_rows
from llmctl.spec.document import Document, Resolved, environment_name, find_file, load, place, resolve
from llmctl.spec.models import ResourceShape, Shape
from llmctl.spec.schema import json_schema

__all__ = [
    "Document",
    "Resolved",
    "ResourceShape",
    "Shape",
    "base_rules",
    "dataset_rows",
    "environment_name",
    "find_file",
    "json_schema",
    "load",
    "place",
    "resolve",
]
