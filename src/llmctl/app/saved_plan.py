"""A plan file that is to be applied: is it for here, and is what it was made from still so?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from llmctl import spec
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput, StalePlan
from llmctl.plan import Plan, SavedPlan, moved, plan_digest, read_plan


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


def refuse_if_stale(file: Path, saved: SavedPlan, made: Plan) -> None:
    """Raise ``StalePlan`` when the plan ``made`` now is not the saved one, and name what moved."""
    lines = moved(saved.inputs, made.inputs)
    if lines or saved.digest != plan_digest(made):
        raise _stale(file, lines or ["its steps would be others now"])


def _stale(file: Path, lines: Sequence[str]) -> StalePlan:
    return StalePlan(
        f"{file} is stale: what it was made from has moved",
        detail="\n".join(lines),
        hint="Plan again with `llmctl plan --out FILE` and have the new plan reviewed.",
    )
