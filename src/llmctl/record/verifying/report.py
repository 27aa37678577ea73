"""What verify found, collected."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Report:
    """Findings in the order in which they were made: commit and reason, each once."""

    found: dict[tuple[str, str], None] = field(default_factory=dict)

    def say(self, commit: str, reason: str) -> None:
        """Add a finding about a commit, "" for none."""
        self.found[commit, reason] = None
