"""The JSON Schema of ``llmops.yaml`` for editors."""

from __future__ import annotations

from typing import Any

from llmctl.core.digests import Json
from llmctl.spec.models import ExternalOptions, FileShape, LlamaOptions
from llmctl.spec.report import KIND_OF_SECTION

_NAME = "^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$"


def json_schema() -> dict[str, Json]:
    """JSON Schema 2020-12 with a description and examples for every key."""
    schema: dict[str, Any] = FileShape.model_json_schema()
    definitions = schema["$defs"]
    for options in (LlamaOptions, ExternalOptions):
        definitions[options.__name__] = options.model_json_schema()
    endpoint = definitions["EndpointShape"]["properties"]["options"]
    endpoint.pop("additionalProperties", None)
    endpoint["anyOf"] = [{"$ref": f"#/$defs/{o.__name__}"} for o in (LlamaOptions, ExternalOptions)]
    overrides = definitions["EnvironmentShape"]["properties"]["overrides"]
    overrides["properties"] = {
        section: {"type": ["object", "null"], "title": section.capitalize()} for section in KIND_OF_SECTION
    }
    overrides["additionalProperties"] = False
    for section in ("environments", *KIND_OF_SECTION):
        schema["properties"][section]["propertyNames"] = {"pattern": _NAME}
    schema["properties"]["project"]["pattern"] = _NAME
    for shape in (schema, *definitions.values()):
        for key, value in shape["properties"].items():
            value.setdefault("title", key.replace("_", " ").capitalize())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_null(schema),
        "title": "llmops.yaml",
    }


def _without_null(value: Json) -> Json:
    """A key is left out or has a value: ``null``, which pydantic uses for "left out", is refused."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    result = {key: _without_null(item) for key, item in value.items() if (key, item) != ("default", None)}
    choices = result.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        del result["anyOf"]
        result.update(rest[0] if len(rest) == 1 else {"anyOf": rest})
    return result
