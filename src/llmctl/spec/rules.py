"""Gates and policies: what judges the others."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Resource
from llmctl.spec.build import Build
from llmctl.spec.datasets import Fault, input_keys, survey
from llmctl.spec.files import FileRefused
from llmctl.spec.models import GateShape, PolicyShape
from llmctl.spec.nodes import Location
from llmctl.spec.report import suggestion
from llmctl.spec.source import display_path

_NEED_EXPECTED = ("exact_match", "contains", "rouge_l")


def resolve_gate(build: Build, name: str, shape: GateShape) -> None:
    """Check metrics, columns and rows against route and dataset, and add the gate."""
    here: Location = ("gates", name)
    _check_metrics(build, here, shape)
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
            _check_columns(build, here, shape, dataset, path, {c: t for c, t in types.items() if t})
        if route_shape:
            _check_overlap(build, here, shape, dataset, path)
    except (FileRefused, InvalidInput):
        return  # the file changed since the dataset was read, and the next command will say so
    build.add(
        "gate",
        name,
        {
            "route": shape.route,
            "dataset": shape.dataset,
            "dataset_revision": dataset.revision,
            "dataset_digest": dataset.spec["digest"],
            "dataset_format": dataset.spec["format"],
            "inputs": dict(shape.inputs),
            "expected": shape.expected,
            "metrics": shape.metrics.model_dump(exclude_none=True),
            "confidence": shape.confidence,
        },
        (Address("route", shape.route), dataset.address),
    )


def _check_metrics(build: Build, here: Location, shape: GateShape) -> None:
    metrics = shape.metrics.model_dump(exclude_none=True)
    if not metrics:
        hint = f"Add one of {', '.join(type(shape.metrics).model_fields)}."
        build.report.error((*here, "metrics"), "the gate measures nothing", hint=hint, at_key=True)
    for metric, thresholds in metrics.items():
        location = (*here, "metrics", metric)
        if set(thresholds) == {"decide"}:
            known = [k for k in type(getattr(shape.metrics, metric)).model_fields if k != "decide"]
            hint = f"Add {' or '.join(f'`{k}`' for k in known)}."
            build.report.error(location, f"`{metric}` has no threshold", hint=hint, at_key=True)
        if metric in _NEED_EXPECTED and shape.expected is None:
            hint = "Add `expected:` with the column that holds the expected answer."
            build.report.error(location, f"`{metric}` needs `expected`", hint=hint, at_key=True)


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


def _check_columns(
    build: Build, here: Location, shape: GateShape, dataset: Resource, path: Path, types: dict[str, str]
) -> None:
    """The columns that the gate reads are in every row, filled, and of the variables' types."""
    places: dict[str, Location] = {column: (*here, "inputs", v) for v, column in shape.inputs.items()}
    if shape.expected is not None:
        places[shape.expected] = (*here, "expected")
        types = {shape.expected: "string", **types}
    found = survey(path, dataset.spec["format"], columns=types, not_null=tuple(places), as_read=True)

    def told(column: str, fault: Fault, what: str) -> None:
        count = "1 row" if fault.count == 1 else f"{fault.count} rows"
        detail = f"First in {display_path(path)} on line {fault.line}."
        summary = f"column `{column}` {what} in {count} of {dataset.address}"
        build.report.error(places[column], summary, detail=detail, hint="Correct the rows, or name another column.")

    for column, location in places.items():
        if column not in found.present:
            hint = suggestion(column, found.present, "columns")
            if found.rows:
                build.report.error(location, f"{dataset.address} has no column `{column}`", hint=hint)
        elif column in found.null and column not in dataset.spec["checks"]["not_null"]:
            told(column, found.null[column], "is empty")
        elif column in found.mistyped:
            told(column, found.mistyped[column], f"is not a {types[column]}")


def _check_overlap(build: Build, here: Location, shape: GateShape, dataset: Resource, path: Path) -> None:
    """Rows that a served model was trained on prove nothing about it."""
    columns = tuple(dict.fromkeys(shape.inputs.values()))
    if not columns:
        return
    lines: dict[tuple[str, ...], list[int]] = {}
    for line, values in input_keys(path, dataset.spec["format"], columns):
        lines.setdefault(values, []).append(line)
    for model, name in _trained_on(build, shape.route):
        trained = build.get("dataset", name)
        if trained is None:
            continue
        other = build.files.find(trained.spec["source"])
        shared: dict[int, int] = {}
        for line, values in input_keys(other, trained.spec["format"], columns):
            for eval_line in lines.get(values, ()):
                shared.setdefault(eval_line, line)
        if shared:
            first = min(shared)
            count = "1 row is" if len(shared) == 1 else f"{len(shared)} rows are"
            summary = f"{count} also in dataset.{name}, which model.{model} was trained on"
            detail = f"The first is {display_path(path)} line {first}, as {display_path(other)} line {shared[first]}."
            hint = "Evaluate on rows that the model has not seen: remove them from one of the two."
            build.report.error((*here, "dataset"), summary, detail=detail, hint=hint)


def _trained_on(build: Build, route: str) -> dict[tuple[str, str], None]:
    """The models that a route serves, with the datasets that they and their base models were trained on."""
    view = build.view
    shape = view.routes[route]
    pairs: dict[tuple[str, str], None] = {}
    for endpoint in (shape.endpoint, *shape.fallback):
        model = view.endpoints[endpoint].model if endpoint in view.endpoints else ""
        seen: set[str] = set()
        while model in view.models and model not in seen:
            seen.add(model)
            pairs.update(dict.fromkeys((model, dataset) for dataset in view.models[model].lineage.trained_on))
            model = view.models[model].lineage.base
    return pairs


def resolve_policy(build: Build, name: str, shape: PolicyShape) -> None:
    """Add the policy; its rule is parsed where policies are judged."""
    build.add("policy", name, shape.model_dump(), at="require")
