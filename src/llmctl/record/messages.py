"""The text of the record's commits: a subject, a blank line, and ``Llmctl-…`` trailers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmctl.core.address import Address
from llmctl.core.diagnostics import printable
from llmctl.core.digests import Json
from llmctl.core.errors import RecordError
from llmctl.core.evidence import Verdict
from llmctl.core.protocols import Change
from llmctl.record.layout import address_at, encode, evidence_at, evidence_path, record_path, resource_json

PREFIX = "Llmctl-"
_TRAILER = re.compile(r"(Llmctl-[A-Za-z-]+): (.*)\Z")

Trailers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class GateClaim:
    """What a ``Llmctl-Gate`` trailer says: this gate gave this verdict, and here is its evidence."""

    gate: str
    verdict: Verdict
    digest: str  # "sha256:…"

    def __str__(self) -> str:
        return f"{self.gate} {self.verdict.value} {self.digest}"

    @property
    def path(self) -> str:
        """Where the evidence must lie."""
        return f"evidence/{self.gate}/{self.digest.removeprefix('sha256:')}.json"

    @classmethod
    def parse(cls, text: str) -> GateClaim:
        """Read ``faq PASS sha256:…``; raises ``ValueError`` for another form."""
        parts = text.split(" ")
        if len(parts) != 3 or evidence_at(f"evidence/{parts[0]}/{parts[2].removeprefix('sha256:')}.json") is None:
            raise ValueError(f"{text!r} is not: gate, verdict, digest of the evidence")
        return cls(parts[0], Verdict(parts[1]), parts[2])


def compose(subject: str, trailers: Iterable[tuple[str, str]]) -> str:
    """A commit message; values are brought onto one line, so that none can pose as another trailer. The subject, which
    people read with git alone, does not steer their terminal."""
    lines = [f"{_key(key)}: {_one_line(value)}" for key, value in trailers]
    return "\n".join([printable(_one_line(subject)) or "Change", "", *lines]) + "\n"


def subject_of(message: str) -> str:
    """The first line of a commit message."""
    return message.split("\n", 1)[0]


def trailers_of(message: str) -> Trailers:
    """The ``Llmctl-…`` trailers of a commit message, in order; only its last paragraph can hold them."""
    last = message.strip("\n").rsplit("\n\n", 1)
    if len(last) < 2:
        return ()
    found = (_TRAILER.match(line) for line in last[1].split("\n"))
    return tuple((match[1], match[2]) for match in found if match)


def values(trailers: Trailers, name: str) -> list[str]:
    """All values of ``Llmctl-<name>``."""
    return [value for key, value in trailers if key == PREFIX + name]


def value(trailers: Trailers, name: str) -> str:
    """The first value of ``Llmctl-<name>``, "" when there is none."""
    return next(iter(values(trailers, name)), "")


def serial_of(trailers: Trailers) -> int | None:
    """The serial that a commit claims, ``None`` when it claims none or no number."""
    text = value(trailers, "Serial")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def merged(given: Iterable[tuple[str, str]], standard: Iterable[tuple[str, str]]) -> Trailers:
    """``given`` with full names, then those of ``standard`` that it leaves out; empty values are left away."""
    result = [(_key(key), _one_line(value)) for key, value in given]
    present = {key for key, _ in result}
    result += [(_key(key), _one_line(value)) for key, value in standard if value and _key(key) not in present]
    return tuple(dict.fromkeys(result))


def implied(change: Change) -> Trailers:
    """The trailers that a change makes necessary and that it does not give itself.

    Every changed resource is named, every new piece of evidence is claimed with its verdict, and every one that is
    taken out is named by its path.
    """
    given = merged(change.trailers, ())
    named = set(values(given, "Resource"))
    claimed = set(values(given, "Gate"))
    result: list[tuple[str, str]] = []
    for address, recorded in sorted(change.resources.items()):
        if str(address) not in named:
            result.append((PREFIX + "Resource", str(address)))
            if recorded is not None:
                result.append((PREFIX + "Revision", recorded.revision))
    for evidence in change.evidence:
        claim = str(GateClaim(evidence.gate, evidence.verdict, evidence.digest))
        if claim not in claimed:
            result.append((PREFIX + "Gate", claim))
    result += [(PREFIX + "Removes", path) for path in change.removes]
    return tuple(result)


def files_of(change: Change) -> dict[str, Json | None]:
    """The files that a change writes; ``None`` deletes. Raises ``RecordError`` for names that have no place."""
    files: dict[str, Json | None] = {}
    for address, recorded in change.resources.items():
        path = record_path(address)
        if address_at(path) != address or (recorded is not None and recorded.address != address):
            raise RecordError(f"{path!r} has no place in the record, or holds another resource than its name says")
        files[path] = None if recorded is None else resource_json(recorded)
    for evidence in change.evidence:
        path = evidence_path(evidence)
        if evidence_at(path) is None:
            raise RecordError(f"{path!r} has no place in the record")
        files[path] = evidence.to_json()
    for path in change.removes:
        if evidence_at(path) is None:
            raise RecordError(f"{path!r} is no evidence, so it cannot be taken out of the record")
        files[path] = None
    return files


def encode_files(files: Mapping[str, Json | None]) -> dict[str, bytes | None]:
    """The bytes of a change's files; raises ``RecordError`` for a value that cannot be recorded."""
    return {path: None if content is None else encode(path, content) for path, content in files.items()}


def named_resources(trailers: Trailers) -> tuple[Address, ...]:
    """The addresses that ``Llmctl-Resource`` trailers name; what is no address is left out."""
    found: list[Address] = []
    for text in values(trailers, "Resource"):
        kind, dot, name = text.partition(".")
        if dot and kind and name:
            found.append(Address(kind, name))
    return tuple(found)


def _key(key: str) -> str:
    return key if key.startswith(PREFIX) else PREFIX + key


def _one_line(text: str) -> str:
    return " ".join(text.replace("\0", " ").split())


def claims(trailers: Sequence[tuple[str, str]]) -> Trailers:
    """Only the ``Llmctl-Gate`` trailers."""
    return tuple((key, value) for key, value in trailers if key == PREFIX + "Gate")
