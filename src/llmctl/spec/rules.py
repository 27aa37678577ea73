"""Gates and policies: what judges the others."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import UTC, date, datetime

from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.kinds import kind_of
from llmctl.core.policies import ran_out
from llmctl.spec.build import Build
from llmctl.spec.durations import DAY, HOUR, seconds
from llmctl.spec.files import FileRefused, ReadText
from llmctl.spec.metrics import resolve_metrics, resolve_slices
from llmctl.spec.models import GateShape, PolicyShape
from llmctl.spec.nodes import Location
from llmctl.spec.report import Report
from llmctl.spec.rows import check_columns, check_overlap
from llmctl.spec.suggestions import suggestion

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")


def resolve_gate(build: Build, name: str, shape: GateShape) -> None:
    """Check metrics, columns and rows against route and dataset, and add the gate."""
    here: Location = ("gates", name)
    spec = gate_spec(build.report, build.files.text, name, shape)
    route_shape = build.view.routes.get(shape.route)
    prompt = build.view.prompts.get(route_shape.prompt) if route_shape else None
    if prompt:
        _check_inputs(build, here, shape, prompt.variables)
    dataset = build.get("dataset", shape.dataset)
    if dataset is None:
        return
    try:
        path = build.files.find(dataset.spec["source"])
        if prompt:
            types = {column: prompt.variables.get(variable, "") for variable, column in shape.inputs.items()}
            check_columns(build, here, shape, dataset, path, {c: t for c, t in types.items() if t})
        if route_shape:
            check_overlap(build, here, shape, dataset, path)
    except (FileRefused, InvalidInput, OSError):
        return  # the file changed since the dataset was read, and the next command will say so
    facts = {
        "dataset_revision": dataset.revision,
        "dataset_digest": dataset.spec["digest"],
        "dataset_format": dataset.spec["format"],
    }
    build.add("gate", name, shape, {**spec, **facts}, (Address("route", shape.route), dataset.address))


def gate_spec(report: Report, read_text: ReadText, name: str, shape: GateShape) -> dict[str, Json]:
    """The resolved spec of a gate, without what it takes from its dataset's file."""
    location: Location = ("gates", name, "timeouts")
    return {
        "route": shape.route,
        "dataset": shape.dataset,
        "inputs": dict(shape.inputs),
        "expected": shape.expected,
        "metrics": resolve_metrics(report, read_text, name, shape),
        "slices": resolve_slices(report, name, shape),
        "confidence": shape.confidence,
        "concurrency": shape.concurrency,
        "timeouts": {
            "request_s": seconds(report, (*location, "request"), shape.timeouts.request, 0.01, HOUR),
            "run_s": seconds(report, (*location, "run"), shape.timeouts.run, 1.0, DAY),
        },
    }


def _check_inputs(build: Build, here: Location, shape: GateShape, variables: object) -> None:
    declared = set(variables) if isinstance(variables, dict) else set()
    for variable in sorted(declared - set(shape.inputs)):
        hint = f"Add `{variable}: COLUMN` to `inputs`."
        summary = f"no column fills the prompt's variable `{variable}`"
        build.report.error((*here, "inputs"), summary, hint=hint, at_key=True)
    for variable in shape.inputs:
        if variable not in declared:
            hint = suggestion(variable, declared, "variables of the prompt")
            summary = f"the route's prompt has no variable `{variable}`"
            build.report.error((*here, "inputs", variable), summary, hint=hint, at_key=True)


def resolve_policy(build: Build, name: str, shape: PolicyShape) -> None:
    """Check the waivers and add the policy; its rule is parsed where policies are judged."""
    declared = None if shape.applies_to == "plan" else build.view.names.get(kind_of(shape.applies_to).section)
    _check_waivers(build.report, name, shape, declared)
    build.add("policy", name, shape, policy_spec(shape), at="require")


def policy_spec(shape: PolicyShape) -> dict[str, Json]:
    """The resolved spec of a policy."""
    return shape.model_dump(exclude={"protect"})


def _check_waivers(report: Report, name: str, shape: PolicyShape, declared: Container[str] | None) -> None:
    """``declared`` has the names of the kind that the policy judges; ``None`` when they are not known."""
    here: Location = ("policies", name, "waivers")
    if shape.applies_to == "plan" and shape.waivers:
        summary = "a policy over the plan takes no waivers: they are for single resources"
        report.error(here, summary, hint="Remove `waivers`, or let the rule itself allow what it should.", at_key=True)
        return
    for index, waiver in enumerate(shape.waivers):
        location = (*here, index)
        _check_until(report, (*location, "until"), waiver.until, waiver.resource)
        try:
            address = Address.parse(waiver.resource)
        except ValueError:
            summary = f"{report.written((*location, 'resource'))!r} is not an address"
            report.error((*location, "resource"), summary, hint=f"Write {shape.applies_to}.NAME.")
            continue
        if address.kind != shape.applies_to:
            summary = f"{address} cannot be waived here: the policy judges resources of kind {shape.applies_to}"
            report.error((*location, "resource"), summary, hint=f"Write {shape.applies_to}.NAME.")
        elif declared is not None and address.name not in declared:
            summary = f"the waiver is for {address}, which is not declared"
            report.warn((*location, "resource"), summary, hint="Correct the name, or remove the waiver.")


def _check_until(report: Report, location: Location, text: str, resource: str) -> None:
    try:
        until = date.fromisoformat(text) if _DATE.match(text) else None
    except ValueError:
        until = None
    if until is None:
        summary = f"`until` must be a day such as 2027-01-31, not {report.written(location)!r}"
        report.error(location, summary, hint="Write YYYY-MM-DD.")
    elif until < datetime.now(UTC).date():
        report.warn(location, ran_out(resource, text), hint="Remove it or renew it.")
