"""Saved plans, read back: to show them, and to refuse them when what they were made from has moved."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic, Severity, SourceRange
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.core.resources import Desired, Environment, RecordState
from llmctl.core.steps import Action, Destroy, Move, Promote, Provision, Retire, RunGate, Shift, Stage, Step
from llmctl.plan.model import (
    FORMAT,
    Consent,
    Drift,
    FieldDiff,
    GateForecast,
    Inputs,
    Plan,
    ResourceChange,
    Weakening,
)
from llmctl.plan.planfile import body_digest, covered, seal_of
from llmctl.plan.weakened import RECORD

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What is read back of a plan file: enough to plan the same again, and to refuse it when anything moved.

    ``before`` is what policies as they were before the change said of it, ``weakened`` what asks for less than in
    another revision of the file. That revision (``--base``) is known to the saved plan alone. ``parts`` is what the
    digest covers, ``seal`` covers the whole file.
    """

    digest: str
    environment: str
    project: str
    offline: bool
    action: str
    inputs: Inputs
    targets: tuple[Address, ...] = ()
    rollback_to: int = 0
    before: tuple[PolicyResult, ...] = ()
    weakened: tuple[Weakening, ...] = ()
    parts: Mapping[str, Json] = field(default_factory=dict)
    seal: str = ""


def read_plan(path: Path) -> SavedPlan:
    """Read a plan file. Raises ``InvalidInput`` when it is not one, is of another format or was edited."""
    return _read(path, _saved, "applied")


def load_plan(path: Path) -> Plan:
    """Read a plan file to show it; of desired and recorded only project, environment and serial are in it.

    Raises ``InvalidInput`` as ``read_plan`` does.
    """
    return _read(path, _plan, "shown")


def may_replace(path: Path) -> bool:
    """Whether a plan may be saved here: no file is there, or an empty one, or a plan, of whatever format."""
    if not os.path.isfile(path):  # what is there and is no file, such as /dev/stdout, is not read
        return True
    try:
        content = path.read_bytes()
        return not content or {"format", "steps"} <= json.loads(content).keys()
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _read(path: Path, build: Callable[[Mapping[str, Json]], T], use: str) -> T:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise _not_a_plan(path, use, f"its format is {data['format']}; this llmctl reads {FORMAT}")
        if "seal" not in data and "steps" in data:
            raise _not_a_plan(path, use, "an earlier llmctl wrote it, whose digest does not cover all that is shown")
        if seal_of(data) != data["seal"] or body_digest(data) != data["digest"]:
            raise _not_a_plan(path, use, "its content does not match its digest: it was edited or damaged")
        if not (isinstance(data["environment"], str) and isinstance(data["project"], str)):
            raise TypeError("it has no name")
        return build(data)
    except OSError as error:
        raise _not_a_plan(path, use, error.strerror or "it cannot be read") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _not_a_plan(path, use, "it is not a plan that `llmctl plan --out` wrote") from None


def _not_a_plan(path: Path, use: str, why: str) -> InvalidInput:
    hint = "Make a new one with `llmctl plan --out FILE`."
    return InvalidInput([Diagnostic(f"{path} cannot be {use}: {why}", hint=hint)])


def _saved(data: Mapping[str, Json]) -> SavedPlan:
    return SavedPlan(
        data["digest"],
        data["environment"],
        data["project"],
        data["offline"],
        data["action"],
        _inputs(data["inputs"]),
        _addresses(data["targets"]),
        data["rollback_to"],
        tuple(r for r in map(_policy, data["policies"]) if r.basis == "base"),
        tuple(w for w in map(_weakening, data["weakened"]) if w.against != RECORD),
        covered(data),
        data["seal"],
    )


def _plan(data: Mapping[str, Json]) -> Plan:
    inputs = _inputs(data["inputs"])
    environment = Environment(data["environment"], data["target"])
    still_open = tuple(map(BreakGlass.from_json, data["open_break_glass"]))
    return Plan(
        action=data["action"],
        desired=Desired(data["project"], environment, {}),
        recorded=RecordState(
            environment.name, inputs.serial, inputs.head, project=data["project"], break_glass=still_open
        ),
        changes=tuple(_change(c) for c in data["changes"]),
        drift=tuple(Drift(_address(d["address"]), d["summary"], tuple(d["details"])) for d in data["drift"]),
        steps=tuple(_step(s) for s in data["steps"]),
        gates=tuple(_gate(g) for g in data["gates"]),
        impact=tuple(data["impact"]),
        blocked=_diagnostics(data["blocked"]),
        inputs=inputs,
        policies=tuple(_policy(p) for p in data["policies"]),
        denials=_diagnostics(data["denials"]),
        warnings=_diagnostics(data["warnings"]),
        source_commit=data["source_commit"],
        offline=data["offline"],
        rollback_to=data["rollback_to"],
        weakened=tuple(map(_weakening, data["weakened"])),
        targets=_addresses(data["targets"]),
        waiting=_addresses(data["waiting"]),
        left_out=_addresses(data["left_out"]),
        break_glass=data["break_glass"],
        skipped_gates=_addresses(data["skipped_gates"]),
        reconciles=tuple(data["reconciles"]),
        approvals=_consent(data["approvals"]),
    )


def _inputs(data: Mapping[str, Json]) -> Inputs:
    found = Inputs(**data)
    if not all(isinstance(part, dict) for part in (found.desired, found.live, found.settings)):
        raise TypeError("what a plan was made from are maps")
    return found


def _address(text: str) -> Address:
    return Address.parse(text)


def _addresses(texts: Sequence[str]) -> tuple[Address, ...]:
    return tuple(_address(text) for text in texts)


def _change(data: Mapping[str, Json]) -> ResourceChange:
    origin = data["moved_from"]
    return ResourceChange(
        **{
            **data,
            "address": _address(data["address"]),
            "action": Action(data["action"]),
            "diffs": tuple(FieldDiff(**diff) for diff in data["diffs"]),
            "moved_from": _address(origin) if origin else None,
        }
    )


def _gate(data: Mapping[str, Json]) -> GateForecast:
    named = {"gate": _address(data["gate"]), "route": _address(data["route"]), "rules": tuple(data["rules"])}
    return GateForecast(**{**data, **named})


def _policy(data: Mapping[str, Json]) -> PolicyResult:
    waiver = Waiver(**data["waiver"]) if data["waiver"] else None
    return PolicyResult(**{**data, "address": _address(data["address"]), "waiver": waiver})


def _weakening(data: Mapping[str, Json]) -> Weakening:
    return Weakening(_address(data["address"]), tuple(data["what"]), data["against"])


def _consent(data: Mapping[str, Json]) -> Consent:
    return Consent(**{**data, "given": tuple(data["given"]), "refused": tuple(data["refused"])})


def _diagnostics(found: Sequence[Mapping[str, Json]]) -> tuple[Diagnostic, ...]:
    return tuple(
        Diagnostic(
            d["summary"],
            Severity(d["severity"]),
            SourceRange(**d["where"]) if d["where"] else None,
            _address(d["address"]) if d["address"] else None,
            d["detail"],
            d["hint"],
        )
        for d in found
    )


def _step(data: Mapping[str, Json]) -> Step:
    common = {
        "id": data["id"],
        "address": _address(data["address"]),
        "needs": tuple(data["needs"]),
        "after": tuple(data["after"]),
        "revision": data["revision"],
    }
    match data["type"]:
        case "Provision":
            return Provision(**common, action=Action(data["action"]), restores=data["restores"])
        case "Stage":
            return Stage(**common)
        case "RunGate":
            return RunGate(
                **common, route=_address(data["route"]), baseline=data["baseline"], as_recorded=data["as_recorded"]
            )
        case "Shift":
            weights = tuple((revision, share) for revision, share in data["weights"])
            return Shift(**common, weights=weights, hold_s=data["hold_s"])
        case "Promote":
            return Promote(**common, action=Action(data["action"]))
        case "Retire":
            return Retire(**common)
        case "Destroy":
            return Destroy(**common)
        case "Move":
            return Move(**common, origin=_address(data["origin"]))
    raise ValueError(f"unknown step type {data['type']!r}")
