"""The rows of a gate's dataset: columns that the gate reads, and rows that prove nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from llmctl.core.resources import Resource
from llmctl.spec.build import Build
from llmctl.spec.datasets import Fault, input_keys, surveyed
from llmctl.spec.files import Form
from llmctl.spec.models import GateShape
from llmctl.spec.nodes import Location
from llmctl.spec.source import display_path
from llmctl.spec.suggestions import suggestion

_LINES: Form[dict[int, int]] = Form(lambda lines: [*lines.items()], dict)


def check_columns(
    build: Build, here: Location, shape: GateShape, dataset: Resource, path: Path, types: dict[str, str]
) -> None:
    """The columns that the gate reads are in every row, filled, and of the variables' types; slices may miss some."""
    places: dict[str, Location] = {column: (*here, "inputs", v) for v, column in shape.inputs.items()}
    if shape.expected is not None:
        places[shape.expected] = (*here, "expected")
        types = {shape.expected: "string", **types}
    found = surveyed(build.files, path, dataset.spec["format"], columns=types, not_null=tuple(places), as_read=True)

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
    for column in shape.slices:
        if column not in places and column not in found.present and found.rows:
            hint = suggestion(column, found.present, "columns")
            summary = f"{dataset.address} has no column `{column}`"
            build.report.error((*here, "slices", column), summary, hint=hint, at_key=True)


def check_overlap(build: Build, here: Location, shape: GateShape, dataset: Resource, path: Path) -> None:
    """Rows that a served model was trained on prove nothing about it."""
    columns = tuple(dict.fromkeys(shape.inputs.values()))
    for model, name in _trained_on(build, shape.route) if columns else ():
        trained = build.get("dataset", name)
        if trained is None:
            continue
        other = build.files.find(trained.spec["source"])
        look = partial(_shared, (path, dataset.spec["format"]), (other, trained.spec["format"]), columns)
        # By the training data, which is the larger of the two as a rule: of that it is kept.
        shared = build.files.once(other, ("shared", dataset.spec["digest"], columns), look, _LINES)
        if shared:
            first = min(shared)
            count = "1 row is" if len(shared) == 1 else f"{len(shared)} rows are"
            summary = f"{count} also in dataset.{name}, which model.{model} was trained on"
            detail = f"The first is {display_path(path)} line {first}, as {display_path(other)} line {shared[first]}."
            hint = "Evaluate on rows that the model has not seen: remove them from one of the two."
            build.report.error((*here, "dataset"), summary, detail=detail, hint=hint)


def _shared(one: tuple[Path, str], other: tuple[Path, str], columns: tuple[str, ...]) -> dict[int, int]:
    """The lines of one file whose inputs are also in the other, each with the first line there; files with formats."""
    lines: dict[tuple[str | bytes, ...], list[int]] = {}
    for line, values in input_keys(*one, columns):
        lines.setdefault(values, []).append(line)
    shared: dict[int, int] = {}
    for line, values in input_keys(*other, columns):
        for eval_line in lines.get(values, ()):
            shared.setdefault(eval_line, line)
    return shared


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
