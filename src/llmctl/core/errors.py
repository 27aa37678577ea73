"""The one error tree. The errors of SDKs and of git are translated to these where they are called.

LlmctlError                 exit 1, unless said otherwise
├── InvalidInput            what the user wrote is wrong: carries diagnostics with file, line, column
├── ProviderError           a system that a provider talks to failed
│   ├── TransientError      … and trying again may help
│   └── Conflict            … because it is no longer what was read (a guarded write was refused)
├── RecordError             the git record cannot be read or written
├── Locked                  somebody else holds the lock                       exit 5
├── LeaseLost               the lock was taken over while we worked            exit 5
├── StalePlan               what a saved plan was made from has moved          exit 6
├── Denied                  policy, protect, rejected revision                 exit 3
├── GateBlocked             a gate failed or could not decide                  exit 4
└── Interrupted             Ctrl-C or SIGTERM                                  exit 130
"""

from __future__ import annotations

from collections.abc import Iterable

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.exits import ExitCode


class LlmctlError(Exception):
    """Any failure that llmctl explains. ``hint`` says what the user can do."""

    exit_code: ExitCode = ExitCode.ERROR

    def __init__(self, summary: str, *, detail: str = "", hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.detail = detail
        self.hint = hint

    def diagnostics(self) -> list[Diagnostic]:
        """The same failure as values, for rendering."""
        return [Diagnostic(self.summary, detail=self.detail, hint=self.hint)]


class InvalidInput(LlmctlError):
    """What the user wrote is wrong; every finding is carried, not only the first."""

    def __init__(self, findings: Iterable[Diagnostic]) -> None:
        self.findings = tuple(findings)
        super().__init__(self.findings[0].summary if self.findings else "invalid input")

    def diagnostics(self) -> list[Diagnostic]:
        return list(self.findings)


class ProviderError(LlmctlError):
    """A system that a provider talks to failed."""


class TransientError(ProviderError):
    """A failure that may pass: a timeout, a refused connection."""


class Conflict(ProviderError):
    """A guarded write was refused because the system is no longer what was read."""


class RecordError(LlmctlError):
    """The git record cannot be read or written."""


class Locked(LlmctlError):
    """Somebody else holds the lock of the environment."""

    exit_code = ExitCode.LOCKED


class LeaseLost(Locked):
    """The lock was taken over while we worked; no further effect is allowed."""


class StalePlan(LlmctlError):
    """What a saved plan was made from has moved."""

    exit_code = ExitCode.STALE


class Denied(LlmctlError):
    """A policy, a missing approval, ``protect`` or a rejected revision forbids the change."""

    exit_code = ExitCode.DENIED


class GateBlocked(LlmctlError):
    """A gate failed or could not decide; what served before still serves."""

    exit_code = ExitCode.GATE


class Interrupted(LlmctlError):
    """Stopped by Ctrl-C or SIGTERM; the step in hand was finished or undone, and recorded."""

    exit_code = ExitCode.INTERRUPTED
