"""What a command works in: the file, the environment, the repository, the target."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llmctl import live, record, spec
from llmctl.app import remembered
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput, LlmctlError, RecordError
from llmctl.core.resources import Desired, Environment, RecordState
from llmctl.providers.local import LocalTarget


@dataclass(frozen=True)
class Workspace:
    """One environment of one project. Parts are opened when first used."""

    document: spec.Document
    environment: Environment
    _known: spec.Resolved | None = field(default=None, repr=False)
    _basis: Json = field(default=None, repr=False)  # as it was before the document was read

    @property
    def root(self) -> Path:
        return self.document.root

    @cached_property
    def resolved(self) -> spec.Resolved:
        """What the file says for the environment, with all checks passed; raises ``InvalidInput``.

        A command works with this one look at the project, and keeps it for the next command.
        """
        if self._known is not None:
            return self._known
        from llmctl.app.validate import checked

        found = checked(self.document, self.environment.name)
        if not self.document.sealed:  # a command that trusts the file reads it anew
            remembered.keep(self.document, found, self._basis)
        return found

    def remember(self) -> None:
        """Keep once more what the file resolved to, if this command read it: before the first apply there was no
        place for it."""
        found: spec.Resolved | None = self.__dict__.get("resolved")
        if found is not None and self._known is None:
            self.document.parsed.files.keep()
            remembered.keep(self.document, found, self._basis)

    @cached_property
    def repository(self) -> record.Repository:
        asked = self.environment
        return record.open_repository(self.root, remote=asked.record_remote, must_sign=asked.record_sign == "required")

    @cached_property
    def reader(self) -> record.Reader:
        return record.Reader(self.repository, self.environment.name)

    @cached_property
    def target(self) -> LocalTarget:
        return LocalTarget(self.root, self.document.project, self.environment)

    def sync(self) -> None:
        """Bring the record here to where the remote's is, once in a command; nothing where it is in this clone alone.

        Raises ``RemoteError`` when the remote cannot be read, and ``RecordError`` when it has another record.
        """
        _ = self._synced

    @cached_property
    def _synced(self) -> bool:
        if self.environment.record_remote:
            record.Remote(self.repository, self.environment.name).sync()
        return True

    def recorded(self) -> RecordState:
        """What is recorded of the environment; raises ``RecordError`` when that is another project's record."""
        state = self.reader.state()
        if state.serial and state.project != self.document.project:
            name = self.environment.name
            raise RecordError(
                f"llmctl/{name} is the record of project {state.project}, and this file is of {self.document.project}",
                hint=f"Two projects in one repository need environments of different names, "
                f"for example `{self.document.project}-{name}`; a project keeps the name that it was applied with.",
            )
        return state

    def read_live(self, *states: Desired | RecordState) -> live.LiveState:
        """What runs, with the kinds of plug-ins that these states name; raises ``LlmctlError`` when one is missing."""
        self.target.serve(address for state in states for address in state.resources)
        return live.read(self.target)


def open_workspace(file: str | None, environment: str | None) -> Workspace:
    """Find and read ``llmops.yaml`` and choose the environment. Raises ``InvalidInput``."""
    path = spec.find_file(file, Path.cwd())
    if known := remembered.recall(path, environment):
        document, resolved = known
        return Workspace(document, document.environments[resolved.desired.environment.name], resolved)
    basis = remembered.basis(path)
    document = spec.load(path)
    name = spec.environment_name(document, environment)
    return Workspace(document, document.environments[name], _basis=basis)


def look_again(workspace: Workspace) -> None:
    """Keep what the file resolves to for the next command, where that could not be kept when this one read it: a file
    that was edited a moment before is too fresh then, and no longer when its apply is over."""
    path, environment = workspace.document.path, workspace.environment.name
    if not remembered.recall(path, environment):
        with suppress(LlmctlError):  # it was changed meanwhile; the next command tells
            _ = open_workspace(str(path), environment).resolved


def record_reader(file: str | None, environment: str | None) -> tuple[record.Repository, record.Reader]:
    """Open a record for reading without needing a valid ``llmops.yaml``: an auditor has only the repository."""
    start = Path(file).resolve().parent if file else Path.cwd()
    repository = record.open_repository(start, newest=True)
    known = record.recorded_environments(repository)
    if environment is None and len(known) != 1:
        raise InvalidInput(
            [
                Diagnostic(
                    "no environment has a record in this repository"
                    if not known
                    else "several environments have a record",
                    hint="Run `llmctl apply` first." if not known else f"Choose one with -e: {', '.join(known)}.",
                )
            ]
        )
    name = environment or known[0]
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name not in known:
        raise InvalidInput(
            [Diagnostic(f"environment {name!r} has no record", hint=f"Recorded: {', '.join(known) or 'none'}.")]
        )
    return repository, record.Reader(repository, name)
