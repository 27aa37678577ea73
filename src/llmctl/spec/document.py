"""From ``llmops.yaml`` to what one environment should be: load, choose the environment, resolve."""

from __future__ import annotations

import os
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass
from pathlib import Path

from llmctl.core import plugins
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.errors import InvalidInput, LlmctlError
from llmctl.core.resources import Desired
from llmctl.spec.artifacts import resolve_dataset, resolve_model
from llmctl.spec.build import Build
from llmctl.spec.environments import check_promotion, environment_of
from llmctl.spec.files import FileRefused, Files
from llmctl.spec.includes import read_tree
from llmctl.spec.interpolation import Values, resolve_tree
from llmctl.spec.moves import aliases_of_routes, check_moves, effective
from llmctl.spec.nodes import Location, Mapping, Scalar, find
from llmctl.spec.overlay import overlaid
from llmctl.spec.plugins import resolve_entries
from llmctl.spec.project import Document, Inputs, Resolved, digest_of
from llmctl.spec.prompts import resolve_prompt
from llmctl.spec.report import Report
from llmctl.spec.rules import resolve_gate, resolve_policy
from llmctl.spec.sections import KIND_OF_SECTION, plugin_in
from llmctl.spec.serving import resolve_endpoint, resolve_route
from llmctl.spec.source import Source, display_path
from llmctl.spec.suggestions import suggestion
from llmctl.spec.tracked import Tracked
from llmctl.spec.view import Memo, View, view_of
from llmctl.spec.yaml_reader import decode


@dataclass(frozen=True)
class Parsed:
    """What a document's files hold, with the place of every value, and what is kept to resolve it."""

    tree: Mapping
    files: Files
    values: Values
    memo: Memo
    names: ReadOnly[str, frozenset[str]]  # declared in any environment, by section


def load(path: Path, only: Tracked | None = None) -> Document:
    """Read a file and all that it includes; check form, names and references, in every environment.

    With ``only`` it is sealed, as a stranger's: it reads no other files, and no variables.

    Raises ``InvalidInput`` with every finding. When there is one, what ``resolve`` would find in the rest
    of the file is found too, so that nobody has to correct a file in rounds.
    """
    files = Files(Path(os.path.abspath(path)).parent, only)
    tree = read_tree(_read_source(path, files), path.name, files)
    report = Report(tree.root)
    report.silence_nodes(tree.refused)
    for finding in tree.findings:
        report.add(finding)
    memo: Memo = {}
    values = Values(os.environ, files.text, sealed=only is not None)
    resolve_tree(report, values, strict=False)
    view = view_of(report, memo)
    environments = {name: environment_of(name, shape) for name, shape in view.environments.items()}
    overridden = []
    for name, environment in view.environments.items():
        check_promotion(report, name, environments)
        if environment.overrides:
            merged = _environment_report(tree.root, name)
            merged.silence_nodes(tree.refused)
            resolve_tree(merged, values, strict=False)
            overridden.append((merged, view_of(merged, memo), environment.target))
            _take(report, merged)
    names = _all_names([view, *(its_view for _, its_view, _ in overridden)])
    check_moves(report, view.moved, names)
    if report.errors:
        targets = [(report, view, "local"), *overridden]
        for each, its_view, target in targets:
            _resources(Build(its_view, each, files, target))
            _take(report, each)
        raise InvalidInput(report.findings)
    parsed = Parsed(tree.root, files, values, memo, names)
    return Document(
        project=view.project,
        owner=view.owner,
        environments=environments,
        path=path,
        root=files.root,
        files=(path, *(files.root / name for name in tree.files[1:])),
        warnings=report.warnings,
        _parse=lambda: parsed,
        sealed=only is not None,
    )


def inputs_of(document: Document) -> Inputs | None:
    """All that a document, and what it was resolved to by now, was made from.

    ``None`` when that cannot be told: a file is too fresh, or a kind of another package was looked for.
    """
    parsed = document.parsed
    files = {source: was for source, was in parsed.files.looked.items() if was is not None}
    if plugins.were_looked_for() or len(files) < len(parsed.files.looked):
        return None
    variables = tuple(sorted(parsed.values.asked))
    return Inputs(files, parsed.files.matched, variables, digest_of(variables))


def _read_source(path: Path, files: Files) -> Source:
    file = display_path(path)
    try:
        if files.only:
            return decode(files.read(path.name), file)
        files.note(path.name, os.path.realpath(path), path.stat())
        return decode(path.read_bytes(), file)
    except FileRefused as refused:
        raise InvalidInput([Diagnostic(refused.summary, hint=refused.hint)]) from None
    except (OSError, ValueError) as error:
        reason = (error.strerror or "unknown reason").lower() if isinstance(error, OSError) else str(error)
        hint = "Check the path, or pass -f FILE."
        raise InvalidInput([Diagnostic(f"{file} cannot be read: {reason}", hint=hint)]) from None


def _environment_report(tree: Mapping, environment: str) -> Report:
    merged, findings = overlaid(tree, environment)
    report = Report(merged)
    for finding in findings:
        report.add(finding)
    return report


def _take(report: Report, other: Report) -> None:
    if other is not report:
        for finding in other.findings:
            report.add(finding)


def _all_names(views: list[View]) -> dict[str, frozenset[str]]:
    """The names of each section in any of the views; a section that is no map in one of them is left out."""
    sections = set.intersection(*(set(view.names) for view in views))
    return {section: frozenset().union(*(view.names[section] for view in views)) for section in sections}


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
    key, _, _ = find(document.parsed.tree, ("environments",))
    raise InvalidInput([Diagnostic(summary, where=key.range if key else None, hint=hint)])


def place(document: Document, location: Location) -> SourceRange | None:
    """Where a value stands in the files, for messages; ``None`` when it does not stand there as such."""
    try:
        tree = document.parsed.tree
    except LlmctlError:  # what was remembered is read again for it, and was made wrong in the meantime
        return None
    _, node, whole = find(tree, location)
    return node.range if whole and isinstance(node, Scalar) else None


def resolve(document: Document, environment: str) -> Resolved:
    """What the file says for one environment: overrides applied, references and files checked, revisions computed.

    Raises ``InvalidInput`` with every finding.
    """
    name = environment_name(document, environment)
    report = _environment_report(document.parsed.tree, name)
    parsed = document.parsed
    resolve_tree(report, parsed.values, strict=True)
    view = view_of(report, parsed.memo)
    moves = effective(check_moves(report, view.moved, parsed.names), view.names)
    shape = view.environments.get(name)
    own = environment_of(name, shape) if shape else document.environments[name]
    build = Build(view, report, parsed.files, own.target, aliases_of_routes(moves))
    _resources(build)
    if document.sealed:
        _without_open_rules(build)
    check_promotion(report, name, {**document.environments, name: own})
    report.raise_errors()
    desired = Desired(
        project=view.project,
        environment=own,
        resources=build.resources,
        root=str(document.root),
        moved=moves,
    )
    secrets = tuple(sorted(build.secrets, key=lambda pair: pair[0]))
    return Resolved(desired, report.warnings, secrets, _unknown(build) if document.sealed else ())


def _without_open_rules(build: Build) -> None:
    """Take out policies whose rule waits for a variable: as it is written it is no rule, and would refuse all."""
    for address, resource in list(build.resources.items()):
        if address.kind == "policy" and "${env:" in resource.spec["require"]:
            del build.resources[address]


def _unknown(build: Build) -> tuple[Address, ...]:
    """What is declared, could not be resolved, and is not wrong: it waits for what a sealed file does not read."""
    declared = (
        Address(kind, name) for section, kind in KIND_OF_SECTION.items() for name in build.view.names.get(section, ())
    )
    return tuple(sorted(address for address in declared if address not in build.resources))


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
    for section, entries in view.plugins.items():
        if plugin := plugin_in(section):
            resolve_entries(build, plugin, entries)
