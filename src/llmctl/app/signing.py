"""A check of ``llmctl doctor``: whether commits can be signed, when they are to be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from llmctl.app.checks import Check, Level, Surroundings
from llmctl.record.git import GitCommand


def signing(around: Surroundings) -> Check:
    """Whether what signs is there, when commits are to be signed. Nothing is signed: it could ask for a password."""
    if _config(around.git, "commit.gpgsign", "--type=bool") != "true":
        return Check("signing", Level.OK, "commits are not signed (commit.gpgsign is off)")
    form = _config(around.git, "gpg.format") or "openpgp"
    fallback = {"openpgp": "gpg", "ssh": "ssh-keygen", "x509": "gpgsm"}.get(form, "gpg")
    named = _config(around.git, f"gpg.{form}.program") or (_config(around.git, "gpg.program") if form != "ssh" else "")
    program, key = shutil.which(named or fallback), _config(around.git, "user.signingkey")
    remedy = "Set user.signingkey to a key that is there, or `git config commit.gpgsign false`."
    if program is None:
        text = f"commit.gpgsign is on, and {named or fallback} is not installed"
        return Check("signing", Level.FAILED, text, f"Install it, or `git config commit.gpgsign false`. {remedy}")
    if form == "ssh":
        return _ssh_key(key, _config(around.git, "gpg.ssh.defaultKeyCommand"), remedy)
    wanted = key or around.git.line("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]
    found = subprocess.run(
        [program, "--batch", "--list-secret-keys", "--", wanted],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
    )
    if found.returncode:
        return Check("signing", Level.FAILED, f"commit.gpgsign is on, and there is no secret key of {wanted}", remedy)
    return Check("signing", Level.OK, f"{form} with the key of {wanted}")


def _ssh_key(key: str, command: str, remedy: str) -> Check:
    if key.startswith(("key::", "ssh-")) or (command and not key):
        return Check("signing", Level.OK, "ssh, with a key of the agent")
    if not key:
        return Check("signing", Level.FAILED, "commit.gpgsign is on, and user.signingkey is not set", remedy)
    if not Path(key).expanduser().is_file():
        return Check("signing", Level.FAILED, f"commit.gpgsign is on, and there is no key {key}", remedy)
    return Check("signing", Level.OK, f"ssh with {key}")


def _config(git: GitCommand, name: str, *options: str) -> str:
    return git.line("config", *options, "--get", name, accept=(0, 1))
