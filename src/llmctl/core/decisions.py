"""What people decided about an apply, as its entry in the record holds it: approvals, break-glass, promotion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.digests import Json


@dataclass(frozen=True, slots=True)
class Approval:
    """One person's signed yes to one plan. Times are ISO 8601 in UTC.

    ``signed`` is the whole git commit object that was signed, as text, so that an auditor can check the signature
    from the record alone.
    """

    signer: str  # the principal by which the allowed signers name the key
    key: str  # fingerprint: "SHA256:…" for SSH, hexadecimal for OpenPGP
    plan: str  # digest of the plan that was approved
    at: str
    expires: str
    signed: str

    def to_json(self) -> dict[str, Json]:
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Approval:
        """Read it back; raises ``KeyError`` for what is missing."""
        return cls(**{name: str(data[name]) for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """An apply that went past approvals or gates in an emergency, until a reconciling apply closes it."""

    serial: int
    reason: str
    actor: str
    at: str  # ISO 8601 in UTC
    gates: tuple[Address, ...] = ()  # those that were skipped and have not passed since
    approvals: int = 0  # how many approvals were missing

    def to_json(self) -> dict[str, Json]:
        return {
            "serial": self.serial,
            "reason": self.reason,
            "actor": self.actor,
            "at": self.at,
            "gates": [str(gate) for gate in self.gates],
            "approvals": self.approvals,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> BreakGlass:
        """Read it back; raises ``KeyError``, ``TypeError`` or ``ValueError`` for what is none."""
        return cls(
            int(data["serial"]),
            str(data["reason"]),
            str(data["actor"]),
            str(data["at"]),
            tuple(map(Address.parse, data["gates"])),
            int(data["approvals"]),
        )


@dataclass(frozen=True, slots=True)
class PromotionProof:
    """What had passed in the environment before, as it was verified in that environment's record."""

    origin: str  # the environment
    head: str  # commit of that record that was verified
    serial: int  # of that commit
    anchor: str  # what vouches for that record: "signed", or "unanchored"
    routes: Mapping[str, Mapping[str, Json]]  # route: {"serial", "revision", "artifacts", "evidence"} there

    def to_json(self) -> dict[str, Json]:
        return {
            "from": self.origin,
            "head": self.head,
            "serial": self.serial,
            "anchor": self.anchor,
            "routes": {route: dict(found) for route, found in self.routes.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> PromotionProof:
        """Read it back; raises ``KeyError`` for what is missing."""
        return cls(data["from"], data["head"], int(data["serial"]), data["anchor"], data["routes"])
