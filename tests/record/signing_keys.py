"""Real SSH and OpenPGP keys, and commits signed by them with git itself."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.record.helpers import git


@dataclass(frozen=True)
class Key:
    """An SSH key; ``line`` is its public half without a comment."""

    path: Path
    line: str

    def allowed(self, principal: str, options: str = 'namespaces="git"') -> str:
        return " ".join(part for part in (principal, options, self.line) if part) + "\n"


def ssh_key(folder: Path, name: str, kind: str = "ed25519", *options: str) -> Key:
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return Key(path, " ".join(path.with_suffix(".pub").read_text().split()[:2]))


def sign_with(folder: Path, key: Key) -> None:
    """Have the repository's commits signed with that key."""
    for name, value in (("commit.gpgsign", "true"), ("gpg.format", "ssh"), ("user.signingkey", str(key.path))):
        git(folder, "config", name, value)


def trust(folder: Path, lines: str, revoked: Path | None = None) -> Path:
    """Write the allowed signers outside of the repository, and name them to git as well."""
    path = folder.parent / "allowed_signers"
    path.write_text(lines)
    git(folder, "config", "gpg.ssh.allowedSignersFile", str(path))
    if revoked:
        git(folder, "config", "gpg.ssh.revocationFile", str(revoked))
    return path


def commit_signed(folder: Path, key: str | None, *, at: int = 1_790_000_000, form: str = "ssh") -> str:
    """A commit of its own, signed by git (``None``: not at all) at that time."""
    tree = git(folder, "hash-object", "-t", "tree", "-w", "--stdin")
    options = [f"-S{key}"] if key else []
    moment = f"{at} +0000"
    done = subprocess.run(
        ["git", "-c", f"gpg.format={form}", "commit-tree", *options, "-m", f"Signed at {at}", tree],
        cwd=folder,
        env={**os.environ, "GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment},
        check=True,
        capture_output=True,
    )
    return done.stdout.decode().strip()


def raw(folder: Path, commit: str) -> bytes:
    done = subprocess.run(["git", "cat-file", "commit", commit], cwd=folder, check=True, capture_output=True)
    return done.stdout


def put_commit(folder: Path, data: bytes) -> str:
    """Store these bytes as a commit, whatever they say."""
    return git(folder, "hash-object", "-t", "commit", "-w", "--literally", "--stdin", stdin=data)


def gits_verdict(folder: Path, commit: str) -> str:
    """``G`` good, ``B`` bad, ``U`` right by somebody unknown, ``N`` none …, as git says it."""
    return git(folder, "log", "-1", "--format=%G?", commit)


class Keyring:
    """A GnuPG home of the test's own, with keys made when asked for. Its agent is ended with ``end``."""

    def __init__(self, home: Path) -> None:
        home.mkdir(mode=0o700, parents=True)
        self.environment = {**os.environ, "GNUPGHOME": str(home)}
        self.home = home

    def make(self, who: str, expires: str = "never", *, at: str = "") -> str:
        """A new key; returns its fingerprint."""
        options = ["--faked-system-time", at] if at else []
        self.run(
            *options,
            "--passphrase",
            "",
            "--pinentry-mode",
            "loopback",
            "--quick-gen-key",
            who,
            "ed25519",
            "sign",
            expires,
        )
        listed = self.run("--with-colons", "--list-keys", who).splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def run(self, *arguments: str, stdin: bytes = b"") -> str:
        command = ["gpg", "--batch", "--yes", "--quiet", *arguments]
        done = subprocess.run(command, env=self.environment, input=stdin, check=True, capture_output=True)
        return done.stdout.decode()

    def end(self) -> None:
        subprocess.run(["gpgconf", "--kill", "all"], env=self.environment, check=False, capture_output=True)
