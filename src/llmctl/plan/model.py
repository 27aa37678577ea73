"""What a plan is made of. All values are frozen; nothing here reads or writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.core.address import Address
from llmctl.core.decisions import PromotionProof
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.policies import PolicyResult
from llmctl.core.resources import Desired, RecordState
from llmctl.core.steps import Action, Step

FORMAT = 1


@dataclass(frozen=True, slots=True)
class FieldDiff:
    """One field that differs: ``path`` is dotted, ``[n]`` for lists, ``["a.b"]`` for such keys; None is for absent."""

    path: str
    before: Json
    after: Json


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """Desired differs from recorded, for one resource."""

    address: Address
    action: Action
    reason: str
    before: str  # recorded revision, "" when new
    after: str  # desired revision, "" when deleted
    version_before: int = 0
    version_after: int = 0
    diffs: tuple[FieldDiff, ...] = ()
    moved_from: Address | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """Live differs from recorded, for one resource. ``details`` says how, a line each."""

    address: Address
    summary: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GateForecast:
    """A gate that will run, against which revision and why; ``cached`` names a verdict already proven."""

    gate: Address
    route: Address
    revision: str
    baseline: str
    why: str
    rules: tuple[str, ...]  # "exact_match ≥ 0.95"
    cached: str = ""  # PASS, FAIL or INCONCLUSIVE from evidence whose key still stands
    cached_at: str = ""  # when that was measured (ISO 8601, UTC)
    as_recorded: bool = False  # the gate as it was recorded, because this change weakens or deletes it


@dataclass(frozen=True, slots=True)
class Weakening:
    """A gate or policy that asks for less than it did: ``what`` says in which ways, a line each."""

    address: Address
    what: tuple[str, ...]
    against: str  # "the record", or the git revision given with --base


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the plan was made from; a saved plan is refused when any of it moved."""

    desired: Mapping[str, str]  # address: digest of the resolved spec
    serial: int
    head: str
    live: Mapping[str, str]  # see LiveState.fingerprint
    settings: Mapping[str, str] = field(default_factory=dict)  # of the environment, by key in the file; "" for unset


@dataclass(frozen=True, slots=True)
class Consent:
    """How many people must approve a plan, and who has. Said with the plan, and no part of what they approve.

    ``required`` is more than the file's own ``declared`` where the last apply still needed more.
    """

    required: int = 0
    declared: int = 0
    given: tuple[str, ...] = ()  # principals whose approval counts
    refused: tuple[str, ...] = ()  # approvals that do not count, a line each with why

    @property
    def missing(self) -> int:
        return max(0, self.required - len(self.given))


NO_CONSENT = Consent()


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen plan: what changes, why, what proves it, and the steps that do it.

    ``desired`` and ``recorded`` are what apply interprets the steps with; the plan file leaves them out
    and they are rebuilt, and compared through ``inputs``, when it is applied.
    """

    action: str  # apply | destroy | rollback
    desired: Desired
    recorded: RecordState
    changes: tuple[ResourceChange, ...]
    drift: tuple[Drift, ...]
    steps: tuple[Step, ...]
    gates: tuple[GateForecast, ...]
    impact: tuple[str, ...]  # the blast radius, one sentence a line
    blocked: tuple[Diagnostic, ...]  # unreadable: neither changed nor taken for absent
    inputs: Inputs
    policies: tuple[PolicyResult, ...] = ()
    denials: tuple[Diagnostic, ...] = ()  # why apply would exit 3
    warnings: tuple[Diagnostic, ...] = ()
    source_commit: str = ""
    offline: bool = False
    rollback_to: int = 0
    weakened: tuple[Weakening, ...] = ()
    targets: tuple[Address, ...] = ()  # what --target asked for; empty for everything
    waiting: tuple[Address, ...] = ()  # what would change and is held: it needs something that is blocked
    left_out: tuple[Address, ...] = ()  # what would change too, and is not among the targets
    promotion: PromotionProof | None = None  # on what an apply rests that brings revisions from another environment
    break_glass: str = ""  # why gates or approvals are skipped, "" when they are not
    skipped_gates: tuple[Address, ...] = ()
    reconciles: tuple[int, ...] = ()  # serials of break-glass applies that this one is to put right
    approvals: Consent = NO_CONSENT

    @property
    def is_empty(self) -> bool:
        """True when apply would have nothing to do."""
        return not self.steps and not self.blocked and not self.reconciles
