"""What a rule reads, for people who want to know why it decided so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from llmctl.core.digests import Json
from llmctl.policy.check import understood
from llmctl.policy.fields import ENVIRONMENT, Fields, Shape, fields_of, root_of

#: What stands for a key that the user did not write.
ABSENT = "(not there)"


def values_read(applies_to: str, require: str, view: Mapping[str, Json]) -> tuple[tuple[str, Json], ...]:
    """Every path that a rule names, dotted, with its value in ``view``; one that goes through a list has the list."""
    found: dict[str, Json] = {}
    for path in understood(applies_to, require).paths:
        value: Json = view
        names: list[str] = []
        for name in path:
            if not isinstance(value, Mapping):
                break
            names.append(name)
            value = value.get(name, ABSENT)
        found[".".join(names)] = value
    return tuple(found.items())


def readable(applies_to: str) -> Iterator[tuple[str, str]]:
    """Every field that a rule on that kind may read, dotted, with its type."""
    root = root_of(applies_to)
    yield from _fields(root, fields_of(applies_to) or {})
    yield from _fields("environment", ENVIRONMENT)
    yield "project", "string"


def _fields(path: str, fields: Fields) -> Iterator[tuple[str, str]]:
    for name, shape in fields.items():
        if isinstance(shape, dict):
            yield from _fields(f"{path}.{name}", shape)
        else:
            yield f"{path}.{name}", type_of(shape)


def type_of(shape: Shape) -> str:
    """A type in words: ``number``, ``list of string``, ``list of {digest: string, scale: number}``."""
    if isinstance(shape, list):
        return f"list of {type_of(shape[0])}"
    if isinstance(shape, dict):
        return f"{{{', '.join(f'{name}: {type_of(inner)}' for name, inner in shape.items())}}}"
    return shape
