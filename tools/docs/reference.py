"""The reference of ``llmops.yaml``, from the JSON Schema that ``llmctl schema`` prints."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llmctl.core.digests import Json
from llmctl.spec import json_schema
from tools.docs.markdown import block, code, page, prose, table

_INTRODUCTION = """\
Every key, with its type, its default and an example. [The guide](llmops.md) says how they belong together, and
[Concepts](concepts.md) what the words mean; `llmctl schema` prints the schema that this page is made from, for editors.

In the tables, `a.b` is the key `b` in the map `a`, `a[].b` a key of each item of the list `a`, and `NAME` stands for a
name of your choice. A default of – means: nothing."""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+ '-]*\Z")
_WORDS = {
    "integer": "whole number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "map",
    "null": "`null`",
}
_NOT_TEXT = frozenset({"true", "false", "null", "yes", "no", "on", "off"})


@dataclass(frozen=True, slots=True)
class Row:
    """One key: its path, its schema, and whether it must be there."""

    path: str
    shape: Mapping[str, Json]
    required: bool


def page_of(schema: Mapping[str, Json]) -> str:
    """The page for a schema."""
    definitions = schema.get("$defs", {})
    required = schema.get("required", ())
    sections = {k: v for k, v in schema["properties"].items() if isinstance(v.get("additionalProperties"), dict)}
    top = [Row(k, v, k in required) for k, v in schema["properties"].items() if k not in sections]
    rows = [row for each in top for row in (each, *_below(each, definitions))]
    parts = ["# Reference of llmops.yaml", "<!-- Generated from the schema by `make docs-pages`. -->", _INTRODUCTION]
    parts += ["## Top of the file", _table(rows, definitions)]
    for name, section in sections.items():
        shape = _resolved(section["additionalProperties"], definitions)
        example = section.get("examples", [None])[0]
        parts += [
            f"## {name}",
            prose(shape.get("description", section["description"])),
            block(f"{name}: {_yaml(example)}", "yaml") if example else "",
            _table(list(_keys(shape, "", definitions)), definitions),
        ]
    return page(*parts)


def reference() -> str:
    """The page for the schema of this version."""
    return page_of(json_schema())


def _keys(shape: Mapping[str, Json], path: str, definitions: Mapping[str, Json]) -> Iterator[Row]:
    for name, inner in shape.get("properties", {}).items():
        row = Row(f"{path}.{name}".lstrip("."), inner, name in shape.get("required", ()))
        yield row
        yield from _below(row, definitions)


def _below(row: Row, definitions: Mapping[str, Json]) -> Iterator[Row]:
    """The keys of the maps that a key holds, directly or as items of a list or values of a map."""
    several = sum("$ref" in choice for choice in row.shape.get("anyOf", ())) > 1
    for path, reference in _references(row.shape, row.path):
        shape = definitions[reference.rpartition("/")[2]]
        if several:  # say whose keys follow
            yield Row(path, {"type": "object", "description": shape["description"]}, required=False)
        yield from _keys(shape, path, definitions)


def _references(shape: Mapping[str, Json], path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in shape:
        yield path, shape["$ref"]
    for choice in (*shape.get("anyOf", ()), *shape.get("allOf", ())):
        yield from _references(choice, path)
    if "items" in shape:
        yield from _references(shape["items"], f"{path}[]")
    if isinstance(shape.get("additionalProperties"), dict):
        yield from _references(shape["additionalProperties"], f"{path}.NAME")


def _table(rows: list[Row], definitions: Mapping[str, Json]) -> str:
    cells = [
        (code(row.path), _type(row.shape, definitions), _default(row), _description(row.shape, definitions))
        for row in rows
    ]
    return table(("key", "type", "default", "meaning"), cells)


def _resolved(shape: Mapping[str, Json], definitions: Mapping[str, Json]) -> Mapping[str, Json]:
    return definitions[shape["$ref"].rpartition("/")[2]] if "$ref" in shape else shape


def _type(shape: Mapping[str, Json], definitions: Mapping[str, Json]) -> str:
    if "$ref" in shape:
        return _type(_resolved(shape, definitions), definitions)
    if "anyOf" in shape:
        return " or ".join(dict.fromkeys(_type(choice, definitions) for choice in shape["anyOf"]))
    if "const" in shape:
        return code(shape["const"])
    if "enum" in shape:
        return ", ".join(code(value) for value in shape["enum"] if value != "")
    kind = shape.get("type", "")
    if isinstance(kind, list):
        return " or ".join(str(_WORDS.get(each, each)) for each in kind)
    if kind == "array":
        return f"list of {_plural(_type(shape.get('items', {}), definitions))}"
    return _WORDS.get(kind, kind or "anything") + _range(shape)


def _plural(kind: str) -> str:
    return {"text": "texts", "map": "maps", "number": "numbers", "whole number": "whole numbers"}.get(kind, kind)


def _range(shape: Mapping[str, Json]) -> str:
    low, high = shape.get("minimum"), shape.get("maximum")
    if low is not None and high is not None:
        return f", {low:g} to {high:g}"
    bounds = (("at least", low), ("more than", shape.get("exclusiveMinimum")), ("at most", high))
    return "".join(f", {words} {bound:g}" for words, bound in bounds if bound is not None)


def _default(row: Row) -> str:
    if row.required:
        return "required"
    default = row.shape.get("default")
    below = default is not None and isinstance(default, dict)
    # A default outside of the range stands for "left out": it cannot be written.
    outside = isinstance(default, int | float) and default < row.shape.get("minimum", default)
    return "–" if default in (None, "", []) or below or outside else code(_yaml(default))


def _description(shape: Mapping[str, Json], definitions: Mapping[str, Json]) -> str:
    text = shape.get("description") or _resolved(shape, definitions).get("description", "")
    example = shape.get("examples", [None])[0]
    said = prose(text)
    return said if example is None else f"{said} Example: {code(_yaml(example))}"


def _yaml(value: Json) -> str:
    """A value as one writes it in one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and _PLAIN.match(value) and value == value.strip() and value not in _NOT_TEXT:
        return value
    return json.dumps(value, ensure_ascii=False)
