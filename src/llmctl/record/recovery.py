"""Attempts that were never closed: a crash, a killed runner, a power cut. Found, told, and closed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmctl.core.errors import RecordError
from llmctl.core.protocols import Intent
from llmctl.record.attempt import Attempt, Chain, Head
from llmctl.record.git import RefEdit
from llmctl.record.journal import JournalContent, JournalFile, read_journal, remove_journal
from llmctl.record.layout import StateFile
from llmctl.record.messages import claims, serial_of, trailers_of, value
from llmctl.record.objects import Commit, list_commits, now, read_commits
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository, side_ref

_JOURNAL = re.compile(r"attempt-(\d+)\.jsonl\Z")


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt without an entry. ``intents`` have no outcome: look at what is live to know it."""

    repository: Repository
    environment: str
    serial: int
    action: str
    actor: str
    started_at: str
    fence: int
    intents: tuple[Intent, ...]
    commits: int
    _head: Head = field(repr=False)
    _journal: JournalContent | None = field(repr=False)
    _chain: Chain = field(repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all happened in it: such an attempt can be abandoned after ``recover``."""
        return not self.commits and (not self._journal or not self._journal.effects)

    def describe(self) -> str:
        """One line for people."""
        open_ends = f"{len(self.intents)} unfinished effect{'s' if len(self.intents) != 1 else ''}"
        changes = f"{self.commits} change{'s' if self.commits != 1 else ''}"
        return (
            f"{self.action} {self.serial} of {self.environment} by {self.actor}, begun {self.started_at}, "
            f"was interrupted: {changes} recorded, {open_ends}"
        )

    def recover(self, fence: int) -> Attempt:
        """Take the attempt over to close it; call it with the lock held and with the lock's ``fence``.

        Changes that are only in the journal are committed. Raises ``LeaseLost`` when the record has moved
        on since the attempt began.
        """
        self.repository.require_identity()
        self.repository.require_not_checked_out(self.environment)
        path = _journal_path(self.repository, self.environment, self.serial)
        if self._journal:
            journal = JournalFile.reopen(path, self._journal.length)
        else:
            remove_journal(path)  # torn before its first line was whole
            journal = JournalFile.create(path, self._head.to_json())
        try:
            effects = self._journal.effects if self._journal else 0
            attempt = Attempt(self.repository, replace(self._head, fence=fence), journal, self._chain, effects)
            if self._journal:
                attempt.replay(self._journal.changes)
            journal.append({"type": "recovered", "fence": fence, "actor": self.repository.actor(), "at": now()})
        except RecordError:
            journal.close()
            raise
        return attempt


def find_interrupted(repository: Repository, environment: str) -> OpenAttempt | None:
    """An attempt that was never closed, ``None`` when there is none.

    Call it with the lock held or when nobody holds it: an attempt that still runs looks the same. One that
    crashed after it was merged has its leftovers cleared away.
    """
    recorded = Reader(repository, environment).summary()
    for serial in sorted(_open_serials(repository, environment)):
        found = _inspect(repository, environment, serial, recorded)
        if found:
            return found
    return None


def _open_serials(repository: Repository, environment: str) -> set[int]:
    folder = repository.private_dir(environment)
    names = [path.name for path in folder.glob("attempt-*.jsonl")]
    serials = {int(match[1]) for match in map(_JOURNAL.match, names) if match}
    prefix = side_ref(environment, "attempt/")
    refs = repository.git.line("for-each-ref", "--format=%(refname)", prefix).split("\n")
    return serials | {int(ref.removeprefix(prefix)) for ref in refs if ref.removeprefix(prefix).isdigit()}


def _inspect(repository: Repository, environment: str, serial: int, recorded: StateFile | None) -> OpenAttempt | None:
    path = _journal_path(repository, environment, serial)
    journal = read_journal(path) if path.exists() else None
    ref = side_ref(environment, f"attempt/{serial}")
    tip = repository.git.resolve(ref)
    if journal and recorded and recorded.serial >= serial and _is_merged(repository, environment, serial, journal):
        remove_journal(path)
        return None
    if tip and _is_in_record(repository, environment, tip):
        repository.git.edit_refs([RefEdit(ref, tip, "")])
        return None
    if not journal and not tip:
        remove_journal(path)  # torn before its first line was whole: nothing had been done yet
        return None
    commits = _commits(repository, environment, tip)
    own = [c for c in commits if serial_of(trailers_of(c.message)) == serial]
    head = Head.from_json(journal.header) if journal else _head_from(commits, own, environment, serial)
    gates = tuple(dict.fromkeys(claim for c in own for claim in claims(trailers_of(c.message))))
    first = commits[0].id if commits and not head.base else ""
    return OpenAttempt(
        repository=repository,
        environment=environment,
        serial=serial,
        action=head.action,
        actor=head.actor,
        started_at=head.started_at,
        fence=journal.fence if journal else head.fence,
        intents=journal.open_intents if journal else (),
        commits=len(own),
        _head=replace(head, project=head.project or (recorded.project if recorded else "")),
        _journal=journal,
        _chain=Chain(tip, first, len(own), gates),
    )


def _journal_path(repository: Repository, environment: str, serial: int) -> Path:
    return repository.private_dir(environment) / f"attempt-{serial}.jsonl"


def _is_merged(repository: Repository, environment: str, serial: int, journal: JournalContent) -> bool:
    """Whether the entry with that serial is this attempt's: no other one had its place and its fence."""
    reader = Reader(repository, environment)
    entry = reader.entry(serial).entry
    same_place = _base_of(repository, entry.commit) == journal.header["base"]
    return same_place and reader.state_at(serial).fence == journal.fence


def _base_of(repository: Repository, entry: str) -> str:
    """The entry before, "" for the first one."""
    parents = read_commits(repository, [entry])[0].parents[:1]
    return next((c.id for c in read_commits(repository, parents) if serial_of(trailers_of(c.message))), "")


def _is_in_record(repository: Repository, environment: str, tip: str) -> bool:
    head = Reader(repository, environment).head()
    return bool(head) and not list_commits(repository.git, tip, f"^{head}")


def _commits(repository: Repository, environment: str, tip: str) -> list[Commit]:
    """The commits that only the attempt has, oldest first."""
    head = Reader(repository, environment).head()
    arguments = ("--reverse", "--first-parent", tip, *([f"^{head}"] if head else []))
    return read_commits(repository, list_commits(repository.git, *arguments)) if tip else []


def _head_from(commits: list[Commit], own: list[Commit], environment: str, serial: int) -> Head:
    """What an attempt was, from its commits alone: its journal went with another machine."""
    if not own:
        raise RecordError(
            f"{side_ref(environment, f'attempt/{serial}')} holds no attempt of llmctl",
            hint="Look at it with `git log`, then delete it with `git update-ref -d`.",
        )
    trailers = trailers_of(own[0].message)
    begun_here = serial_of(trailers_of(commits[0].message)) == 0
    return Head(
        environment=environment,
        project="",
        serial=serial,
        fence=0,
        action=value(trailers, "Action"),
        actor=value(trailers, "Actor"),
        started_at=own[0].time,
        base="" if begun_here else own[0].parents[0],
        plan_digest=value(trailers, "Plan"),
        source_commit=value(trailers, "Source"),
        run=value(trailers, "Run"),
    )
