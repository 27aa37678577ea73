"""A check of ``llmctl doctor``: whether commits can be signed, when they are to be."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress

from llmctl import record
from llmctl.app.checks import Check, Level, Surroundings
from llmctl.core.errors import RecordError
from llmctl.record.git import GitCommand
from llmctl.record.signing import PROGRAM, signer_of

_PROGRAMS = {"openpgp": "gpg", "ssh": PROGRAM, "x509": "gpgsm"}
_PATIENCE_S = 30.0


def signing(around: Surroundings) -> Check:
    """Whether what signs is there, when commits are to be signed. Nothing is signed: it could ask for a password."""
    required = [w.environment.name for w in around.workspaces if w.environment.record_sign == "required"]
    if required:
        cause, instead = f"the record of {required[0]} is to be signed", ""
    elif _config(around.git, "commit.gpgsign", "--type=bool") == "true":
        cause, instead = "commit.gpgsign is on", ", or `git config commit.gpgsign false`"
    else:
        return Check("signing", Level.OK, "commits are not signed (commit.gpgsign is off)")
    form = _config(around.git, "gpg.format") or "openpgp"
    fallback = _PROGRAMS.get(form, "gpg")
    named = _config(around.git, f"gpg.{form}.program") or (_config(around.git, "gpg.program") if form != "ssh" else "")
    program, key = shutil.which(named or fallback), _config(around.git, "user.signingkey")
    remedy = f"Set user.signingkey to a key that is there{instead}."
    if program is None:
        text = f"{cause}, and {named or fallback} is not installed"
        return Check("signing", Level.FAILED, text, f"Install it{instead}. {remedy}")
    if form == "ssh":
        return _ssh_key(around, key, cause, remedy)
    wanted = key or around.git.line("var", "GIT_COMMITTER_IDENT").rsplit(" ", 2)[0]
    if not _succeeds(program, "--batch", "--list-secret-keys", "--", wanted):
        return Check("signing", Level.FAILED, f"{cause}, and there is no secret key of {wanted}", remedy)
    return Check("signing", Level.OK, f"{form} with the key of {wanted}")


def _ssh_key(around: Surroundings, key: str, cause: str, remedy: str) -> Check:
    if key.startswith(("key::", "ssh-")) or (_config(around.git, "gpg.ssh.defaultKeyCommand") and not key):
        return Check("signing", Level.OK, "ssh, with a key of the agent")
    if not key:
        return Check("signing", Level.FAILED, f"{cause}, and user.signingkey is not set", remedy)
    path = around.folder / os.path.expanduser(key)
    with suppress(RecordError):  # another check says what is wrong with the repository
        repository = record.open_repository(around.folder)
        path = repository.work_tree / os.path.expanduser(key)
        if signer_of(repository):
            return Check("signing", Level.OK, f"ssh with {key}")
    private = path.with_suffix("") if path.suffix == ".pub" else path
    if not private.is_file():
        return Check("signing", Level.FAILED, f"{cause}, and there is no key {key}", remedy)
    status = private.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        text = f"{cause}, and others can read the key {private}: it is refused"
        return Check("signing", Level.FAILED, text, f"chmod 600 {private}")
    if not _succeeds(PROGRAM, "-y", "-P", "", "-f", str(private)):
        text = f"ssh with {key}, which asks for its passphrase at every commit"
        return Check("signing", Level.WARNING, text, f"`ssh-add {private}` asks once.")
    return Check("signing", Level.OK, f"ssh with {key}")


def _succeeds(*command: str) -> bool:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_S, check=False)
    return done.returncode == 0


def _config(git: GitCommand, name: str, *options: str) -> str:
    return git.line("config", *options, "--get", name, accept=(0, 1))
