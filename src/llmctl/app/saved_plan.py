"""A plan file that is to be applied: is it for here, and is what it was made from still so?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from llmctl import spec
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput, StalePlan
from llmctl.plan import Plan, SavedPlan, covered_of, moved, plan_digest, read_plan

_PARTS = {
    "policies": "what policies say of it",
    "denials": "what is against it",
    "weakened": "what asks for less",
    "gates": "the gates that run",
    "open_break_glass": "what a break-glass left open",
}


def workspace_of(plan_file: Path, file: str | None, environment: str | None) -> Workspace:
    """What a saved plan is to be applied in: the environment that was asked for, or else the plan's own.

    Raises ``StalePlan`` when the file no longer has the plan's own, ``InvalidInput`` as ``open_workspace`` does.
    """
    saved = read_plan(plan_file)
    try:
        return open_workspace(file, environment or saved.environment)
    except InvalidInput:
        document = spec.load(spec.find_file(file, Path.cwd()))
        own = environment in (None, saved.environment) and document.project == saved.project
        if own and saved.environment not in document.environments:
            gone = f"environment {saved.environment}: the file does not have it any more"
            raise _stale(plan_file, [gone]) from None
        raise


def read_for(workspace: Workspace, file: Path, declared: Collection[Address]) -> SavedPlan:
    """The saved plan; ``declared`` is what the file declares now.

    Raises ``InvalidInput`` when it is no plan for this environment, ``StalePlan`` when a target of it is gone.
    """
    saved = read_plan(file)
    if saved.offline:
        raise InvalidInput(
            [Diagnostic(f"{file} is an offline plan; it cannot be applied", hint="Plan again without --offline.")]
        )
    if saved.action != "apply":
        command = f"rollback --to {saved.rollback_to}" if saved.action == "rollback" else saved.action
        raise InvalidInput(
            [Diagnostic(f"{file} is a plan for a {saved.action}", hint=f"Run `llmctl {command}`, it plans the same.")]
        )
    project = workspace.document.project
    if (saved.environment, saved.project) != (workspace.environment.name, project):
        here = saved.project == project
        hint = f"Apply it with -e {saved.environment}." if here else f"Apply it in {saved.project}; this is {project}."
        raise InvalidInput(
            [
                Diagnostic(
                    f"{file} is a plan for {saved.project}, environment {saved.environment}",
                    hint=hint,
                )
            ]
        )
    recorded = workspace.recorded().resources if saved.targets else {}
    gone = [target for target in saved.targets if target not in declared and target not in recorded]
    if gone:
        raise _stale(file, [f"{a}: a target of the plan, and neither declared nor recorded any more" for a in gone])
    return saved


def with_base(made: Plan, saved: SavedPlan) -> Plan:
    """The plan ``made`` now, and what the rules of another revision (``--base``) said of the saved one: who applies
    it may not have that revision. It can only add to what stands against the plan."""
    known = {(r.policy, r.address) for r in made.policies if r.basis == "base"}
    more = [r for r in saved.before if (r.policy, r.address) not in known]
    policies = sorted((*made.policies, *more), key=lambda r: (r.policy, r.address, r.basis != "head"))
    return replace(made, policies=tuple(policies), weakened=(*made.weakened, *saved.weakened))


def refuse_if_stale(file: Path, saved: SavedPlan, made: Plan) -> None:
    """Raise ``StalePlan`` when the plan ``made`` now is not the saved one, and name what moved."""
    lines = moved(saved.inputs, made.inputs)
    if lines or saved.digest != plan_digest(made):
        raise _stale(file, lines or _others(saved.parts, covered_of(made)))


def _others(then: Mapping[str, Json], now: Mapping[str, Json]) -> list[str]:
    """Which parts differ although nothing that they were made from did."""
    return [f"{_PARTS.get(part, f'its {part}')}: not as it was planned" for part in now if then.get(part) != now[part]]


def _stale(file: Path, lines: Sequence[str]) -> StalePlan:
    return StalePlan(
        f"{file} is stale: what it was made from has moved",
        detail="\n".join(lines),
        hint="Plan again with `llmctl plan --out FILE` and have the new plan reviewed.",
    )
