"""Whose keys count: the allowed and the revoked signers, as who verifies names them.

Both files are the ones that git itself takes (``gpg.ssh.allowedSignersFile``, ``gpg.ssh.revocationFile``), named by
an option or by the git settings of who asks. Nothing is ever read from the record, which would vouch for itself.

Git keeps no list of OpenPGP keys that count. They stand in the same files, on lines that git takes for comments:

    # openpgp: ann@example.org 0123456789ABCDEF0123456789ABCDEF01234567

The fingerprint is that of the primary key, in full. In the revoked file the name may be left out.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import hashlib
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llmctl.core.diagnostics import Diagnostic, SourceRange
from llmctl.core.errors import InvalidInput, RecordError
from llmctl.record.repository import Repository

ALLOWED, REVOKED = "gpg.ssh.allowedsignersfile", "gpg.ssh.revocationfile"
_NAMESPACE = "git"
_KRL = b"SSHKRL\n\0"
_LINKS = 40  # that a path may lead over, as Linux has it
_KRL_S = 60.0  # seconds that ssh-keygen may take for one key

_QUOTED = r'"(?:\\.|[^"\\])*"'
_KEY = r"(?P<type>(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+)[ \t]+(?P<blob>[A-Za-z0-9+/]+={0,2})(?:[ \t].*)?"
_LINE = re.compile(
    rf'(?:"(?P<quoted>[^"]+)"|(?P<plain>[^\s"#][^\s"]*))[ \t]+(?:(?P<options>(?:[^\s"]|{_QUOTED})+)[ \t]+)?{_KEY}'
)
_BARE_KEY = re.compile(_KEY)
_OPTION = re.compile(rf"(?P<name>[A-Za-z-]+)(?:=(?P<value>{_QUOTED}))?(?:,|\Z)")
_TIME = re.compile(r"(\d{8})(\d{4})?(\d{2})?(Z)?")
_PSEUDO = re.compile(r"#[ \t]*openpgp:[ \t]*(?P<rest>.*)", re.IGNORECASE)
_FINGERPRINT = re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Allowed:
    """One line of the allowed signers. Times are seconds since 1970, 0 for no limit."""

    principals: tuple[str, ...]
    valid_after: int = 0
    valid_before: int = 0
    namespaces: tuple[str, ...] = ()  # patterns; none allows all

    def covers(self, moment: int | None) -> bool:
        """Whether the key counted at that time; one that cannot be told (``None``) lies in no period."""
        if not self.valid_after and not self.valid_before:
            return True
        return (
            moment is not None and self.valid_after <= moment and (not self.valid_before or moment <= self.valid_before)
        )

    @property
    def for_git(self) -> bool:
        """Whether the key may sign in git's namespace."""
        return not self.namespaces or _matches(_NAMESPACE, self.namespaces)


@dataclass(frozen=True, slots=True)
class Signers:
    """Who may sign. ``known`` is False when nobody said whose keys count: no file is named anywhere.

    Keys are told by fingerprint: ``SHA256:…`` for SSH, upper-case hexadecimal of the primary key for OpenPGP.
    """

    known: bool = False
    allowed: Mapping[str, tuple[Allowed, ...]] = field(default_factory=dict)
    revoked: frozenset[str] = frozenset()
    krl: Path | None = None  # a binary list of revoked keys
    programs: Mapping[str, str] = field(default_factory=dict)  # by format, as git's settings name them
    source: str = ""  # where the allowed signers stand
    _asked: dict[str, bool] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def load(cls, repository: Repository, allowed: Path | None, revoked: Path | None) -> Signers:
        """The signers of these files, or where one is ``None``, of the file that git's settings name.

        Raises ``InvalidInput`` for a file that cannot be read, and for each wrong line of one.
        """
        settings = _settings(repository)
        allowed, revoked = (
            allowed or _named(repository, settings, ALLOWED),
            revoked or _named(repository, settings, REVOKED),
        )
        keys = _read_allowed(allowed) if allowed else {}
        gone, krl = _read_revoked(revoked) if revoked else (frozenset(), None)
        programs = {
            "openpgp": settings.get("gpg.openpgp.program") or settings.get("gpg.program") or "gpg",
            "ssh": settings.get("gpg.ssh.program") or "ssh-keygen",
        }
        return cls(allowed is not None, keys, gone, krl, programs, str(allowed or ""))

    def program(self, form: str) -> str:
        """What git runs for ``openpgp`` or ``ssh``."""
        return self.programs.get(form) or {"openpgp": "gpg", "ssh": "ssh-keygen"}[form]

    def names_of(self, key: str) -> tuple[str, ...]:
        """All principals that the key has, whenever they count."""
        return tuple(dict.fromkeys(name for line in self.allowed.get(key, ()) for name in line.principals))

    def is_revoked(self, key: str, blob: bytes = b"") -> bool:
        """Whether the key is revoked; ``blob`` is an SSH public key, for a binary list. Raises ``RecordError`` when
        that list cannot be asked."""
        if key in self.revoked:
            return True
        if self.krl is None or not blob:
            return False
        if key not in self._asked:
            self._asked[key] = _in_krl(self.program("ssh"), self.krl, blob)
        return self._asked[key]


def leads_through(file: Path, folder: Path) -> bool:
    """Whether a path, or any link on its way, lies in a folder: who writes there can lead it elsewhere."""
    top = folder.resolve()
    return any(place.is_relative_to(top) for place in _way(file))


def _way(file: Path) -> Iterator[Path]:
    """Each link that a path leads over, by its real path, and the file in the end."""
    place, rest, links = Path("/"), list(Path.cwd().joinpath(file).parts[1:]), 0
    while rest:
        part = rest.pop(0)
        if part == "..":
            place = place.parent
        elif (place / part).is_symlink() and links < _LINKS:
            yield place / part
            links += 1
            to = Path(os.readlink(place / part))
            place, rest = (Path("/"), [*to.parts[1:], *rest]) if to.is_absolute() else (place, [*to.parts, *rest])
        else:
            place /= part
    yield place


def fingerprint(blob: bytes) -> str:
    """The fingerprint of an SSH public key as OpenSSH writes it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _settings(repository: Repository) -> dict[str, str]:
    """Git's settings below ``gpg.``, names in lower case; of several values the last counts."""
    listed = repository.git.run("config", "--type=path", "-z", "--get-regexp", r"^gpg\.", accept=(0, 1))
    lines = listed.decode(errors="surrogateescape").split("\0")
    return dict(line.partition("\n")[::2] for line in lines if line)


def _named(repository: Repository, settings: Mapping[str, str], name: str) -> Path | None:
    # Git, too, takes a relative one from the top of the work tree.
    return repository.work_tree / settings[name] if settings.get(name) else None


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        summary = f"the {what} cannot be read: {path}"
        hint = "Name a file that is there, as git's gpg.ssh.allowedSignersFile or gpg.ssh.revocationFile has it."
        raise InvalidInput([Diagnostic(summary, detail=error.strerror or "", hint=hint)]) from error


class _Wrong(ValueError):
    """What is wrong with a line: summary and hint. The line itself is not quoted, it may be of a private key."""

    def __init__(self, summary: str, hint: str) -> None:
        super().__init__(summary)
        self.hint = hint


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(data.split(b"\n"), 1):
        text = raw.decode("utf-8", errors="replace").strip()
        if text and (not text.startswith("#") or _PSEUDO.fullmatch(text)):
            yield number, text


def _read_allowed(path: Path) -> dict[str, tuple[Allowed, ...]]:
    found: dict[str, tuple[Allowed, ...]] = {}
    wrong: list[Diagnostic] = []
    for number, text in _lines(_read(path, "file of allowed signers")):
        try:
            key, line = _pseudo_allowed(text) if text.startswith("#") else _allowed(text)
            found[key] = (*found.get(key, ()), line)
        except _Wrong as error:
            wrong.append(_diagnostic(path, number, error))
    if wrong:
        raise InvalidInput(wrong)
    return found


def _read_revoked(path: Path) -> tuple[frozenset[str], Path | None]:
    data = _read(path, "file of revoked keys")
    if data.startswith(_KRL):
        return frozenset(), path
    found: set[str] = set()
    wrong: list[Diagnostic] = []
    for number, text in _lines(data):
        try:
            found.add(_pseudo(text)[1] if text.startswith("#") else fingerprint(_bare(text)))
        except _Wrong as error:
            wrong.append(_diagnostic(path, number, error))
    if wrong:
        raise InvalidInput(wrong)
    return frozenset(found), None


def _diagnostic(path: Path, line: int, error: _Wrong) -> Diagnostic:
    return Diagnostic(str(error), where=SourceRange(str(path), line, 1), hint=error.hint)


def _allowed(text: str) -> tuple[str, Allowed]:
    found = _LINE.fullmatch(text)
    if not found:
        raise _Wrong(
            "this is no line of allowed signers",
            'It is: ann@example.org namespaces="git" ssh-ed25519 AAAA…, the options may be left out.',
        )
    options = _options(found["options"] or "")
    after, before = (_moment(name, options.get(name)) for name in ("valid-after", "valid-before"))
    if after and before and before <= after:
        raise _Wrong("valid-before is not later than valid-after", "A key counts from the one to the other.")
    listed = (found["quoted"] or found["plain"]).split(",")
    principals = tuple(name for name in listed if name and not name.startswith("!"))
    if not principals:
        raise _Wrong("this line names no principal", "Begin it with the email of who signs.")
    spaces = tuple(part for part in options.get("namespaces", "").split(",") if part)
    return fingerprint(_blob(found)), Allowed(principals, after, before, spaces)


def _options(text: str) -> dict[str, str]:
    known, end = {"namespaces", "valid-after", "valid-before"}, 0
    found: dict[str, str] = {}
    while end < len(text):
        option = _OPTION.match(text, end)
        name = option["name"].lower() if option else ""
        if name == "cert-authority":
            raise _Wrong(
                "cert-authority is not supported: llmctl judges keys, not certificates",
                "Name the keys themselves, a line for each.",
            )
        if not option or name not in known or option["value"] is None:
            raise _Wrong("an option of this line is not known", f'Options are {", ".join(sorted(known))}, each ="…".')
        if name in found:
            raise _Wrong(f"{name} stands twice on this line", "Say it once.")
        found[name] = re.sub(r"\\(.)", r"\1", option["value"][1:-1])
        end = option.end()
    return found


def _moment(name: str, text: str | None) -> int:
    """Seconds since 1970, 0 for none. Without Z it is local time, as OpenSSH has it."""
    if text is None:
        return 0
    found = _TIME.fullmatch(text)
    try:
        parsed = time.strptime(f"{found[1]}{found[2] or '0000'}{found[3] or '00'}" if found else "", "%Y%m%d%H%M%S")
        return calendar.timegm(parsed) if found and found[4] else int(time.mktime(parsed))
    except (ValueError, OverflowError):
        hint = "Write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with Z behind it for UTC."
        raise _Wrong(f"{name} is not a time", hint) from None


def _bare(text: str) -> bytes:
    found = _BARE_KEY.fullmatch(text)
    if not found:
        raise _Wrong("this is no public key", "A line of it is: ssh-ed25519 AAAA…, as in a .pub file.")
    return _blob(found)


def _blob(found: re.Match[str]) -> bytes:
    try:
        blob = base64.b64decode(found["blob"], validate=True)
    except binascii.Error:
        blob = b""
    kind = found["type"].encode()
    if not blob.startswith(len(kind).to_bytes(4, "big") + kind):
        raise _Wrong("the public key of this line is damaged", "Copy it again from its .pub file.")
    if "-cert-" in found["type"]:
        raise _Wrong("this is a certificate, and llmctl judges keys", "Name the key itself.")
    return blob


def _pseudo_allowed(text: str) -> tuple[str, Allowed]:
    name, key = _pseudo(text)
    if not name:
        raise _Wrong("this line names no principal", "Write: # openpgp: ann@example.org FINGERPRINT")
    return key, Allowed((name,))


def _pseudo(text: str) -> tuple[str, str]:
    """Principal ("" for none) and fingerprint of an OpenPGP key."""
    found = _PSEUDO.fullmatch(text)
    *names, key = found["rest"].split() if found and found["rest"] else [""]
    if len(names) > 1 or not _FINGERPRINT.fullmatch(key):
        raise _Wrong(
            "this line names no OpenPGP key",
            "Write: # openpgp: ann@example.org FINGERPRINT, as `gpg --with-colons -k` shows it, without spaces.",
        )
    return "".join(names), key.upper()


def _in_krl(program: str, krl: Path, blob: bytes) -> bool:
    kind = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    with tempfile.NamedTemporaryFile(prefix="llmctl-", suffix=".pub") as file:
        file.write(kind + b" " + base64.b64encode(blob) + b"\n")
        file.flush()
        command = [program, "-Q", "-f", str(krl), file.name]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_KRL_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _cannot_ask(program, krl, type(error).__name__) from error
    if done.returncode not in (0, 1) or not done.stdout:
        raise _cannot_ask(program, krl, done.stderr.decode(errors="replace").strip())
    return done.returncode == 1


def _cannot_ask(program: str, krl: Path, detail: str) -> RecordError:
    return RecordError(
        f"the revoked keys in {krl} cannot be read by {program}",
        detail=detail,
        hint="Install OpenSSH, or give the revoked keys as text, a public key a line.",
    )


def _matches(text: str, patterns: tuple[str, ...]) -> bool:
    """OpenSSH's pattern lists: ``*`` and ``?``; a match of a negated pattern decides."""
    hits = [p.startswith("!") for p in patterns if _pattern(p.lstrip("!")).fullmatch(text)]
    return bool(hits) and not any(hits)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text).replace(r"\*", ".*").replace(r"\?", "."), re.DOTALL)
