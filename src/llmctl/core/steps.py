"""The steps of a plan: a closed union, read by people in the plan and interpreted by apply."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Union

from llmctl.core.address import Address


class Action(Enum):
    """What a plan does to one resource."""

    CREATE = "create"
    UPDATE = "update"  # in place, or a new version of an artifact
    REPLACE = "replace"  # a new deployment revision beside the old one, proven before it takes over
    DELETE = "delete"
    ADOPT = "adopt"  # live already as desired, only not recorded
    RESTORE = "restore"  # live is not as recorded: drift
    MOVE = "move"  # the same resource under another name (`moved:`)
    NOOP = "no-op"


@dataclass(frozen=True, slots=True)
class _Step:
    id: str  # unique in the plan and stable between runs: "stage:route.support@3fa9…"
    address: Address
    needs: tuple[str, ...]  # ids of steps that must have succeeded before
    after: tuple[str, ...] = field(default=(), kw_only=True)  # … that must have ended before, however


@dataclass(frozen=True, slots=True)
class Provision(_Step):
    """Make the desired revision of a resource exist; for rules, record it."""

    revision: str
    action: Action
    restores: bool = False


@dataclass(frozen=True, slots=True)
class Stage(_Step):
    """Make a route revision reachable as ``name@revision`` for the gate's token only."""

    revision: str


@dataclass(frozen=True, slots=True)
class RunGate(_Step):
    """Prove a route revision. ``address`` is the gate's."""

    route: Address
    revision: str  # of the route
    baseline: str = ""  # the live route revision that `max_drop` compares with; "" when none
    as_recorded: bool = False  # judged by the gate as it was recorded, because this change weakens or deletes it


@dataclass(frozen=True, slots=True)
class Shift(_Step):
    """Move public traffic: ``weights`` maps route revisions to percent; ``hold_s`` is how long they then stand."""

    revision: str
    weights: tuple[tuple[str, int], ...]
    hold_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Promote(_Step):
    """Make a route revision the one that serves, and record it."""

    revision: str
    action: Action


@dataclass(frozen=True, slots=True)
class Retire(_Step):
    """Take away a deployment or route revision that nothing needs any more."""

    revision: str


@dataclass(frozen=True, slots=True)
class Destroy(_Step):
    """Delete a resource that is no longer desired, and record that."""

    revision: str


@dataclass(frozen=True, slots=True)
class Move(_Step):
    """Give what is recorded as ``origin`` its new name, ``address``, as it is; changes to it come after."""

    origin: Address
    revision: str  # the recorded one


Step = Union[Move, Provision, Stage, RunGate, Shift, Promote, Retire, Destroy]
