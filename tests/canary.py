"""A secret that must never be seen again: planted in what every command inherits, and looked for after each.

What a command says, the arguments of all processes and the journals are searched after every command; what the
project keeps (every object of git, plans, logs, state, caches) when the project ends.
"""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import psutil

CANARY = f"canary-{secrets.token_hex(6)}"  # of this run alone: another on this machine has its own
#: Variables with secrets as a CI runner or a developer's shell has them. A test that needs one sets its own.
PLANTED = {
    name: f"{CANARY}-{name.lower()}"
    for name in (
        "ANTHROPIC_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "CI_JOB_TOKEN",
        "GITHUB_TOKEN",
        "HF_TOKEN",
        "PROVIDER_KEY",
    )
}
#: Where a secret may lie: the 0600 file that a restarted gateway reads.
_ALLOWED = "gateway/secrets.json"


def unseen(what: str, text: str) -> None:
    """Fail when a text holds the canary; the failure does not show more of it."""
    assert CANARY not in text, f"a secret is in {what}"


def after_command(root: Path, out: str, err: str) -> None:
    """What must hold after any command of a project."""
    unseen("what the command printed", out + err)
    for process in psutil.process_iter(["cmdline"]):
        unseen(f"the arguments of process {process.pid}", " ".join(process.info["cmdline"] or ()))
    for path in _files(root / ".git/llmctl"):
        unseen(str(path), path.read_text(errors="replace"))


def nowhere(root: Path, env: Mapping[str, str], *folders: Path, also: Iterable[str] = ()) -> None:
    """What must hold of all that a project or a bare repository has: its git objects and refs, its work tree, and more
    ``folders``. ``also`` are other secrets to look for."""
    wanted = re.compile(b"|".join(re.escape(secret.encode()) for secret in (CANARY, *also)))
    for folder in (root, *folders):
        for path in _files(folder):
            if not path.as_posix().endswith(_ALLOWED):
                assert not wanted.search(_content(path)), f"a secret is in {path}"
    if (root / ".git").exists() or (root / "objects").exists():
        objects = ("git", "cat-file", "--batch-all-objects", "--batch", "--buffer", "--unordered")
        done = subprocess.run(objects, cwd=root, env=dict(env), capture_output=True, check=False)
        assert not wanted.search(done.stdout), "a secret is in an object of git"


def _files(folder: Path) -> Iterator[Path]:
    """Regular files below a folder; sockets, links and what goes away meanwhile are left out."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def _content(path: Path) -> bytes:
    """Of a file; nothing of one that has just gone, as journals and locks do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
