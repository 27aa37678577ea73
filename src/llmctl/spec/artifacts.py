"""Datasets, models and prompts: content, and what must hold of it."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.secrets import SecretRef
from llmctl.spec.build import Build
from llmctl.spec.datasets import FORMATS, Fault, Survey, surveyed
from llmctl.spec.files import FileFacts, FileRefused, refuse_outside, refuse_scheme, scheme_of
from llmctl.spec.gguf import GgufError, GgufHeader, read_header
from llmctl.spec.interpolation import REFERENCE
from llmctl.spec.models import DatasetShape, ModelShape
from llmctl.spec.nodes import Location
from llmctl.spec.source import display_path
from llmctl.spec.suggestions import suggestion


def resolve_dataset(build: Build, name: str, shape: DatasetShape) -> None:
    """Find the file, look at its rows, add the dataset."""
    here: Location = ("datasets", name, "source")
    try:
        refuse_scheme(shape.source, "a .jsonl or .csv file")
        refuse_outside(shape.source)
        format = _format(shape.source)
        facts = build.files.facts(shape.source)
    except FileRefused as refused:
        build.report.error(here, refused.summary, hint=refused.hint, excusable=False)
        return
    checks = shape.checks
    try:
        found = surveyed(
            build.files,
            facts.path,
            format,
            columns={**dict(shape.columns)},
            unique=tuple(checks.unique),
            not_null=tuple(checks.not_null),
        )
    except InvalidInput as error:
        for finding in error.findings:
            build.report.add(_addressed(finding, Address("dataset", name)))
        return
    _judge(build, name, shape, facts.path, found)
    build.add(
        "dataset",
        name,
        shape,
        {
            "source": shape.source,
            "format": format,
            "columns": dict(shape.columns),
            "checks": checks.model_dump(),
            "license": shape.license,
            "sensitivity": shape.sensitivity,
            "digest": facts.digest,
            "bytes": facts.bytes,
            "rows": found.rows,
        },
    )


def _addressed(finding: Diagnostic, address: Address) -> Diagnostic:
    return Diagnostic(finding.summary, finding.severity, finding.where, address, finding.detail, finding.hint)


def _format(source: str) -> str:
    suffix = Path(source).suffix.lower()
    if suffix == ".parquet":
        raise FileRefused("format `parquet` is not served yet", "Use a .jsonl or .csv file.")
    if suffix not in FORMATS:
        raise FileRefused(f"the format of {source!r} is not known", "Name a file that ends in .jsonl or .csv.")
    return FORMATS[suffix]


def _judge(build: Build, name: str, shape: DatasetShape, path: Path, found: Survey) -> None:
    """Report what does not hold of the rows, at the first row that breaks it."""
    address, file = Address("dataset", name), display_path(path)
    checks: Location = ("datasets", name, "checks")

    def rows(fault: Fault, summary: str, hint: str) -> None:
        count = "1 row" if fault.count == 1 else f"{fault.count} rows, first here"
        where = SourceRange(file, fault.line, 1)
        build.report.add(Diagnostic(f"{summary} ({count})", where=where, address=address, hint=hint))

    if found.rows < shape.checks.min_rows:
        summary = f"the dataset has {found.rows} rows, and `min_rows` asks for {shape.checks.min_rows}"
        build.report.error((*checks, "min_rows"), summary, hint=f"Add rows to {file}, or lower `min_rows`.")
    elif not found.rows:
        build.report.error(("datasets", name, "source"), "the dataset has no rows", hint=f"Add rows to {file}.")
    for key, columns in (("unique", shape.checks.unique), ("not_null", shape.checks.not_null)):
        for index, column in enumerate(columns):
            if found.rows and column not in found.present:
                hint = suggestion(column, found.present, "columns")
                build.report.error((*checks, key, index), f"the dataset has no column `{column}`", hint=hint)
    for column, fault in found.missing.items():
        rows(fault, f"column `{column}` is missing", "Add it to the row, or remove it from `columns`.")
    for column, fault in found.mistyped.items():
        rows(fault, f"column `{column}` is not a {shape.columns[column]}", "Correct the row, or the type in `columns`.")
    for column, fault in found.null.items():
        if column in found.present:
            rows(fault, f"column `{column}` is empty", "Fill it; `not_null` asks for it.")
    for column, fault in found.repeated.items():
        summary = f"column `{column}` repeats the value of line {fault.other}"
        rows(fault, summary, "Remove the row; `unique` asks for different values.")


def resolve_model(build: Build, name: str, shape: ModelShape) -> None:
    """Check the weights' files, or the reference to a hosted model, and add the model."""
    files: list[FileFacts | None] = []
    if scheme_of(shape.source) == "openai":
        weights: dict[str, Json] | None = _hosted(build, name, shape)
    else:
        weights, files = _weights(build, name, shape)
    if weights is None:
        return
    sources = [shape.source, *(adapter.source for adapter in shape.adapters)]
    reference = REFERENCE.match(shape.api_key or "")
    secret = SecretRef(reference[1]) if reference else None
    address = Address("model", name)
    if secret:
        build.secrets.append((address, secret))
    lineage = shape.lineage
    base = (Address("model", lineage.base),) if lineage.base in build.view.models else ()
    build.add(
        "model",
        name,
        shape,
        {
            "source": shape.source,
            "license": shape.license,
            "lineage": lineage.model_dump(),
            "card": shape.card.model_dump(),
            "api_key": secret.to_json() if secret else None,
            "weights": weights,
            "files": [
                {"path": source, "digest": facts.digest, "bytes": facts.bytes}
                for source, facts in zip(sources, files, strict=False)
                if facts
            ],
        },
        (*base, *(Address("dataset", dataset) for dataset in lineage.trained_on)),
    )


def _hosted(build: Build, name: str, shape: ModelShape) -> dict[str, Json] | None:
    here: Location = ("models", name)
    provider, _, model = shape.source.partition(":")
    if not model.strip() or model != model.strip() or provider != "openai":
        build.report.error((*here, "source"), "the model's name is missing", hint="Write `openai:NAME`.")
        return None
    if shape.adapters:
        build.report.error(
            (*here, "adapters"), "a hosted model takes no adapters", hint="Remove `adapters`.", at_key=True
        )
        return None
    return {"remote": shape.source}


def _weights(build: Build, name: str, shape: ModelShape) -> tuple[dict[str, Json] | None, list[FileFacts | None]]:
    here: Location = ("models", name)
    if shape.api_key is not None:
        hint = "Remove it, or use a source `openai:NAME`."
        build.report.error((*here, "api_key"), "only a hosted model takes an `api_key`", hint=hint, at_key=True)
    model = _gguf(build, (*here, "source"), shape.source, adapter=False)
    adapters = [
        _gguf(build, (*here, "adapters", i, "source"), a.source, adapter=True) for i, a in enumerate(shape.adapters)
    ]
    if model is None or None in adapters:
        return None, []
    header = model[1]
    build.trained_contexts[name] = header.context
    for index, adapter in enumerate(adapters):
        if adapter and adapter[1].architecture != header.architecture:
            summary = f"the adapter is for {adapter[1].architecture}, and the model is a {header.architecture}"
            hint = "Use an adapter that was trained on this model."
            build.report.error((*here, "adapters", index, "source"), summary, hint=hint)
    facts = [model[0], *(adapter[0] for adapter in adapters if adapter)]
    scales = zip(facts[1:], shape.adapters, strict=True)
    weights = {
        "digest": facts[0].digest,
        "adapters": [{"digest": f.digest, "scale": shaped.scale} for f, shaped in scales],
    }
    return weights, list(facts)


def _gguf(build: Build, here: Location, source: str, *, adapter: bool) -> tuple[FileFacts, GgufHeader] | None:
    what = "an adapter file" if adapter else "a model file"
    try:
        refuse_scheme(source, "a .gguf file" if adapter else "a .gguf file or `openai:NAME`")
        refuse_outside(source)
        if not source.lower().endswith(".gguf"):
            raise FileRefused(f"the format of {source!r} is not known", "Name a file that ends in .gguf.")
        path = build.files.find(source)
        header = read_header(path)
        if header.splits > 1:
            raise FileRefused("models split into several files are not served yet", "Merge them into one file.")
        if header.is_adapter != adapter:
            other = "an adapter" if header.is_adapter else "a model"
            move = "List it under `adapters`." if header.is_adapter else "Name it as the model's `source`."
            raise FileRefused(f"{source!r} is {other}, and {what} is needed here", move)
        return build.files.facts(source), header
    except FileRefused as refused:
        build.report.error(here, refused.summary, hint=refused.hint, excusable=False)
    except GgufError as error:
        build.report.error(here, f"{source!r} cannot be used: {error}", hint=error.hint)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        build.report.error(here, f"{source!r} cannot be read: {reason}", hint="Check the file.")
    return None
