"""Resources in their three states: desired, recorded, live. All are frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.digests import Json

Spec = dict[str, Json]
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Resource:
    """What one resource should be: its resolved spec (JSON, no secrets) and its revision."""

    address: Address
    spec: Spec
    revision: str
    needs: tuple[Address, ...] = ()  # resources that must exist before this one
    where: SourceRange | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the record says of one resource.

    ``revisions`` lists every revision the record gave a version, oldest first, so that content that
    comes back gets its old number.
    """

    address: Address
    spec: Spec
    revision: str
    version: int
    needs: tuple[Address, ...] = ()
    revisions: tuple[str, ...] = ()
    outputs: Spec = field(default_factory=dict)


@dataclass(frozen=True, order=True, slots=True)
class Key:
    """Names one live thing: ``support`` or, where revisions live side by side, ``support@3fa9…``."""

    name: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @classmethod
    def parse(cls, text: str) -> Key:
        name, _, revision = text.partition("@")
        return cls(name, revision)


@dataclass(frozen=True)  # no slots: `Live[Json](…)` sets an attribute, which frozen slots refuse badly
class Live(Generic[S]):
    """One live thing as it was read back."""

    key: Key
    state: S
    revision: str  # of what is really there, as read back; "" when it cannot be told
    healthy: bool = True
    detail: str = ""  # for people: "pid 4711, up 3 h"
    outputs: Spec = field(default_factory=dict)  # addresses and the like, for dependents


@dataclass(frozen=True)
class Reading(Generic[S]):
    """The answer of one bulk read. What could not be read is listed, never left out.

    ``unreadable`` maps a key to the reason. The key ``ALL`` means that nothing could be read.
    """

    found: Mapping[Key, Live[S]] = field(default_factory=dict)
    unreadable: Mapping[Key, Diagnostic] = field(default_factory=dict)


ALL = Key("*")


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment as the file declares it. ``gateway_port`` 0 means: any free port, then kept."""

    name: str
    target: str  # "local"
    gateway_port: int = 0
    promote_from: str = ""  # the environment in which artifact revisions must have passed before; "" for none
    approvals: int = 0  # of how many people a plan needs one before it is applied
    record_remote: str = ""  # the git remote that has the record, the lock and the attempts; "" for this clone alone
    record_sign: str = "auto"  # "auto": as git is configured; "required": nothing is recorded unsigned


@dataclass(frozen=True, slots=True)
class Desired:
    """What one environment should be, from ``llmops.yaml`` or from an entry of the record."""

    project: str
    environment: Environment
    resources: Mapping[Address, Resource]
    root: str = ""  # the folder that relative sources start from
    moved: tuple[tuple[Address, Address], ...] = ()  # (from, to): renames that the file declares


@dataclass(frozen=True, slots=True)
class Rejection:
    """A route revision that a rollback left behind; apply refuses it until ``unreject``."""

    address: Address
    revision: str
    serial: int  # of the rollback
    reason: str
    actor: str = ""


@dataclass(frozen=True, slots=True)
class RecordState:
    """The record of one environment at one entry. Serial 0 and head "" mean: nothing recorded yet."""

    environment: str
    serial: int = 0
    head: str = ""  # commit id
    fence: int = 0  # highest fencing token that a closed attempt used
    project: str = ""
    resources: Mapping[Address, Recorded] = field(default_factory=dict)
    rejections: tuple[Rejection, ...] = ()
    break_glass: tuple[BreakGlass, ...] = ()  # those that no reconciling apply has closed yet, oldest first
