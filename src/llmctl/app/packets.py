"""A packet: all that an auditor asks of one entry of the record, in one value.

It is made from what the entry's own trees and decisions say. Entries of older versions, failed and interrupted
ones lack parts; what is there and cannot be read is named in ``damaged``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from llmctl.core.address import Address
from llmctl.core.decisions import Approval, BreakGlass, PromotionProof
from llmctl.core.digests import Json
from llmctl.core.evidence import Evidence
from llmctl.core.resources import Recorded, Rejection
from llmctl.plan import FieldDiff
from llmctl.plan.diff import field_diffs
from llmctl.record import ChangeCommit, Entry, EntryDetail, Touched, value

T = TypeVar("T")
#: "recorded": it holds since this entry. "taken back": it was made and undone. "not reached": it was only planned.
State: TypeAlias = Literal["recorded", "taken back", "not reached"]
Decided: TypeAlias = Mapping[str, Json]

_KINDS = ("dataset", "model", "prompt", "endpoint", "route", "gate", "policy")  # causes first


@dataclass(frozen=True, slots=True)
class ChangeTold:
    """What happened to one resource. Versions are 0 and revisions "" where there is none."""

    address: Address
    action: str  # create, update, replace, delete, move, or another that a later version plans
    why: str
    state: State
    moved_from: Address | None
    version_before: int
    version_after: int
    revision_before: str
    revision_after: str
    fields: tuple[FieldDiff, ...]


@dataclass(frozen=True, slots=True)
class GateTold:
    """What one gate said. ``evidence`` is None where the record claims some and holds none."""

    gate: str
    verdict: str
    digest: str
    evidence: Evidence | None
    earlier: bool  # an entry before had brought the evidence; its key still stood


@dataclass(frozen=True, slots=True)
class Packet:
    """One entry. Texts are "" and tuples empty where the record says nothing."""

    entry: Entry
    signed: bool
    machine: str
    reason: str
    run: str
    plan: str
    source_commit: str
    source_subject: str  # what its author said of the change
    source_modified: bool
    changes: tuple[ChangeTold, ...]
    restored: tuple[Decided, ...]  # drift that was put back: address, summary
    gates: tuple[GateTold, ...]
    policies: tuple[Decided, ...]
    approvals_required: int
    approvals: tuple[Approval, ...]
    break_glass: BreakGlass | None
    is_open: bool  # the break-glass: no reconciling apply has closed it yet
    reconciled_by: int  # serial of the entry that closed it, 0 for none that is known
    reconciles: tuple[int, ...]
    promotion: PromotionProof | None
    rejected: tuple[Rejection, ...]
    allowed: tuple[Rejection, ...]  # rejections that no longer hold
    steps: tuple[Decided, ...]
    closed_by: str  # who recorded an interrupted attempt
    unfinished: tuple[str, ...]  # steps whose outcome nobody knows, of an interrupted attempt
    commits: tuple[ChangeCommit, ...]
    damaged: tuple[str, ...]
    decisions: Json


def packet(detail: EntryDetail, *, still_open: Iterable[BreakGlass], reconciled: Mapping[int, int]) -> Packet:
    """The packet of one entry; ``still_open`` and ``reconciled`` (by serial) are what later entries say."""
    entry, parts = detail.entry, _Parts(detail.decisions)
    before, after = detail.before, detail.after
    held = set(before.rejections) if before else set()
    holds = set(after.rejections) if after else held
    approvals = parts.one("approvals", lambda d: (int(d["required"]), tuple(map(Approval.from_json, d["given"]))))
    broken = parts.one("break_glass", BreakGlass.from_json)
    return Packet(
        entry=entry,
        signed=detail.signed,
        machine=parts.text("machine"),
        reason=parts.text("reason"),
        run=parts.text("run") or value(entry.trailers, "Run"),
        plan=parts.text("plan") or value(entry.trailers, "Plan"),
        source_commit=parts.text("source_commit") or value(entry.trailers, "Source"),
        source_subject=parts.text("source_subject"),
        source_modified=bool(detail.decisions.get("source_modified")),
        changes=_changes(detail, parts),
        restored=parts.many("drift", "address", "summary"),
        gates=_gates(detail),
        policies=parts.many("policies", "policy", "address", "severity", "ok"),
        approvals_required=approvals[0] if approvals else 0,
        approvals=approvals[1] if approvals else (),
        break_glass=broken,
        is_open=broken is not None and any(b.serial == entry.serial for b in still_open),
        reconciled_by=reconciled.get(entry.serial, 0),
        reconciles=tuple(n for n in parts.list("reconciles") if isinstance(n, int)),
        promotion=parts.one("promotion", PromotionProof.from_json),
        rejected=tuple(r for r in (after.rejections if after else ()) if r not in held),
        allowed=tuple(r for r in (before.rejections if before else ()) if r not in holds),
        steps=parts.many("steps", "id", "state"),
        closed_by=parts.text("closed_by"),
        unfinished=tuple(str(step) for step in parts.list("open_intents")),
        commits=detail.changes,
        damaged=tuple(parts.damaged),
        decisions=detail.decisions,
    )


class _Parts:
    """Parts of decisions, read tolerantly: what has another form is named instead of an error."""

    def __init__(self, decisions: Json) -> None:
        self._decisions = decisions
        self.damaged: dict[str, None] = {}

    def text(self, name: str) -> str:
        found = self._decisions.get(name)
        return found if isinstance(found, str) else ""

    def list(self, name: str) -> list[Json]:
        found = self._decisions.get(name)
        if found is not None and not isinstance(found, list):
            self.damaged[name] = None
        return found if isinstance(found, list) else []

    def many(self, name: str, *needed: str) -> tuple[Decided, ...]:
        """The mappings of a list that have these keys."""
        whole = [d for d in self.list(name) if isinstance(d, dict) and all(key in d for key in needed)]
        if len(whole) < len(self.list(name)):
            self.damaged[name] = None
        return tuple(whole)

    def one(self, name: str, read: Callable[[Mapping[str, Json]], T]) -> T | None:
        found = self._decisions.get(name)
        if found is None:
            return None
        try:
            return read(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            self.damaged[name] = None
            return None


def _changes(detail: EntryDetail, parts: _Parts) -> tuple[ChangeTold, ...]:
    planned = {str(d["address"]): d for d in parts.many("changes", "address", "action")}
    origins = set(detail.moves.values())
    touched = {t.address: t for t in detail.touched}
    told = [
        change_told(t, planned.pop(str(t.address), {}), touched.get(detail.moves.get(t.address, t.address)))
        for t in detail.touched
        if t.address not in origins or t.after is not None
    ]
    for text, plan in planned.items():
        try:
            address = Address.parse(text)
        except ValueError:
            parts.damaged["changes"] = None
            continue
        told.append(_only_planned(address, plan))
    return tuple(sorted(told, key=lambda c: (_rank(c.address), c.address)))


def change_told(touched: Touched, plan: Decided, origin: Touched | None = None) -> ChangeTold:
    """One resource's change from what the record held before and after; ``plan`` says why, ``origin`` is what it
    was renamed from."""
    moved = origin is not None and origin.address != touched.address
    before = origin.before if moved and origin else touched.before
    after = touched.after
    return ChangeTold(
        address=touched.address,
        action=str(plan.get("action") or ("move" if moved else _action(before, after))),
        why=str(plan.get("reason") or ""),
        state="recorded" if touched.kept else "taken back",
        moved_from=origin.address if moved and origin else None,
        version_before=before.version if before else 0,
        version_after=after.version if after else 0,
        revision_before=before.revision if before else "",
        revision_after=after.revision if after else "",
        fields=_fields(touched.address.kind, before, after),
    )


def _only_planned(address: Address, plan: Decided) -> ChangeTold:
    before, after = (str(plan.get(side) or "") for side in ("before", "after"))
    why = str(plan.get("reason") or "")
    return ChangeTold(address, str(plan["action"]), why, "not reached", None, 0, 0, before, after, ())


def _action(before: Recorded | None, after: Recorded | None) -> str:
    if before is None:
        return "create"
    return "update" if after is not None else "delete"


def _fields(kind: str, before: Recorded | None, after: Recorded | None) -> tuple[FieldDiff, ...]:
    found = field_diffs(kind, before.spec if before else None, after.spec if after else None)
    if before is None or after is None:
        return found
    # Where it runs is no part of what was declared, but it is in the record, and it may be all that changed.
    outputs = field_diffs("", before.outputs, after.outputs)
    return (*found, *(FieldDiff(f"outputs.{d.path}", d.before, d.after) for d in outputs))


def _gates(detail: EntryDetail) -> tuple[GateTold, ...]:
    evidence = {e.digest: e for e in detail.evidence}
    return tuple(
        GateTold(c.gate, c.verdict.value, c.digest, evidence.get(c.digest), c.digest in detail.earlier)
        for c in detail.claims
    )


def _rank(address: Address) -> int:
    return _KINDS.index(address.kind) if address.kind in _KINDS else len(_KINDS)
