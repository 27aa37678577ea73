"""What a policy said of a resource or of a plan: values that plans, decisions and views share."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.address import Address


@dataclass(frozen=True, slots=True)
class Waiver:
    """An exception that somebody answers for; ``until`` is its last day (ISO 8601, UTC)."""

    resource: str  # an address
    until: str
    reason: str
    approved_by: str


def ran_out(resource: str, until: str) -> str:
    """What is said of a waiver whose last day is over."""
    return f"the waiver for {resource} ran out on {until}"


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy's judgement of one resource, or of the plan as a whole (address ``plan.<environment>``).

    ``severity`` is "deny" or "warn"; ``message`` the policy's own; ``error`` why it could not be evaluated
    ("" when it could), and then ``ok`` is false. ``basis`` says which text of the policy judged: "head" is
    the file's, "base" the one that this change weakens or removes. ``waiver`` is set when one is in force,
    ``note`` when one has run out or soon will.
    """

    policy: str
    severity: str
    address: Address
    ok: bool
    message: str
    error: str = ""
    basis: str = "head"
    waiver: Waiver | None = None
    note: str = ""

    @property
    def denies(self) -> bool:
        """An error denies whatever the severity: nobody knows what the rule would have said."""
        if self.error:
            return True
        return not self.ok and self.severity == "deny" and self.waiver is None
