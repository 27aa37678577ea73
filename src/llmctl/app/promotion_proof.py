"""The record of the environment before: found, held at one commit and verified, so that it can vouch for something."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from llmctl import gates
from llmctl.app.allowed_signers import trusted
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.digests import Json
from llmctl.core.errors import InvalidInput, RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.kinds import kind_of
from llmctl.core.resources import Environment, Recorded, RecordState
from llmctl.record import Reader, Repository, Verification, verify
from llmctl.record.catfile import CatFile
from llmctl.record.git import GitCommand
from llmctl.record.remote import FETCH_S, Remote
from llmctl.record.repository import ORIGIN, branch, remote_branch
from llmctl.record.verifying.signing import Demand

_REFS = "refs/llmctl-remotes"
_QUIET = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance")
_SCP = re.compile(r"(?:[^/@:\s]+@)?[^/@:\s]+:(?!:)\S+\Z")  # user@host:path
_USERINFO = re.compile(r"://[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Sought:
    """Where the record of the environment before is looked for: a clone's path, a git URL or the file of a bundle;
    "" for this clone, or the remote that the file names. Without ``fetch`` nothing elsewhere is asked. ``allowed`` says
    whose signatures count there, ``None`` for those of git's settings."""

    place: str = ""
    fetch: bool = True
    allowed: Path | None = None


@dataclass(frozen=True)
class Origin:
    """A record at one commit, whatever its branch does meanwhile. ``head`` is "" when there is none."""

    environment: str
    repository: Repository
    head: str
    allowed: Path | None = None

    @cached_property
    def reader(self) -> Reader:
        return Reader(self.repository, self.environment)

    def state(self) -> RecordState:
        """What is recorded there; serial 0 when nothing is, whatever lies here."""
        return self.reader.state() if self.head else RecordState(self.environment)

    def verified(self) -> Verification:
        """Check the whole record. Where somebody said whose signatures count, every commit must have one.

        Raises ``RecordError`` when it cannot be checked, for example in a shallow clone, ``InvalidInput`` for a file
        of allowed signers that cannot be read.
        """
        signers = trusted(self.repository, self.allowed)
        demand = Demand(signers, unsigned=signers.known)
        found = verify(self.repository, self.environment, expect_head=None, judge=_complaints, demand=demand)
        if {found.head, self.reader.head()} != {self.head}:
            raise RecordError(
                f"the record of {self.environment} moved while it was verified", hint="Run the command again."
            )
        return found

    def proof_of(self, route: Recorded, gate: Recorded) -> Evidence | None:
        """Evidence of this record that this gate let this revision of the route pass; ``None`` for none.

        It must be of the gate as it was recorded, and its verdict must follow from its own figures.
        """
        names = {route.address.name, *(route.spec.get("aliases") or ())}
        own = self.reader.evidence(gate.address.name)
        return _latest(own, route, gate, names) or _latest(self._all_evidence, route, gate, names)

    @cached_property
    def _all_evidence(self) -> Sequence[Evidence]:
        return self.reader.evidence()


def find_origin(repository: Repository, environment: Environment, sought: Sought) -> Origin:
    """Open the record of an environment where it is sought, fetched if it lies elsewhere.

    Raises ``InvalidInput`` for a place that is none, ``RecordError`` when it cannot be fetched.
    """
    name = environment.name
    if sought.place and environment.record_remote:
        summary = (
            f"the record of {name} is on the remote {environment.record_remote}, and no other place vouches for it"
        )
        raise InvalidInput([Diagnostic(summary, hint="Run it without --from-record; the record is fetched by itself.")])
    if sought.place and (sought.fetch or Path(sought.place).expanduser().exists()):
        head = _fetched(repository, _Place.of(sought.place), name)
    elif environment.record_remote:
        head = _on_remote(repository, environment, fetch=sought.fetch)
    else:
        head = Reader(repository, name).head()
    return Origin(name, _at(repository, name, head), head, sought.allowed)


def _on_remote(repository: Repository, environment: Environment, *, fetch: bool) -> str:
    theirs = repository.limited(FETCH_S)
    theirs.remote = environment.record_remote
    remote = Remote(theirs, environment.name)
    return "" if fetch and not remote.fetch() else remote.head


def nowhere(environment: str) -> str:
    """What to do about a record that is not here."""
    return (
        f"If {environment} is applied from another clone, three ways lead to its record: "
        f"`environments: {{{environment}: {{record: {{remote: origin}}}}}}` keeps it on a remote; "
        "`--from-record PATH-OR-URL` names a clone that has it; and so does the file of a "
        f"`git bundle create {environment}.bundle llmctl/{environment}`."
    )


class _Held(CatFile):
    """Answers as the repository does, but that one branch stands still."""

    def __init__(self, git: GitCommand, name: str, commit: str) -> None:
        super().__init__(git)
        self._name = f"{name}^{{commit}}"
        self._commit = commit

    def resolve(self, name: str) -> str:
        return self._commit if name == self._name else super().resolve(name)


def _at(repository: Repository, environment: str, head: str) -> Repository:
    held = repository.limited(FETCH_S)
    held.objects = _Held(held.git, branch(environment), head)
    return held


@dataclass(frozen=True, slots=True)
class _Place:
    """What git is given, how messages name it, and user and password for it. Those stand in no message, and in no
    command line, where every process of the machine could read them."""

    address: str
    shown: str
    credentials: str = ""  # user:password

    @classmethod
    def of(cls, text: str) -> _Place:
        """The place that a user wrote; raises ``InvalidInput``."""
        path = Path(text).expanduser()
        if path.exists():
            return cls(str(path.absolute()), text)
        if "://" in text and not text.startswith("-"):
            return cls._of_url(text)
        if _SCP.match(text) and not text.startswith("-"):
            return cls(text, text)
        hint = "Name the path of a clone, the URL of a repository, or a file of `git bundle create`."
        raise InvalidInput([Diagnostic(f"--from-record: there is no {_bare(text)!r}", hint=hint)])

    @classmethod
    def _of_url(cls, text: str) -> _Place:
        try:
            parts = urlsplit(text)
            host = parts.netloc.rpartition("@")[2]
            user, password = parts.username, parts.password
        except ValueError:
            hint = "Write it as https://host/path or ssh://git@host/path."
            raise InvalidInput([Diagnostic("--from-record: this is not a URL", hint=hint)]) from None
        shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
        if parts.scheme not in ("http", "https"):
            at = f"{user}@" if user else ""
            return cls(urlunsplit((parts.scheme, at + host, parts.path, parts.query, "")), shown)
        credentials = f"{user or ''}:{password or ''}" if user or password else ""
        return cls(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), shown, credentials)


def _bare(text: str) -> str:
    return _USERINFO.sub("://***@", text)


def _fetched(repository: Repository, place: _Place, environment: str) -> str:
    """Fetch the record into a ref of our own; its commit, "" when the place has none."""
    ref = f"{_REFS}/{sha256(place.address.encode()).hexdigest()[:16]}/{environment}/record"
    git = repository.limited(FETCH_S).git
    with tempfile.TemporaryDirectory(prefix="llmctl-") as folder:
        options = _login(place, Path(folder)) if place.credentials else ()
        # A clone that only fetched the record has it as the branch of its own remote.
        for source in (branch(environment), remote_branch(environment, ORIGIN)):
            answer = git.ask(*options, "fetch", *_QUIET, "--refmap=", "--", place.address, f"+{source}:{ref}")
            if answer.code == 0:
                return repository.git.resolve(f"{ref}^{{commit}}")
            if "find remote ref" not in answer.said:
                raise RecordError(
                    f"the record of {environment} could not be fetched from {place.shown}",
                    detail=answer.said,
                    hint="Look whether it can be reached and read: `git ls-remote` with the same address.",
                )
    return ""


def _login(place: _Place, folder: Path) -> tuple[str, ...]:
    parts = urlsplit(place.address)
    user, _, password = place.credentials.partition(":")
    file = folder / "login"
    file.touch(mode=0o600)
    file.write_text(f"{parts.scheme}://{quote(user, safe='%')}:{quote(password, safe='%')}@{parts.netloc}\n")
    store = f"store --file={shlex.quote(str(file))}"
    return "-c", "credential.helper=", "-c", f"credential.helper={store}"


def _complaints(evidence: Evidence) -> list[str]:
    """What is wrong with evidence: against its own figures, and against the thresholds of its gate at that time."""
    spec = dict(evidence.gate_spec)
    if kind_of("gate").revision(spec) != evidence.gate_revision:
        return [f"the gate's spec that it holds is not that of gate.{evidence.gate}, revision {evidence.gate_revision}"]
    return gates.rejudge(evidence, spec)


def _latest(known: Sequence[Evidence], route: Recorded, gate: Recorded, names: set[str]) -> Evidence | None:
    fits = (
        e
        for e in known
        if not e.verdict.blocks
        and e.route in names
        and e.route_revision == route.revision
        and _same_gate(e.gate_spec, gate)
        and not _complaints(e)
    )
    return max(fits, key=lambda e: (e.measured_at, e.digest), default=None)


def _same_gate(spec: Mapping[str, Json], gate: Recorded) -> bool:
    """Whether that is the gate as it is recorded; its route may have had another name."""
    return kind_of("gate").revision({**spec, "route": gate.spec["route"]}) == gate.revision


def open_break_glass(now: RecordState, serial: int, gate: Recorded) -> int:
    """The entry, at or before ``serial``, that skipped this gate in an emergency and that no apply has made good
    since; 0 for none."""
    return next((b.serial for b in now.break_glass if b.serial <= serial and gate.address in b.gates), 0)
