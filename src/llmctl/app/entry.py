"""What the entry of an apply says in the record: outcome, subject, decisions, rejections."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llmctl.app.approvals import Counted, decided
from llmctl.app.request import Request
from llmctl.app.workspace import Workspace
from llmctl.apply import ApplyResult, State
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError
from llmctl.core.exits import ExitCode
from llmctl.core.resources import Rejection
from llmctl.core.steps import Action, Destroy, Move, Promote, Step
from llmctl.plan import Plan, plan_json
from llmctl.plan.drift import UNMANAGED
from llmctl.record import Outcome as Ending
from llmctl.record.messages import subject_of
from llmctl.record.objects import read_commits

_NAMED = 3  # changes that the subject of an entry names


def word(code: ExitCode, request: Request, *, finished: bool) -> Ending:
    """The record says what holds: where every step was done, an interruption left nothing out."""
    if finished:
        return "rolled back" if request.action == "rollback" else "applied"
    return "interrupted" if code is ExitCode.INTERRUPTED else "failed"


def subject(
    request: Request, made: Plan, result: ApplyResult | None, errors: list[LlmctlError], closed: Sequence[int] = ()
) -> str:
    """What the log shows of an entry: what changed, or why it did not; and which break-glasses it ``closed``."""
    what = request.action if request.rollback_to is None else f"rollback to serial {request.rollback_to}"
    what += " (break-glass)" if made.break_glass else ""
    if errors:
        return f"{what}: {errors[0].summary}"
    if result is None or not result.ok:
        return f"{what}: stopped before it was done"
    said = [f"{c.address} v{c.version_after}" for c in made.changes if c.action is not Action.DELETE]
    said += [f"{c.address} deleted" for c in made.changes if c.action is Action.DELETE]
    touched = {step.address for step in made.steps}
    drifted = {d.address: d.summary.startswith(UNMANAGED) for d in made.drift if d.address in touched}
    changed = {c.address for c in made.changes}
    said += [f"{address} restored" for address, unmanaged in drifted.items() if not unmanaged]
    said += [f"unmanaged {a} taken away" for a, unmanaged in drifted.items() if unmanaged and a not in changed]
    said += [f"break-glass of serial {serial} put right" for serial in closed]
    routes_first = sorted(said, key=lambda text: not text.startswith("route."))
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return f"{what}: {', '.join(routes_first[:_NAMED]) or 'nothing was left'}{more}"


@dataclass(frozen=True, slots=True)
class Consented:
    """Who answers for an apply: its approvals, the break-glass that it is (``own``), and the serials of those that it
    ``closed``. ``lowers`` says whether from now on as few approvals are needed as the file says, ``applied_source`` is
    the commit up to which all of the file is applied and approved: who wrote what came after may not approve it."""

    approvals: Counted
    own: BreakGlass | None = None
    closed: tuple[int, ...] = ()
    lowers: bool = False
    applied_source: str = ""

    def to_json(self) -> dict[str, Json]:
        counted = self.approvals
        return {
            "applied_source": self.applied_source,
            **({"approvals": decided(counted, lowers=self.lowers)} if counted.required or counted.declared else {}),
            **({"break_glass": self.own.to_json()} if self.own else {}),
            **({"reconciles": list(self.closed)} if self.closed else {}),
        }


def trailers(decisions: Mapping[str, Json]) -> list[tuple[str, str]]:
    """The trailers that say of an entry what its decisions do."""
    approvals, broken = decisions.get("approvals") or {}, decisions.get("break_glass")
    return [
        *(("Approval", f"{each['signer']} {each['key']}") for each in approvals.get("given", ())),
        *([("Break-Glass", broken["reason"])] if broken else []),
        *(("Reconciles", str(serial)) for serial in decisions.get("reconciles", ())),
    ]


def decisions(
    workspace: Workspace, request: Request, made: Plan, result: ApplyResult | None, consent: Consented
) -> Json:
    """``decisions/<serial>.json``: who and where, what was planned, what policies said, how each step ended."""
    shown = plan_json(made)
    return {
        "action": request.action,
        "reason": request.reason,
        "actor": workspace.repository.actor(),
        "machine": socket.gethostname(),
        "run": ci_run(),
        "plan": shown["digest"],
        "changes": [{k: c[k] for k in ("address", "action", "reason", "before", "after")} for c in shown["changes"]],
        "drift": shown["drift"],
        "policies": shown["policies"],
        **({"promotion": made.promotion.to_json()} if made.promotion else {}),
        **consent.to_json(),
        "source_commit": made.source_commit,
        "source_subject": _said_of(workspace, made.source_commit),
        "source_modified": workspace.repository.is_dirty(workspace.document.files),
        "steps": [
            {"id": r.step.id, "state": r.state.value, "text": r.text, "seconds": round(r.seconds, 3)}
            for r in (result.results if result else ())
        ],
    }


def _said_of(workspace: Workspace, commit: str) -> str:
    """The subject of the source commit, by which its author says why."""
    return subject_of(read_commits(workspace.repository, [commit])[0].message) if commit else ""


def rejections(made: Plan, request: Request, result: ApplyResult | None, actor: str) -> tuple[Rejection, ...]:
    """A rollback rejects the route revisions that it left, each as soon as that route is back, or gone.

    What is rejected already stays so, also under the name that its route got.
    """
    done = [r.step for r in result.results if r.state is State.DONE] if result else []
    to = {step.origin: step.address for step in done if isinstance(step, Move)}
    kept = under_new_names(made.recorded.rejections, to)
    if request.action != "rollback":
        return kept
    ended = (s for s in done if isinstance(s, Promote | Destroy) and s.address.kind == "route")
    away = {step.address for step in ended if not _restores(step)}
    serial = made.recorded.serial + 1
    left = (
        Rejection(c.address, c.before, serial, request.reason or f"rolled back to serial {request.rollback_to}", actor)
        for c in made.changes
        if c.address in away and c.before and c.before != c.after
    )
    known = {(r.address, r.revision) for r in kept}
    return (*kept, *(r for r in left if (r.address, r.revision) not in known))


def under_new_names(rejections: Sequence[Rejection], to: Mapping[Address, Address]) -> tuple[Rejection, ...]:
    """Rejections after the renames ``to``."""
    return tuple(replace(r, address=to.get(r.address, r.address)) for r in rejections)


def _restores(step: Step) -> bool:
    return isinstance(step, Promote) and step.action is Action.RESTORE


def ci_run() -> str:
    """The address of the CI run, when there is one."""
    env = os.environ
    if env.get("GITHUB_RUN_ID"):
        return (
            f"{env.get('GITHUB_SERVER_URL', '')}/{env.get('GITHUB_REPOSITORY', '')}/actions/runs/{env['GITHUB_RUN_ID']}"
        )
    return env.get("CI_JOB_URL") or env.get("BUILD_URL") or ""
