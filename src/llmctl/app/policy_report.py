"""Use cases: which policies there are, why one decides as it does, and whether they decide as their cases say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from llmctl.app.planning import plan
from llmctl.app.policies import today
from llmctl.app.workspace import Workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.core.resources import Spec
from llmctl.plan import Plan
from llmctl.policy.cases import START, CaseResult, read_cases, run_case
from llmctl.policy.fields import PLAN, environment_view, plan_view, resource_view, root_of
from llmctl.policy.values import readable, values_read
from llmctl.policy.waivers import days_left, waivers_of
from llmctl.spec.source import display_path
from llmctl.spec.suggestions import suggestion
from llmctl.spec.yaml_reader import decode

CASES = "policies.test.yaml"


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """A policy of the file, and what it says of the file's resources, or of the plan that the file asks for.

    ``waivers`` come with the days on which they are still in force after today, negative for those that ran out.
    """

    name: str
    spec: Spec
    where: SourceRange | None
    results: tuple[PolicyResult, ...]
    waivers: tuple[tuple[Waiver, int], ...]

    def count(self, outcome: str) -> int:
        """How many results have that outcome, see ``outcome_of``."""
        return sum(outcome_of(result) == outcome for result in self.results)


@dataclass(frozen=True, slots=True)
class Judged:
    """One result with the values of the fields that the rule names."""

    result: PolicyResult
    values: tuple[tuple[str, Json], ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All about one policy; ``weakened`` says in which ways it asks for less than the record of ``serial`` does."""

    report: PolicyReport
    environment: str
    serial: int
    judged: tuple[Judged, ...]  # those that deny first, then warnings, waived ones, and what holds
    fields: tuple[tuple[str, str], ...]  # path and type of all that its rule may read
    weakened: tuple[str, ...]


#: What a result comes to, worst first.
OUTCOMES = ("denies", "warns", "waived", "holds")


def outcome_of(result: PolicyResult) -> str:
    """One of ``OUTCOMES``."""
    if result.denies:
        return "denies"
    if result.waiver is not None:
        return "waived"
    return "holds" if result.ok else "warns"


def policies(workspace: Workspace) -> tuple[PolicyReport, ...]:
    """Every policy of the file, judged by what the file and the record say; what runs is not read."""
    made, day = plan(workspace, offline=True), today()
    names = sorted(a.name for a in made.desired.resources if a.kind == "policy")
    return tuple(_report(made, name, day) for name in names)


def explain(workspace: Workspace, name: str) -> Explanation:
    """Why a policy decides as it does. Raises ``InvalidInput`` when there is none of that name."""
    made = plan(workspace, offline=True)
    address = Address("policy", name)
    if address not in made.desired.resources:
        known = [a.name for a in made.desired.resources if a.kind == "policy"]
        raise InvalidInput([Diagnostic(f"there is no policy {name!r}", hint=suggestion(name, known, "policies"))])
    report = _report(made, name, today())
    judged = [Judged(result, _values(made, report.spec, result)) for result in report.results]
    return Explanation(
        report,
        made.desired.environment.name,
        made.recorded.serial,
        tuple(sorted(judged, key=lambda j: (OUTCOMES.index(outcome_of(j.result)), j.result.address))),
        tuple(readable(report.spec["applies_to"])),
        tuple(line for w in made.weakened if w.address == address for line in w.what),
    )


def run_cases(workspace: Workspace, files: Sequence[Path]) -> tuple[tuple[CaseResult, ...], list[str]]:
    """Judge the cases of all files, by default of ``policies.test.yaml`` beside the file.

    Returns the results, and the names of policies without a case. Raises ``InvalidInput`` with every mistake.
    """
    resolved = workspace.resolved
    specs = {a.name: r.spec for a, r in resolved.desired.resources.items() if a.kind == "policy"}
    cases, findings = [], []
    for path in files or [workspace.root / CASES]:
        try:
            source = decode(path.read_bytes(), display_path(path))
            cases += read_cases(source, specs, workspace.environment, workspace.document.project)
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            findings.append(Diagnostic(f"{display_path(path)} cannot be read: {reason}", hint=START))
        except InvalidInput as error:
            findings += error.findings
    if findings:
        raise InvalidInput(findings)
    return tuple(run_case(case, specs) for case in cases), sorted(specs.keys() - {case.policy for case in cases})


def _report(made: Plan, name: str, day: date) -> PolicyReport:
    resource = made.desired.resources[Address("policy", name)]
    return PolicyReport(
        name,
        resource.spec,
        resource.where,
        tuple(result for result in made.policies if result.policy == name),
        tuple((waiver, days_left(waiver, day)) for waiver in waivers_of(resource.spec.get("waivers") or ())),
    )


def _values(made: Plan, of: Spec, result: PolicyResult) -> tuple[tuple[str, Json], ...]:
    """Read as the rule in the file reads them, also for a result of its earlier text."""
    root = root_of(of["applies_to"])
    resource = made.desired.resources.get(result.address)
    if result.address.kind != (PLAN if root == PLAN else of["applies_to"]):
        return ()
    view = plan_view(made) if resource is None else resource_view(resource)
    shared = {"environment": environment_view(made.desired.environment), "project": made.desired.project}
    return values_read(of["applies_to"], of["require"], {**shared, root: view})
