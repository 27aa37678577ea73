"""The boundary to git: the one module that runs it and turns its errors into ``RecordError``.

Only plumbing is used. The work tree, the index, HEAD and the user's branches are never written, the
user's hooks never run, and variables that a hook sets for its own git (``GIT_DIR``, ``GIT_INDEX_FILE``)
do not reach ours.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from llmctl.core.errors import RecordError

#: The oldest git with ``core.fsync``, without which a power cut can lose what was reported as recorded.
MINIMUM = (2, 36)

# What a hook, or a user inside one, may have set for another repository or index. Variables that carry
# configuration (GIT_CONFIG_COUNT) and identity (GIT_COMMITTER_NAME) are the user's wish and stay.
_FOREIGN = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
        "GIT_AUTHOR_DATE",
        "GIT_COMMITTER_DATE",
    }
)
# No optional locks: `status` must not rewrite the user's index. No replace objects: they would let a
# reader see other content than the commit ids vouch for. English, because git's errors are told apart by their text.
_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LANGUAGE": "C",
    "LC_ALL": "C",
}
_OPTIONS = (
    "-c", f"core.hooksPath={os.devnull}",  # update-ref would run reference-transaction
    "-c", "core.fsmonitor=false",
    "-c", "safe.bareRepository=explicit",  # a change can bring a folder that is one, with settings of its own
    "-c", "core.fsync=committed,reference",
    "-c", "core.filesRefLockTimeout=2000",
    "-c", "core.quotePath=true",
    "-c", "user.useConfigOnly=true",  # a guessed name has no place in an audit trail
    "-c", "i18n.commitEncoding=UTF-8",
    "-c", "log.showSignature=false",
)  # fmt: skip

NO_REPOSITORY = "this folder is not in a git repository"
_HINTS: tuple[tuple[str, str, str], ...] = (
    (r"not a git repository", NO_REPOSITORY, "Run `git init` in the project's folder."),
    (
        r"cannot use bare repository",
        "this folder poses as a git repository of its own, and could bring settings that run programs",
        "Look who added its files HEAD, config, objects and refs, and remove them.",
    ),
    (
        r"dubious ownership",
        "git does not trust this repository, because another user owns it",
        "Run the `git config --global --add safe.directory …` command that git names, if you trust it.",
    ),
    (
        r"tell me who you are|empty ident name|no name was given|no email was given|auto-detect email",
        "git does not know who you are, and every change is recorded with a name",
        'Run `git config user.name "Your Name"` and `git config user.email you@example.org`.',
    ),
    (
        r"exists; cannot create|Not a directory.*refs",
        "a branch stands where the record's branch must be",
        "Rename the branch `llmctl`: `git branch -m llmctl llmctl-old`.",
    ),
    (
        r"could not fetch [0-9a-f]{40}|from promisor remote",
        "this is a partial clone, and what it left out could not be fetched",
        "Look whether the remote can be reached: `git fetch`. A clone without --filter needs no remote to be read.",
    ),
    (
        r"\.lock': File exists|Another git process",
        "another git process writes the same ref",
        "Try again; if no git runs, one has crashed: remove the .lock file that is named.",
    ),
    (
        r"No space left|Disk quota|couldn't write .*\.lock",
        "the disk with the git repository is full",
        "Make room and run the command again.",
    ),
    (
        r"Read-only file system|Permission denied|insufficient permission|unable to create",
        "the git repository cannot be written",
        "Check the permissions of the .git folder.",
    ),
    (
        r"failed to sign|signing ?key|Load key|Couldn't (load|sign)|ssh-keygen",
        "the commit could not be signed",
        "Check `git config user.signingkey` and `gpg.format`, or switch commit.gpgsign off.",
    ),
    (
        r"corrupt|missing blob|missing tree|bad object|bad tree|not a valid object|unable to read|inflate",
        "the git repository is damaged",
        "Run `git fsck` to see what is missing, and fetch the record again from where it was pushed to.",
    ),
)
_PIPE = 1 << 16  # bytes: as much as a pipe holds
_END_S = 1.0  # how long a git may take to end when it is told to
_ADDRESS = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")
_CREDENTIALS = re.compile(r"\b(Basic|Bearer) (?!auth)[A-Za-z0-9+/=._~-]{8,}")
_MOVED = re.compile(r"but expected|reference already exists|unable to resolve reference|reference is missing")


class OutOfTime(RecordError):
    """A git command did not end within its limit, and was ended."""


class RefMoved(RecordError):
    """A ref is no longer what was expected: somebody else was faster."""


class Answer(NamedTuple):
    """How a git command ended. ``said`` is what it wrote to stderr, without the addresses of remotes."""

    code: int
    output: bytes
    said: str


class RefEdit(NamedTuple):
    """One line of a ref transaction. ``old`` "" means: must not exist, ``None``: whatever it is; ``new`` "" deletes;
    equal ones verify."""

    ref: str
    old: str | None
    new: str


class GitCommand:
    """Runs git in one folder. Safe to use from several threads.

    A command of ``run`` that takes longer than ``limit_s`` seconds is ended, and an error; ``None`` waits for ever.
    """

    def __init__(self, folder: Path, limit_s: float | None = None) -> None:
        self.folder = folder
        self._limit_s = limit_s

    def run(
        self,
        *arguments: str,
        stdin: bytes = b"",
        accept: Sequence[int] = (0,),
        foreground: bool = False,
    ) -> bytes:
        """The output of one git command; raises ``RecordError`` for an exit status not in ``accept``.

        Ctrl-C on a terminal reaches only ``foreground`` commands, so that the step in hand can still be recorded.
        """
        answer = self.ask(*arguments, stdin=stdin, foreground=foreground)
        if answer.code in accept:
            return answer.output
        raise explain(_name(arguments), answer.code, answer.said)

    def ask(self, *arguments: str, stdin: bytes = b"", foreground: bool = False) -> Answer:
        """One git command, whatever its exit status; raises ``OutOfTime`` for one that takes too long."""
        process = self.start(*arguments, stderr=subprocess.PIPE, foreground=foreground)
        try:
            out, err = process.communicate(stdin, self._limit_s)
        except subprocess.TimeoutExpired as error:
            _end(process)
            summary = f"git {_name(arguments)} did not end within {self._limit_s:g} s"
            raise OutOfTime(summary, hint="Is the disk with the git repository slow, or away?") from error
        except BaseException:
            _end(process)
            raise
        return Answer(process.returncode, out, _without_addresses(err.decode(errors="replace").strip()))

    def start(
        self, *arguments: str, stderr: int = subprocess.DEVNULL, foreground: bool = False
    ) -> subprocess.Popen[bytes]:
        """A git that runs, with pipes to its stdin and from its stdout; raises ``RecordError`` when there is none."""
        executable = _find(os.environ.get("PATH", os.defpath))
        if executable is None:
            raise _no_git()
        environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        try:
            return subprocess.Popen(
                [executable, *_OPTIONS, *arguments],
                bufsize=_PIPE,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=self.folder,
                env=environment | _ENVIRONMENT,
                start_new_session=not foreground,
            )
        except OSError as error:
            if isinstance(error, FileNotFoundError) and error.filename == executable:
                raise _no_git() from error
            raise RecordError("git could not be started", detail=str(error)) from error

    def line(self, *arguments: str, accept: Sequence[int] = (0,)) -> str:
        """The output of a command that answers with one line."""
        return self.run(*arguments, accept=accept).decode(errors="surrogateescape").rstrip("\n")

    def resolve(self, name: str) -> str:
        """The object that a ref or revision names, "" when it does not exist."""
        return self.line("rev-parse", "--quiet", "--verify", name, accept=(0, 1))

    def edit_refs(self, edits: Iterable[RefEdit]) -> None:
        """Make all edits or none; raises ``RefMoved`` when a ref is not what was expected.

        A git that is ended, or whose answer is lost, may have made them: what counts is what the refs are then.
        """
        wanted = list(edits)
        try:
            self.run("update-ref", "--stdin", stdin="".join(map(_edit_line, wanted)).encode())
        except RefMoved:
            raise
        except RecordError:
            moved = [edit for edit in wanted if edit.new and edit.new != edit.old]
            if not moved or any(self.resolve(edit.ref) != edit.new for edit in moved):
                raise


def _name(arguments: Sequence[str]) -> str:
    """The command among a git's arguments."""
    return next(a for a in arguments if not a.startswith("-"))


def _without_addresses(text: str) -> str:
    """What git said, without the addresses of remotes: they may carry a user's password or token. A remote that
    repeats what it was asked with has it in another form."""
    return _CREDENTIALS.sub(r"\1 <credentials>", _ADDRESS.sub("<address>", text))


def _edit_line(edit: RefEdit) -> str:
    if edit.old == edit.new:
        return f"verify {edit.ref} {edit.old}\n" if edit.old else f"verify {edit.ref}\n"
    if edit.old is None:
        return f"update {edit.ref} {edit.new}\n" if edit.new else f"delete {edit.ref}\n"
    if not edit.new:
        return f"delete {edit.ref} {edit.old}\n"
    return f"update {edit.ref} {edit.new} {edit.old}\n" if edit.old else f"create {edit.ref} {edit.new}\n"


@lru_cache(maxsize=4)
def _find(path: str) -> str | None:
    """Where git is on that PATH: looked for once, not by the kernel in every folder for every command."""
    found = shutil.which("git", path=path)
    return os.path.abspath(found) if found else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a git that is no longer waited for: kindly first, so that it takes its lock files away."""
    for end in (process.terminate, process.kill):
        end()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
            break
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with suppress(OSError):  # what was not yet written goes nowhere
                pipe.close()


def _no_git() -> RecordError:
    return RecordError("git is not installed, or not on the PATH", hint=f"Install git {_text(MINIMUM)} or newer.")


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def require_version(git: GitCommand) -> None:
    """Raise ``RecordError`` when git is too old for durable writes."""
    answer = git.line("version")
    found = re.search(r"(\d+)\.(\d+)", answer)
    if not found or (int(found[1]), int(found[2])) < MINIMUM:
        raise RecordError(
            f"git is too old: {answer.removeprefix('git version ')}", hint=f"Install git {_text(MINIMUM)} or newer."
        )


def explain(command: str, code: int, stderr: str) -> RecordError:
    """A failed git command in our words; what git said is the detail."""
    detail = f"git {command}: {stderr}" if stderr else f"git {command} ended with status {code}"
    for pattern, summary, hint in _HINTS[:4]:
        if re.search(pattern, stderr, re.IGNORECASE):
            return RecordError(summary, detail=detail, hint=hint)
    if _MOVED.search(stderr):
        return RefMoved("the record was changed by somebody else in the same moment", detail=detail, hint="Try again.")
    for pattern, summary, hint in _HINTS[4:]:
        if re.search(pattern, stderr, re.IGNORECASE):
            return RecordError(summary, detail=detail, hint=hint)
    return RecordError(f"git {command} failed", detail=detail, hint="Run `git fsck` if this comes again.")
