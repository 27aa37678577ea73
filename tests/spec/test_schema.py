"""The JSON Schema for editors. ``LLMCTL_ACCEPT=1 pytest tests/spec`` rewrites the copy in ``schema/``."""

from __future__ import annotations

import os
from pathlib import Path

from jsonschema import Draft202012Validator

from llmctl.core.digests import Json, pretty_json
from llmctl.spec import json_schema
from llmctl.spec.models import FileShape
from llmctl.spec.nodes import plain
from llmctl.spec.reserved import KEYS
from llmctl.spec.yaml_reader import decode, read
from tests.spec.project import FULL, GOOD

COPY = Path(__file__).parents[2] / "schema" / "llmops.schema.json"


def test_the_copy_is_true() -> None:
    text = pretty_json(json_schema())
    if os.environ.get("LLMCTL_ACCEPT"):
        COPY.write_text(text)
    assert COPY.read_text() == text


def _properties() -> list[tuple[str, dict[str, Json]]]:
    schema = json_schema()
    shapes = {"file": schema, **schema["$defs"]}
    return [(f"{name}.{key}", value) for name, shape in shapes.items() for key, value in shape["properties"].items()]


def test_every_key_is_explained_with_an_example() -> None:
    properties = _properties()
    assert len(properties) > 60
    for name, value in properties:
        assert value.get("title"), name
        assert str(value.get("description", "")).endswith("."), name
        assert value.get("examples"), name


def test_unknown_keys_and_null_are_refused() -> None:
    schema = json_schema()
    assert schema["additionalProperties"] is False
    assert all(shape["additionalProperties"] is False for shape in schema["$defs"].values())
    assert all({"type": "null"} not in value.get("anyOf", []) for _, value in _properties())


def test_the_keys_of_the_design_are_there() -> None:
    assert set(json_schema()["properties"]) == set(FileShape.model_fields)
    assert {"datasets", "models", "prompts", "endpoints", "routes", "gates", "policies"} < set(FileShape.model_fields)


def test_no_key_is_both_served_and_reserved() -> None:
    shapes = {**json_schema()["$defs"], "FileShape": json_schema()}
    for place, keys in KEYS.items():
        served = set(shapes[f"{place.capitalize()}Shape"]["properties"])
        assert not keys & served, place


def test_the_schema_takes_what_is_right_and_refuses_what_is_wrong() -> None:
    validator = Draft202012Validator(json_schema())
    for text in (GOOD, FULL):
        tree, _, _ = read(decode(text.encode(), "llmops.yaml"))
        assert list(validator.iter_errors(plain(tree))) == []
    for right, wrong in (("hold: 1.5m", "hold: 90"), ("from: route.help", "form: route.help"), ("min: 0.4", "min: 4")):
        tree, _, _ = read(decode(FULL.replace(right, wrong).encode(), "llmops.yaml"))
        assert list(validator.iter_errors(plain(tree))) != []
