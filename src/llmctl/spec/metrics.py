"""What a gate measures: its metrics, patterns, schemas and slices."""

from __future__ import annotations

import json
import re
from typing import Any

from llmctl.core.digests import Json
from llmctl.spec.files import FileRefused, ReadText, refuse_outside
from llmctl.spec.messages import shown
from llmctl.spec.models import GateShape
from llmctl.spec.nodes import Location
from llmctl.spec.report import Report

_NEED_EXPECTED = frozenset({"exact_match", "contains", "rouge_l", "bleu", "chrf"})
_RULES = ("min", "max", "max_drop")


def resolve_metrics(report: Report, read_text: ReadText, name: str, shape: GateShape) -> dict[str, Json]:
    """The metrics with their thresholds, a pattern that compiles, and the schema itself in place of its path."""
    here: Location = ("gates", name, "metrics")
    metrics = {key: rule.model_dump(by_alias=True, exclude_none=True) for key, rule in shape.metrics if rule}
    if not metrics:
        hint = f"Add one of {', '.join(shape.metrics.known_keys())}."
        report.error(here, "the gate measures nothing", hint=hint, at_key=True)
    for metric, rule in metrics.items():
        location = (*here, metric)
        if not any(key in rule for key in _RULES):
            known = getattr(shape.metrics, metric).known_keys()
            hint = f"Add {' or '.join(f'`{k}`' for k in _RULES if k in known)}."
            report.error(location, f"`{metric}` has no threshold", hint=hint, at_key=True)
        if metric in _NEED_EXPECTED and shape.expected is None:
            hint = "Add `expected:` with the column that holds the expected answer."
            report.error(location, f"`{metric}` needs `expected`", hint=hint, at_key=True)
    if "regex" in metrics:
        _check_pattern(report, (*here, "regex", "pattern"), metrics["regex"]["pattern"])
    if "json_schema" in metrics:
        location = (*here, "json_schema", "schema")
        metrics["json_schema"]["schema"] = _schema(report, read_text, location, metrics["json_schema"]["schema"])
    return metrics


def resolve_slices(report: Report, name: str, shape: GateShape) -> dict[str, Json]:
    """The thresholds by column and metric; each metric is one that the gate measures."""
    slices: dict[str, Json] = {}
    measured = [key for key, rule in shape.metrics if rule]
    for column, wanted in shape.slices.items():
        location: Location = ("gates", name, "slices", column)
        slices[column] = wanted.model_dump(exclude_none=True)
        if not slices[column]:
            hint = f"Add a metric, for example `{(measured or ['exact_match'])[0]}: {{min: 0.9}}`."
            report.error(location, f"no threshold for the slices of `{column}`", hint=hint, at_key=True)
        for metric in slices[column]:
            if metric not in measured:
                summary = f"the gate does not measure `{metric}`, so it cannot judge its slices"
                report.error((*location, metric), summary, hint=f"Add `{metric}` to `metrics`.", at_key=True)
    return slices


def _check_pattern(report: Report, location: Location, pattern: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        summary = f"`pattern` is not a regular expression: {error}"
        report.error(location, summary, hint="Write one as Python's `re` reads it; single quotes keep backslashes.")


def _schema(report: Report, read_text: ReadText, location: Location, written: dict[str, Json] | str) -> Json:
    """The schema itself; what is wrong with it is reported, and then the value counts for nothing."""
    schema: Json = written
    where = "the schema"
    if isinstance(written, str):
        where = repr(written)
        try:
            refuse_outside(written)
            if not written.endswith(".json"):
                raise FileRefused(f"{written!r} is not a .json file", "Name a .json file, or write the schema itself.")
            schema = json.loads(read_text(written), parse_constant=_not_finite)
        except FileRefused as refused:
            report.error(location, refused.summary, hint=refused.hint, excusable=False)
            return {}
        except (ValueError, RecursionError) as error:
            report.error(location, f"{where} is not JSON: {error}", hint="Correct the file.")
            return {}
    if problem := _problem(schema):
        report.error(location, f"{where} is not a JSON Schema: {problem}", hint="Correct it; see json-schema.org.")
    return schema


def _not_finite(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _problem(schema: Json) -> str:
    """What is wrong with a schema, or ""."""
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for

    if not isinstance(schema, dict):
        return "it must be an object"
    if not isinstance(schema.get("$schema", ""), str):
        return "`$schema` must be text"
    try:
        known: Any = validator_for
        validator = known(schema, default=None) if "$schema" in schema else Draft202012Validator
        if validator is None:
            return f"`$schema` {shown(schema['$schema'])} is not known"
        validator.check_schema(schema)
    except SchemaError as error:
        return f"{error.message[:200]} (at {error.json_path})"
    except (RecursionError, OverflowError, ValueError):
        return "it nests too deep, or holds an address that is none"
    return next(
        (f"`$ref` {text!r} points to nothing in it" for text in _references(schema) if not _is_in(schema, text)), ""
    )


def _references(schema: Json) -> list[str]:
    if isinstance(schema, list):
        return [text for item in schema for text in _references(item)]
    if not isinstance(schema, dict):
        return []
    own = [value for key, value in schema.items() if key in ("$ref", "$dynamicRef") and isinstance(value, str)]
    return own + [text for value in schema.values() for text in _references(value)]


def _is_in(schema: Json, reference: str) -> bool:
    """Whether ``#/a/b`` leads somewhere. Nothing is ever fetched, so a schema must be whole in itself."""
    if not reference.startswith("#"):
        return False
    node = schema
    for part in reference[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, dict) and part in node:
            node = node[part]
        else:
            return False
    return reference == "#" or reference.startswith("#/")
