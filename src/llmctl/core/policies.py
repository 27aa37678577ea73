"""What a policy said of a resource: a value that plans, decisions and views share."""

from __future__ import annotations

from dataclasses import dataclass

from llmctl.core.address import Address


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """One policy's judgement of one resource.

    ``severity`` is "deny" or "warn"; ``message`` the policy's own; ``error`` why it could not be evaluated
    ("" when it could), and then ``ok`` is false.
    """

    policy: str
    severity: str
    address: Address
    ok: bool
    message: str
    error: str = ""

    @property
    def denies(self) -> bool:
        """An error denies whatever the severity: nobody knows what the rule would have said."""
        return bool(self.error) or (not self.ok and self.severity == "deny")
