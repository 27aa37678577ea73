"""The reference of ``llmops.yaml`` has what the schema has, and refuses what the code refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from llmctl.core.digests import Json
from llmctl.spec import reserved

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs/llmops.md").read_text()
SCHEMA = json.loads((ROOT / "schema/llmops.schema.json").read_text())
SECTIONS = [name for name, shape in SCHEMA["properties"].items() if "additionalProperties" in shape]
TOP = "Top of the file"

_CODE = re.compile(r"`([^`]+)`")
_BRACES = re.compile(r"\{([^}]*)\}")


def _rows(heading: str) -> list[list[str]]:
    """The cells of all table rows below a heading of the second level, without the tables' own heads."""
    body = REFERENCE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines() if line.startswith("| ")
    ]


def _table(heading: str, first: str) -> list[list[str]]:
    """The rows of the table below a heading whose first column has that title."""
    rows = _rows(heading)
    titles = [n for n, row in enumerate(rows) if "`" not in "".join(row)]
    start = next(n for n in titles if rows[n][0] == first)
    return rows[start + 1 : next((n for n in titles if n > start), len(rows))]


def _expanded(key: str) -> list[str]:
    braces = _BRACES.search(key)
    return [key.replace(braces[0], one) for one in braces[1].split(",")] if braces else [key]


def _documented(heading: str) -> dict[str, str]:
    """What stands as default, by key."""
    return {
        key: default
        for cell, default, _ in _table(heading, "key")
        for code in _CODE.findall(cell)
        for key in _expanded(code)
    }


def _leaves(shape: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, str]]:
    """Each key without keys of its own below a shape, dotted, with its default as the reference writes it."""
    for shaped in _alternatives(shape):
        for name, inner in shaped.get("properties", {}).items():
            here = f"{path}.{name}" if path else name
            below = list(_leaves(inner, here))
            default = inner.get("default", "")
            written = f"`{json.dumps(default)}`" if default not in ("", None) else "–"
            if name == "port":
                written = "–"  # 0 stands for "left out" and cannot be written
            yield from below or [(here, "required" if name in shaped.get("required", ()) else written)]


def _alternatives(shape: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    if "$ref" in shape:
        yield from _alternatives(SCHEMA["$defs"][shape["$ref"].rpartition("/")[2]])
    for inner in (*shape.get("anyOf", ()), *([shape["items"]] if "items" in shape else [])):
        yield from _alternatives(inner)
    yield shape


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section_is_documented_with_its_default(section: str) -> None:
    assert _documented(section) == dict(_leaves(SCHEMA["properties"][section]["additionalProperties"]))


def test_the_keys_at_the_top_are_documented() -> None:
    scalars = {name: shape for name, shape in SCHEMA["properties"].items() if name not in SECTIONS}
    assert _documented(TOP) == dict(_leaves({"properties": scalars, "required": SCHEMA["required"]}))


def test_a_key_that_the_schema_has_and_the_page_has_not_is_found() -> None:
    shape = {"properties": {"new": {"type": "string"}, **SCHEMA["$defs"]["RouteShape"]["properties"]}}
    assert set(dict(_leaves(shape))) - set(_documented("routes")) == {"new"}


def test_every_reserved_key_is_named() -> None:
    named = {place: frozenset(_CODE.findall(cell)) for place, cell in _table("Not served yet", "place")}
    assert named == reserved.KEYS


def test_every_reserved_value_is_named() -> None:
    named = {_CODE.findall(key)[0]: frozenset(_CODE.findall(cell)) for key, cell in _table("Not served yet", "key")}
    values = {key: names for (_, key), names in reserved.VALUES.items()}
    assert named == {**values, "source": frozenset(f"{scheme}:" for scheme in reserved.SCHEMES)}
