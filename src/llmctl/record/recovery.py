"""Attempts that were never closed: a crash, a killed runner, a power cut. Found, told, and closed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmctl.core.digests import Json
from llmctl.core.errors import LlmctlError, RecordError
from llmctl.core.files import write_atomic
from llmctl.core.protocols import Intent
from llmctl.record.attempt import Attempt
from llmctl.record.git import RefEdit
from llmctl.record.head import Chain, Closing, Head
from llmctl.record.journal import JournalContent, JournalFile, journal_bytes, parse_journal, remove_journal
from llmctl.record.layout import StateFile
from llmctl.record.lock import HeldLock
from llmctl.record.messages import claims, serial_of, trailers_of, value
from llmctl.record.objects import Commit, list_commits, now, read_commits
from llmctl.record.reader import Reader
from llmctl.record.repository import Repository, remote_side_ref, side_ref, side_refs
from llmctl.record.shipping import require_lock, ship, shipped

_JOURNAL = re.compile(r"attempt-(\d+)\.jsonl\Z")


@dataclass(frozen=True, slots=True)
class _Found:
    """What there is of one attempt. ``own`` are the bytes of the journal here, ``theirs`` of the one on the remote."""

    serial: int
    path: Path
    own: bytes
    theirs: bytes
    tip: str  # of its commits here, "" for none
    shipped_tip: str  # of its journal on the remote, "" for none

    @property
    def overtaken(self) -> bool:
        """Whether another machine has worked on it since, or began it: then what is here does not count."""
        return not self.own.startswith(self.theirs)

    @property
    def data(self) -> bytes:
        """The journal that counts."""
        return self.theirs if self.overtaken else self.own


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
    commits: int  # that git has, or that the journal has for it
    decisions: Mapping[str, Json]  # what had been decided before it began
    _head: Head = field(repr=False)
    closing: Closing | None  # how it ended, where that was all that its entry lacked
    _journal: JournalContent | None = field(repr=False)
    _chain: Chain = field(repr=False)
    _found: _Found = field(repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing at all happened in it: such an attempt can be abandoned after ``recover``."""
        return not self.commits and (not self._journal or not self._journal.effects)

    def describe(self) -> str:
        """One line for people."""
        open_ends = f"{len(self.intents)} unfinished effect{'s' if len(self.intents) != 1 else ''}"
        changes = f"{self.commits} change{'s' if self.commits != 1 else ''}"
        which = f"{self.action} {self.serial} of {self.environment} by {self.actor}, begun {self.started_at},"
        if self.closing:
            return f"{which} is over ({self.closing.outcome}), and was interrupted before it could be recorded"
        return f"{which} was interrupted: {changes} recorded, {open_ends}"

    def recover(self, fence: int, lock: HeldLock | None = None) -> Attempt:
        """Take the attempt over to close it; call it with the lock held and with the lock's ``fence``.

        Where the record is on a remote, ``lock`` must be given. Changes that are only in the journal are committed.
        Raises ``LeaseLost`` when the record has moved on since the attempt began.
        """
        require_lock(self.repository, lock)
        self.repository.require_identity()
        self.repository.require_not_checked_out(self.environment)
        found, head = self._found, replace(self._head, fence=fence)
        shipping = ship(self.repository, head, lock, found.shipped_tip) if lock and lock.remote else None
        journal = self._reopen()
        try:
            effects = self._journal.effects if self._journal else 0
            attempt = Attempt(self.repository, head, journal, self._chain, effects, shipping=shipping)
            if self._journal:
                attempt.replay(self._journal.changes)
            if shipping:
                if rest := journal_bytes(found.path)[len(found.theirs) :]:
                    shipping.add(rest)
                journal.tell(shipping.add)
            journal.append({"type": "recovered", "fence": fence, "actor": self.repository.actor(), "at": now()})
        except LlmctlError:
            if lock:
                lock.renew_with(lock.push)
            journal.close()
            raise
        return attempt

    def _reopen(self) -> JournalFile:
        path = self._found.path
        if not self._journal:
            remove_journal(path)  # torn before its first line was whole
            return JournalFile.create(path, self._head.to_json())
        if self._found.overtaken:
            if self._found.tip:
                ref = side_ref(self.environment, f"attempt/{self.serial}")
                self.repository.git.edit_refs([RefEdit(ref, self._found.tip, "")])
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(path, self._found.data)
            except OSError as error:
                raise RecordError(f"the journal {path} cannot be written", detail=str(error)) from error
        return JournalFile.reopen(path, self._journal.length)


def find_interrupted(
    repository: Repository,
    environment: str,
    *,
    dropped: Callable[[str], None] | None = None,
    refs: Mapping[str, str] | None = None,
) -> OpenAttempt | None:
    """An attempt that was never closed, here or on the remote as it was fetched last; ``None`` when there is none.

    Call it when nobody holds the lock, or with it held and with ``dropped``, to be told what is: an attempt that still
    runs looks the same. One that crashed after it was merged has its leftovers cleared away. With ``dropped``, so has
    one that another machine took over and closed, and one that had not really begun. ``refs`` are those of
    ``side_refs``, when they were read.
    """
    recorded = Reader(repository, environment).summary()
    refs = side_refs(repository, environment) if refs is None else refs
    for serial in sorted(_open_serials(repository, environment, refs)):
        found = _gather(repository, environment, serial, refs)
        if repository.remote and recorded and recorded.serial >= serial:
            _clear(repository, environment, found, dropped)
        elif attempt := _inspect(repository, environment, found, recorded, held=dropped is not None):
            return attempt
    return None


def _open_serials(repository: Repository, environment: str, refs: Mapping[str, str]) -> set[int]:
    folder = repository.private_dir(environment)
    names = [path.name for path in folder.glob("attempt-*.jsonl")]
    serials = {int(match[1]) for match in map(_JOURNAL.match, names) if match}
    for prefix in _prefixes(repository, environment):
        ends = (ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix))
        serials |= {int(end) for end in ends if end.isdigit()}
    return serials


def _prefixes(repository: Repository, environment: str) -> tuple[str, str]:
    """What the names of attempts begin with, here and as fetched from the remote."""
    name = "attempt/"
    return side_ref(environment, name), remote_side_ref(environment, repository.remote, name)


def _gather(repository: Repository, environment: str, serial: int, refs: Mapping[str, str]) -> _Found:
    here, there = (refs.get(f"{prefix}{serial}", "") for prefix in _prefixes(repository, environment))
    path = repository.private_dir(environment) / f"attempt-{serial}.jsonl"
    theirs = shipped(repository, there) if there else b""
    if there and not theirs:
        raise RecordError(
            f"{side_ref(environment, f'attempt/{serial}')} on {repository.remote} holds no attempt of llmctl",
            hint=f"Look at it with `git log {there}`, then delete it: "
            f"`git push {repository.remote} :{side_ref(environment, f'attempt/{serial}')}`.",
        )
    return _Found(serial, path, journal_bytes(path), theirs, here, there)


def _clear(repository: Repository, environment: str, found: _Found, dropped: Callable[[str], None] | None) -> None:
    """Clear away what is left here of an attempt whose serial the record has already."""
    try:
        journal = _parse(found, found.own)
        ours = journal is None or _is_merged(repository, environment, found.serial, journal)
    except RecordError:
        ours = False
    if not ours and dropped is None:
        return
    if not ours and dropped:
        dropped(
            f"attempt {found.serial} of {environment}, which was interrupted in this clone, was closed by another "
            "machine meanwhile: what this clone still had of it is dropped"
        )
    if found.tip:
        repository.git.edit_refs([RefEdit(side_ref(environment, f"attempt/{found.serial}"), found.tip, "")])
    remove_journal(found.path)


def _parse(found: _Found, data: bytes) -> JournalContent | None:
    return parse_journal(data, f"the journal {found.path}", "move that file away")


def _inspect(
    repository: Repository, environment: str, found: _Found, recorded: StateFile | None, *, held: bool
) -> OpenAttempt | None:
    serial, tip = found.serial, "" if found.overtaken else found.tip
    journal = _parse(found, found.data)
    if journal and recorded and recorded.serial >= serial and _is_merged(repository, environment, serial, journal):
        remove_journal(found.path)
        return None
    if tip and _is_in_record(repository, environment, tip):
        repository.git.edit_refs([RefEdit(side_ref(environment, f"attempt/{serial}"), tip, "")])
        return None
    if not journal and not tip:
        if held:  # torn before its first line was whole: nothing had been done yet
            remove_journal(found.path)
        return None  # without the lock it may be of an apply that begins at this moment
    commits = _commits(repository, environment, tip)
    own = [c for c in commits if serial_of(trailers_of(c.message)) == serial]
    head = Head.from_json(journal.header) if journal else _head_from(commits, own, environment, serial)
    gates = tuple(dict.fromkeys(claim for c in own for claim in claims(trailers_of(c.message))))
    first = commits[0].id if commits and not head.base else ""
    ended = journal.closing if journal else None
    return OpenAttempt(
        repository=repository,
        environment=environment,
        serial=serial,
        action=head.action,
        actor=head.actor,
        started_at=head.started_at,
        fence=journal.fence if journal else head.fence,
        intents=journal.open_intents if journal else (),
        commits=max(len(own), len(journal.changes) if journal else 0),
        decisions=journal.decisions if journal else {},
        closing=Closing.from_json(ended) if ended else None,
        _head=replace(head, project=head.project or (recorded.project if recorded else "")),
        _journal=journal,
        _chain=Chain(tip, first, len(own), gates),
        _found=found,
    )


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
