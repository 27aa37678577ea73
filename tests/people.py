"""People with a home, git settings and a signing key of their own."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Person:
    """``home`` has their git settings, by which their commits and approvals are signed with ``key``."""

    name: str
    home: Path
    key: Path | None

    @classmethod
    def make(cls, folder: Path, name: str, *, signs: bool = True) -> Person:
        """A new person; the email is ``<name>@example.org``."""
        home = folder / name
        home.mkdir(parents=True, mode=0o700)
        key = new_key(home) if signs else None
        person = cls(name, home, key)
        person.configure("user.name", name.capitalize())
        person.configure("user.email", person.email)
        if key:
            person.use(key)
        return person

    @property
    def email(self) -> str:
        return f"{self.name}@example.org"

    @property
    def config(self) -> Path:
        return self.home / ".gitconfig"

    def configure(self, setting: str, value: str) -> None:
        subprocess.run(["git", "config", "--file", str(self.config), setting, value], check=True)

    def use(self, key: Path) -> None:
        """Sign with that key from now on; ordinary commits stay unsigned."""
        self.configure("gpg.format", "ssh")
        self.configure("user.signingkey", str(key))

    def variables(self) -> dict[str, str]:
        """What differs from the plain environment of a test when this person works."""
        who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in self._identity()}
        return {"GIT_CONFIG_GLOBAL": str(self.config), **who}

    def _identity(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return ("NAME", self.name.capitalize()), ("EMAIL", self.email)


def new_key(folder: Path, name: str = "id_ed25519") -> Path:
    """A new SSH key without a passphrase."""
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def allowed(path: Path, *signers: tuple[str, Path]) -> Path:
    """A file of allowed signers: principal and key of each."""
    lines = [f'{who} namespaces="git" {key.with_suffix(".pub").read_text().strip()}\n' for who, key in signers]
    path.write_text("".join(lines))
    return path
