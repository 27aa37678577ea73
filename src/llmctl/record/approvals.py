"""Approvals: a signed commit for each person's yes to one plan, on a ref of its own.

``refs/llmctl/<env>/approvals/<hex of the plan's digest>/<key>`` names a commit with an empty tree and no parent. Its
message says what is approved; the name of the ref and the author prove nothing. Whether an approval counts is not
judged here.
"""

from __future__ import annotations

import base64
import binascii
import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from llmctl.core.errors import RecordError
from llmctl.record.git import RefEdit, RefMoved
from llmctl.record.layout import decisions_path
from llmctl.record.messages import compose, trailers_of, value
from llmctl.record.objects import object_id, read_objects, utc
from llmctl.record.remote import Remote
from llmctl.record.repository import Repository, remote_side_ref, side_ref
from llmctl.record.signatures import Judged, committed_at, judge, split
from llmctl.record.signers import Signers, fingerprint
from llmctl.record.signing import signer_of
from llmctl.record.writing import Batch, signed_commit, store

_FOLDER = "approvals"
_PLANS = ("apply", "rollback", "destroy")  # actions whose entries say how many approvals they needed
_GPG_S = 60.0  # seconds that gpg may take to look for a key
_AT_ONCE = 32  # decisions looked at together, newest first


@dataclass(frozen=True, slots=True)
class SignedApproval:
    """An approval as it was found. Nothing of it is true before its signature is judged; times are ISO 8601 in UTC."""

    ref: str
    commit: str
    raw: bytes  # the commit object that is signed
    plan: str  # digest; "" where the commit says none
    seal: str  # digest of the whole plan file that was shown to who signed
    environment: str
    project: str
    at: str
    expires: str

    def expired(self, now: datetime) -> bool:
        """Whether its time is over, or none that can be read."""
        try:
            until = datetime.fromisoformat(self.expires)
        except ValueError:
            return True
        return until.tzinfo is None or until <= now


def write_approval(
    repository: Repository,
    environment: str,
    *,
    project: str,
    plan: str,
    seal: str,
    expires: datetime,
    source: str,
) -> tuple[SignedApproval, Judged]:
    """Sign a plan's digest and keep it; an earlier approval of the same plan with the same key is replaced.

    Returns it and what its signature is worth here. Raises ``RecordError`` when nothing signs, or when what signs
    cannot be told.
    """
    until = utc(expires)
    message = compose(
        f"Approve plan {_hex(plan)[:12]} of {environment}",
        [
            ("Approves", plan),
            ("Seal", seal),
            ("Environment", environment),
            ("Project", project),
            ("Expires", until),
            *([("Source", source)] if source else []),
        ],
    )
    batch = Batch(repository.algorithm)
    tree = batch.add("tree", b"")
    store(repository, batch)
    commit = signed_commit(repository, tree, [], message)
    raw = next(read_objects(repository, [commit])).data
    judged = judge(repository, raw, Signers.load(repository, None, None))
    if judged.status in ("bad", "unsigned") or not judged.key:
        raise RecordError(
            "what git signed cannot be checked, so that nobody could count it",
            detail=judged.detail,
            hint="Sign with an SSH or an OpenPGP key: `git config gpg.format ssh` and `user.signingkey`.",
        )
    ref = side_ref(environment, f"{_FOLDER}/{_hex(plan)}/{_slug(judged.key)}")
    repository.git.edit_refs([RefEdit(ref, repository.git.resolve(ref), commit)])
    return _approval(ref, commit, raw), judged


def read_approvals(repository: Repository, environment: str) -> list[SignedApproval]:
    """All approvals for an environment that are here or were fetched, oldest first; what is none is left out."""
    folders = [side_ref(environment, f"{_FOLDER}/")]
    if repository.remote:
        folders.append(remote_side_ref(environment, repository.remote, f"{_FOLDER}/"))
    output = repository.git.line("for-each-ref", "--format=%(objecttype) %(objectname) %(refname)", *folders)
    rows = [line.split(" ", 2) for line in output.splitlines()]
    refs = {commit: ref for kind, commit, ref in reversed(rows) if kind == "commit"}  # those of this clone win
    objects = read_objects(repository, refs)
    found = [_approval(refs[item.id], item.id, item.data) for item in objects]
    return sorted((a for a in found if a.plan), key=lambda a: (a.at, a.commit))


def push_approval(repository: Repository, environment: str, found: SignedApproval) -> None:
    """Bring an approval to the remote that has the record, in place of an earlier one with the same key.

    Raises ``RecordError`` when the remote does not take it; it stays in this clone, and can be made once more.
    """
    remote = Remote(repository, environment)
    there = remote.values([found.ref])[found.ref]
    remote.push([RefEdit(found.ref, there, found.commit)])


def remove_approvals(repository: Repository, environment: str) -> None:
    """Take away all approvals, here and on the remote: once an entry is made, they are of plans that are stale.

    One that somebody moved meanwhile stays. Raises ``RecordError`` when the remote cannot be reached.
    """
    output = repository.git.line("for-each-ref", "--format=%(refname)", side_ref(environment, f"{_FOLDER}/"))
    here = frozenset(output.split())
    closed = read_approvals(repository, environment)
    for found in closed:
        if found.ref in here:
            with suppress(RefMoved):
                repository.git.edit_refs([RefEdit(found.ref, found.commit, "")])
    if repository.remote and closed:
        remote = Remote(repository, environment)
        own = {_own_ref(repository, environment, found.ref): found.commit for found in closed}
        there = remote.values(own)
        edits = [RefEdit(ref, commit, "") for ref, commit in own.items() if there[ref] == commit]
        if edits:
            remote.push(edits)


def _own_ref(repository: Repository, environment: str, ref: str) -> str:
    """The name that a ref has where it was made; one that was fetched has another here."""
    fetched = remote_side_ref(environment, repository.remote, "")
    return side_ref(environment, ref.removeprefix(fetched)) if ref.startswith(fetched) else ref


@dataclass(frozen=True, slots=True)
class Before:
    """What the last recorded apply left for the next one: how many approvals it must have at least, and the commit
    ("" for none) up to which all that the file says is applied, with as many approvals as were needed."""

    declared: int = 0
    applied_source: str = ""


def before(repository: Repository, head: str, serial: int) -> Before:
    """What the apply with that serial left, or the newest one before it; ``head`` is a commit of the record.

    Entries of before there were approvals left their own source commit. Raises ``RecordError`` for a decision that
    cannot be read.
    """
    for last in range(serial, 0, -_AT_ONCE):
        paths = [decisions_path(n) for n in range(last, max(0, last - _AT_ONCE), -1)]
        contents = repository.objects.contents([f"{head}:{path}" for path in paths])
        for path, found in zip(paths, contents, strict=True):
            try:
                decided = json.loads(found[2]) if found else {}
                if decided.get("action") in _PLANS:
                    source = decided.get("applied_source", decided.get("source_commit", ""))
                    return Before(int(decided.get("approvals", {}).get("declared", 0)), str(source))
            except (ValueError, TypeError, AttributeError) as error:
                raise RecordError(f"{path} in the record cannot be read", detail=str(error)) from error
    return Before()


def authors(repository: Repository, since: str, paths: Iterable[Path]) -> frozenset[str]:
    """Emails of who wrote what HEAD has of these files and folders and ``since``, a commit, has not, in lower case.

    Only what this clone knows. Co-authors count, and who merges where that changed something by hand. Where nothing
    was applied before, it is the newest commit's.
    """
    if not repository.head_commit():
        return frozenset()
    known = bool(since) and bool(repository.objects.resolve(f"{since}^{{commit}}"))
    commits = ["HEAD", *([f"^{since}"] if known else []), *([] if since else ["--max-count=1"])]
    form = "--format=%ae%n%(trailers:key=Co-authored-by,valueonly)"
    inside = [text for path in paths if (text := _inside(repository, path))]
    output = repository.git.run("--literal-pathspecs", "log", "--no-merges", form, *commits, "--", *inside)
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    return frozenset(email_of(line) for line in (*lines, *_mergers(repository, commits, inside)) if line)


def _mergers(repository: Repository, commits: Sequence[str], inside: Sequence[str]) -> Iterator[str]:
    """Authors of merges that are not what git itself makes of their parents: a change can be written there, too."""
    form = ("--merges", "--remerge-diff", "--name-only", "--no-ext-diff", "--format=%x01%ae%x01")
    output = repository.git.run("--literal-pathspecs", "log", *form, *commits, "--", *inside).decode(errors="replace")
    pieces = output.split("\x01")[1:]
    for author, changed in zip(pieces[::2], pieces[1::2], strict=True):
        if changed.strip():
            yield author


def email_of(identity: str) -> str:
    """The email of ``Name <email>``, or of what is one already, in lower case."""
    before, opened, rest = identity.rpartition("<")
    return (rest.partition(">")[0] if opened else before or rest).strip().lower()


def _inside(repository: Repository, path: Path) -> str:
    try:
        return path.resolve().relative_to(repository.work_tree.resolve()).as_posix()
    except ValueError:
        return ""


def is_approval(raw: bytes, algorithm: str) -> bool:
    """Whether a commit has the form of an approval: an empty tree and no parent.

    Who picks or rebases the commit of somebody else signs the text that the other wrote; that is no yes to anything.
    """
    head = split(raw, algorithm)[0].partition(b"\n\n")[0].split(b"\n")
    names = [line.partition(b" ")[0] for line in head]
    return head[0] == b"tree " + object_id("tree", b"", algorithm).encode() and names[1:3] == [b"author", b"committer"]


def _approval(ref: str, commit: str, raw: bytes) -> SignedApproval:
    algorithm = "sha1" if len(commit) == 40 else "sha256"
    text = raw.partition(b"\n\n")[2].decode(errors="replace")
    trailers = trailers_of(text) if is_approval(raw, algorithm) else ()
    moment = committed_at(split(raw, algorithm)[0])
    return SignedApproval(
        ref,
        commit,
        raw,
        value(trailers, "Approves"),
        value(trailers, "Seal"),
        value(trailers, "Environment"),
        value(trailers, "Project"),
        _time(moment),
        value(trailers, "Expires"),
    )


def _time(moment: int | None) -> str:
    try:
        return utc(datetime.fromtimestamp(moment or 0, UTC))
    except (ValueError, OverflowError, OSError):
        return ""


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _slug(key: str) -> str:
    """A fingerprint as a part of a ref's name, which file systems may take without regard to case."""
    if not key.startswith("SHA256:"):
        return f"openpgp-{key.lower()}"
    text = key.removeprefix("SHA256:")
    try:
        return f"ssh-{base64.b64decode(text + '=' * (-len(text) % 4), validate=True).hex()}"
    except binascii.Error:
        raise RecordError(f"{key!r} is no fingerprint of a key") from None


def signed_by(found: SignedApproval) -> Iterator[str]:
    """The emails that an approval's own commit names, in lower case: its author's and its committer's."""
    head = found.raw.partition(b"\n\n")[0].decode(errors="replace")
    for line in head.split("\n"):
        if line.startswith(("author ", "committer ")):
            yield email_of(line)


def holds(repository: Repository, key: str, signers: Signers) -> bool:
    """Whether who runs this signs with that key, or has its secret part."""
    if not key.startswith("SHA256:"):
        return _in_keyring(signers.program("openpgp"), key)
    own = signer_of(repository)
    if own and fingerprint(own.public) == key:
        return True
    named = repository.git.line("config", "--get", "user.signingkey", accept=(0, 1)).removeprefix("key::")
    return key in {fingerprint(blob) for blob in _public_keys(repository, named)}


def _public_keys(repository: Repository, named: str) -> Iterator[bytes]:
    """The SSH public keys that a setting names: itself, in the file, or beside the file."""
    texts = [named]
    for path in (named, f"{named}.pub"):
        with suppress(OSError, RuntimeError, ValueError):
            texts.append((repository.work_tree / Path(path).expanduser()).read_text())
    for parts in (text.split(None, 2) for text in texts):
        with suppress(binascii.Error):
            if len(parts) > 1 and parts[0].startswith(("ssh-", "ecdsa-", "sk-")):
                yield base64.b64decode(parts[1], validate=True)


def _in_keyring(program: str, key: str) -> bool:
    command = [program, "--batch", "--list-secret-keys", "--", key]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GPG_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
