"""The JSON Schema of ``llmops.yaml`` for editors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llmctl.core.digests import Json
from llmctl.core.plugins import KindPlugin
from llmctl.spec.models import ExternalOptions, FileShape, LlamaOptions
from llmctl.spec.sections import KIND_OF_SECTION

_NAME = "^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$"


def json_schema(plugins: Iterable[KindPlugin] = ()) -> dict[str, Json]:
    """JSON Schema 2020-12 with a description and examples for every key; with the sections of these plug-ins too."""
    schema: dict[str, Any] = FileShape.model_json_schema()
    definitions = schema["$defs"]
    sections = [*KIND_OF_SECTION]
    for plugin in plugins:
        _add(schema, plugin)
        sections.append(plugin.kind.section)
    for options in (LlamaOptions, ExternalOptions):
        definitions[options.__name__] = options.model_json_schema()
    endpoint = definitions["EndpointShape"]["properties"]["options"]
    endpoint.pop("additionalProperties", None)
    endpoint["anyOf"] = [{"$ref": f"#/$defs/{o.__name__}"} for o in (LlamaOptions, ExternalOptions)]
    overrides = definitions["EnvironmentShape"]["properties"]["overrides"]
    overrides["properties"] = {
        section: {"type": ["object", "null"], "title": section.capitalize()} for section in sections
    }
    overrides["additionalProperties"] = False
    for section in ("environments", *sections):
        schema["properties"][section]["propertyNames"] = {"pattern": _NAME}
    schema["properties"]["project"]["pattern"] = _NAME
    for shape in (schema, *definitions.values()):
        for key, value in shape.get("properties", {}).items():
            value.setdefault("title", key.replace("_", " ").capitalize())
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_null(schema),
        "title": "llmops.yaml",
    }


def _add(schema: dict[str, Any], plugin: KindPlugin) -> None:
    """A section, the shape of its entries, and the kind that policies may judge."""
    kind, definitions = plugin.kind, schema["$defs"]
    shape = plugin.entry.model_json_schema(ref_template=f"#/$defs/{kind.name}.{{model}}")
    definitions |= {f"{kind.name}.{name}": inner for name, inner in shape.pop("$defs", {}).items()}
    definitions[kind.name] = shape
    entries = {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{kind.name}"}, "default": {}}
    schema["properties"][kind.section] = {**entries, "description": str(shape.get("description", ""))}
    definitions["PolicyShape"]["properties"]["applies_to"]["enum"].append(kind.name)


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
