"""From ``llmops.yaml`` to what one environment should be: find, load, choose the environment, resolve."""

from __future__ import annotations

import os
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.errors import InvalidInput
from llmctl.core.resources import Desired, Environment
from llmctl.core.secrets import SecretRef
from llmctl.spec.artifacts import resolve_dataset, resolve_model
from llmctl.spec.build import Build
from llmctl.spec.files import Files
from llmctl.spec.interpolation import resolve_tree
from llmctl.spec.nodes import Location, Mapping, Scalar, find
from llmctl.spec.overlay import overlaid
from llmctl.spec.prompts import resolve_prompt
from llmctl.spec.report import Report, suggestion
from llmctl.spec.rules import resolve_gate, resolve_policy
from llmctl.spec.serving import resolve_endpoint, resolve_route
from llmctl.spec.source import Source, display_path
from llmctl.spec.view import View, mask_secrets, view_of
from llmctl.spec.yaml_reader import decode, read

FILE_NAME = "llmops.yaml"


@dataclass(frozen=True)
class Document:
    """A file that is well-formed. ``root`` is the folder that relative paths start from."""

    project: str
    owner: str
    environments: ReadOnly[str, Environment]
    path: Path
    root: Path
    warnings: tuple[Diagnostic, ...]
    _source: Source = field(repr=False)
    _tree: Mapping = field(repr=False)
    _files: Files = field(repr=False)


@dataclass(frozen=True, slots=True)
class Resolved:
    """What one environment should be. ``secrets`` says which model reads which variable, and no values."""

    desired: Desired
    warnings: tuple[Diagnostic, ...]
    secrets: tuple[tuple[Address, SecretRef], ...]


def find_file(explicit: str | None, start: Path) -> Path:
    """The file named by ``-f``, else ``llmops.yaml`` in ``start`` or the nearest folder above it.

    Raises ``InvalidInput`` when there is none.
    """
    if explicit is not None:
        path = Path(explicit)
        if path.is_file():
            return path
        what = "is a folder" if path.is_dir() else "does not exist or is not a file"
        raise InvalidInput([Diagnostic(f"{explicit!r} {what}", hint="Name a file after -f.")])
    folder = start.absolute()
    for candidate in (folder, *folder.parents):
        if (candidate / FILE_NAME).is_file():
            return candidate / FILE_NAME
    summary = f"there is no {FILE_NAME} in {display_path(folder)} or a folder above it"
    hint = "Run llmctl in your project's folder, or pass -f FILE."
    raise InvalidInput([Diagnostic(summary, hint=hint)])


def load(path: Path) -> Document:
    """Read a file and check its form, its names and its references, in every environment.

    Raises ``InvalidInput`` with every finding. When there is one, what ``resolve`` would find in the rest
    of the file is found too, so that nobody has to correct a file in rounds.
    """
    source = _read_source(path)
    tree, found, refused = read(source)
    mask_secrets(source, tree)
    report = Report(source, tree)
    report.silence_nodes(refused)
    for finding in found:
        report.add(finding)
    resolve_tree(report, os.environ, strict=False)
    view = view_of(report)
    files = Files(Path(os.path.abspath(path)).parent)
    overridden = []
    for name, environment in view.environments.items():
        if environment.overrides:
            merged = _environment_report(source, tree, name)
            merged.silence_nodes(refused)
            resolve_tree(merged, os.environ, strict=False)
            overridden.append((merged, view_of(merged), environment.target))
            _take(report, merged)
    if report.errors:
        targets = [(report, view, "local"), *overridden]
        for each, its_view, target in targets:
            _resources(Build(its_view, each, files, target))
            _take(report, each)
        raise InvalidInput(report.findings)
    environments = {
        name: Environment(name, shape.target, shape.gateway.port) for name, shape in view.environments.items()
    }
    return Document(view.project, view.owner, environments, path, files.root, report.warnings, source, tree, files)


def _read_source(path: Path) -> Source:
    file = display_path(path)
    try:
        return decode(path.read_bytes(), file)
    except (OSError, ValueError) as error:
        reason = (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else str(error)
        hint = "Check the path, or pass -f FILE."
        raise InvalidInput([Diagnostic(f"{file} cannot be read: {reason}", hint=hint)]) from None


def _environment_report(source: Source, tree: Mapping, environment: str) -> Report:
    merged, findings = overlaid(tree, environment, source)
    report = Report(source, merged)
    for finding in findings:
        report.add(finding)
    return report


def _take(report: Report, other: Report) -> None:
    if other is not report:
        for finding in other.findings:
            report.add(finding)


def environment_name(document: Document, asked: str | None) -> str:
    """The environment asked for, or the only one; raises ``InvalidInput`` that lists them."""
    names = list(document.environments)
    if asked is None and len(names) == 1:
        return names[0]
    if asked in document.environments:
        return str(asked)
    if asked is None:
        summary = "the file has several environments, and none was chosen"
        hint = f"Pass -e with one of: {', '.join(sorted(names))}."
    else:
        summary = f"there is no environment {asked!r}"
        hint = suggestion(asked, names, "environments")
    key, _, _ = find(document._tree, ("environments",))
    place = document._source.range(key.line, key.column, key.end_line, key.end_column) if key else None
    raise InvalidInput([Diagnostic(summary, where=place, hint=hint)])


def place(document: Document, location: Location) -> SourceRange | None:
    """Where a value stands in the file, for messages; ``None`` when it does not stand there as such."""
    _, node, whole = find(document._tree, location)
    if not whole or not isinstance(node, Scalar):
        return None
    return document._source.range(node.line, node.column, node.end_line, node.end_column)


def resolve(document: Document, environment: str) -> Resolved:
    """What the file says for one environment: overrides applied, references and files checked, revisions computed.

    Raises ``InvalidInput`` with every finding.
    """
    name = environment_name(document, environment)
    report = _environment_report(document._source, document._tree, name)
    resolve_tree(report, os.environ, strict=True)
    view = view_of(report)
    build = Build(view, report, document._files, document.environments[name].target)
    _resources(build)
    report.raise_errors()
    shape = view.environments[name]
    desired = Desired(
        project=view.project,
        environment=Environment(name, shape.target, shape.gateway.port),
        resources=build.resources,
        root=str(document.root),
    )
    return Resolved(desired, report.warnings, tuple(sorted(build.secrets, key=lambda pair: pair[0])))


def _resources(build: Build) -> None:
    """Resolve all kinds, each after those that it refers to."""
    view: View = build.view
    for name, dataset in view.datasets.items():
        resolve_dataset(build, name, dataset)
    for name, model in view.models.items():
        resolve_model(build, name, model)
    for name, prompt in view.prompts.items():
        resolve_prompt(build, name, prompt)
    for name, endpoint in view.endpoints.items():
        resolve_endpoint(build, name, endpoint)
    for name, route in view.routes.items():
        resolve_route(build, name, route)
    for name, gate in view.gates.items():
        resolve_gate(build, name, gate)
    for name, policy in view.policies.items():
        resolve_policy(build, name, policy)
