"""A project that dora wrote, people who may approve its plans, and a bot that applies them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmctl.app.approvals import (
    LASTS,
    Approved,
    Counted,
    approve,
    counted,
)
from llmctl.app.planning import plan
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.plan import Plan, SavedPlan, plan_json, read_plan, sealed
from llmctl.record import Attempt
from tests.people import Person, allowed
from tests.record.helpers import git

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
FILE = """\
apiVersion: llmctl/v1
project: acme
environments:
  dev: {{target: local, approvals: {approvals}{record}}}
prompts:
  hello:
    messages: [{{role: user, content: "{text} {{{{ question }}}}"}}]
    variables: {{question: string}}
"""


class World:
    """A project that dora wrote, people who may approve, and a bot that applies."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self._monkeypatch = folder, monkeypatch
        self.root = folder / "project"
        self.people = {name: Person.make(folder / "people", name) for name in ("ann", "bob", "dora", "bot")}
        self.signers = allowed(folder / "signers", *((p.email, p.key) for p in self.people.values() if p.key))
        self.root.mkdir()
        git(self.root, "init", "-q", "-b", "main")
        self.write()
        self.commit("dora")

    def write(self, approvals: int = 2, text: str = "Hello", record: str = "") -> None:
        (self.root / "llmops.yaml").write_text(FILE.format(approvals=approvals, text=text, record=record))

    def commit(self, name: str, message: str = "change") -> str:
        with self.acting(name):
            git(self.root, "add", "-A")
            git(self.root, "commit", "-q", "--allow-empty", "-m", message)
        return git(self.root, "rev-parse", "HEAD")

    @contextmanager
    def acting(self, name: str) -> Iterator[None]:
        with self._monkeypatch.context() as patch:
            for variable, value in self.people[name].variables().items():
                patch.setenv(variable, value)
            yield

    def workspace(self) -> Workspace:
        return open_workspace(str(self.root / "llmops.yaml"), None)

    def made(self, name: str = "bot") -> Plan:
        with self.acting(name):
            return plan(self.workspace())

    def saved(self, made: Plan | None = None) -> SavedPlan:
        path = self.folder / "plan.json"
        path.write_text(json.dumps(sealed(plan_json(made or self.made()))))
        return read_plan(path)

    def approve(self, name: str, made: Plan | None = None, lasts: timedelta = LASTS, now: datetime = NOW) -> Approved:
        with self.acting(name):
            return approve(self.workspace(), self.saved(made), lasts, now)

    def count(self, name: str = "bot", now: datetime = NOW, made: Plan | None = None) -> Counted:
        with self.acting(name):
            workspace = self.workspace()
            return counted(workspace, made or plan(workspace), self.signers, now)

    def given(self, name: str = "bot", now: datetime = NOW) -> list[str]:
        return [approval.signer for approval in self.count(name, now).given]

    def refusal(self, name: str = "bot", now: datetime = NOW) -> str:
        found = self.count(name, now)
        assert found.given == ()
        assert len(found.refused) == 1, found
        return found.refused[0]

    def trust(self, *more: tuple[str, Path]) -> None:
        known = [(p.email, p.key) for p in self.people.values() if p.key]
        allowed(self.signers, *known, *more)

    def record(self, action: str, **decided: object) -> None:
        """An entry of that action, as if it had been applied."""
        with self.acting("bot"):
            workspace = self.workspace()
            repository = workspace.repository
            attempt = Attempt.begin(
                repository,
                "dev",
                workspace.recorded(),
                fence=workspace.recorded().serial + 1,
                action=action,  # type: ignore[arg-type]
                plan_digest="",
                source_commit=repository.head_commit(),
                project="acme",
                actor=repository.actor(),
            )
            attempt.close("applied", subject=action, decisions={"action": action, **decided}, rejections=())
