"""The plan as JSON: for ``--json``, for the plan file, and to tell whether a saved plan still holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from pathlib import Path

from llmctl import __version__
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json, digest
from llmctl.core.errors import InvalidInput
from llmctl.core.steps import Step
from llmctl.plan.model import FORMAT, Inputs, Plan


def _plain(value: object) -> Json:
    """Any frozen plan value as JSON; addresses become ``kind.name``."""
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    return value


def step_json(step: Step) -> dict[str, Json]:
    """A step with its type: ``{"type": "stage", "id": …}``."""
    return {"type": type(step).__name__, **_plain(step)}


def diagnostic_json(diagnostic: Diagnostic) -> dict[str, Json]:
    """A diagnostic for programs; ``where`` has file, line and column."""
    where = diagnostic.where
    return {
        "severity": diagnostic.severity.value,
        "summary": diagnostic.summary,
        "address": str(diagnostic.address) if diagnostic.address else None,
        "where": {"file": where.file, "line": where.line, "column": where.column} if where else None,
        "detail": diagnostic.detail,
        "hint": diagnostic.hint,
    }


def plan_digest(plan: Plan) -> str:
    """Names the plan: what it was made from and what it would do."""
    return digest(
        {
            "action": plan.action,
            "project": plan.desired.project,
            "environment": plan.desired.environment.name,
            "inputs": asdict(plan.inputs),
            "steps": [step_json(s) for s in plan.steps],
        }
    )


def plan_json(plan: Plan) -> dict[str, Json]:
    """The whole plan for programs, versioned by ``format``; its schema is ``schema/plan.schema.json``."""
    return {
        "format": FORMAT,
        "llmctl": __version__,
        "digest": plan_digest(plan),
        "action": plan.action,
        "project": plan.desired.project,
        "environment": plan.desired.environment.name,
        "source_commit": plan.source_commit,
        "offline": plan.offline,
        "rollback_to": plan.rollback_to,
        "empty": plan.is_empty,
        "changes": _plain(plan.changes),
        "drift": _plain(plan.drift),
        "steps": [step_json(s) for s in plan.steps],
        "gates": _plain(plan.gates),
        "impact": list(plan.impact),
        "policies": _plain(plan.policies),
        "denials": [diagnostic_json(d) for d in plan.denials],
        "blocked": [diagnostic_json(d) for d in plan.blocked],
        "warnings": [diagnostic_json(d) for d in plan.warnings],
        "inputs": _plain(plan.inputs),
    }


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What is read back of a plan file: enough to refuse it when anything moved."""

    digest: str
    environment: str
    project: str
    offline: bool
    action: str
    inputs: Inputs


def read_plan(path: Path) -> SavedPlan:
    """Read a plan file. Raises ``InvalidInput`` when it is not one, is of another format or was edited."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise _not_a_plan(path, f"its format is {data['format']}; this llmctl reads {FORMAT}")
        inputs = Inputs(**data["inputs"])
        body = {k: data[k] for k in ("action", "project", "environment", "steps")}
        if digest({**body, "inputs": asdict(inputs)}) != data["digest"]:
            raise _not_a_plan(path, "its content does not match its digest: it was edited or damaged")
        return SavedPlan(data["digest"], data["environment"], data["project"], data["offline"], data["action"], inputs)
    except OSError as error:
        raise _not_a_plan(path, error.strerror or "it cannot be read") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_plan(path, "it is not a plan that `llmctl plan --out` wrote") from None


def _not_a_plan(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        [Diagnostic(f"{path} cannot be applied: {why}", hint="Make a new one with `llmctl plan --out FILE`.")]
    )


def moved(saved: Inputs, now: Inputs) -> list[str]:
    """What differs between what a saved plan was made from and what is there now, a line each."""
    lines = []
    if saved.serial != now.serial or saved.head != now.head:
        lines.append(f"the record: serial {saved.serial} when planned, {now.serial} now")
    for name in sorted({*saved.desired, *now.desired}):
        if saved.desired.get(name) != now.desired.get(name):
            state = "new" if name not in saved.desired else "gone" if name not in now.desired else "changed"
            lines.append(f"{name}: {state} in llmops.yaml or a file that it refers to")
    for name in sorted({*saved.live, *now.live}):
        before, after = saved.live.get(name, "absent"), now.live.get(name, "absent")
        if before != after:
            lines.append(f"{name}: live was {before or 'nothing'} when planned, is {after or 'nothing'} now")
    return lines
