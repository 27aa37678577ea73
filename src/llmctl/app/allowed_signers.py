"""Whose signatures count: named by who runs llmctl, and never by what is to be applied."""

from __future__ import annotations

from pathlib import Path

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.record import Repository
from llmctl.record.signers import Signers, leads_through


def trusted(repository: Repository, allowed: Path | None) -> Signers:
    """Whose signatures count for an apply: the file that is named, or git's ``gpg.ssh.allowedSignersFile``.

    Raises ``InvalidInput`` for a file in the work tree: a change could name its own author there.
    """
    signers = Signers.load(repository, allowed, None)
    if signers.known and leads_through(Path(signers.source), repository.work_tree):
        raise InvalidInput(
            [
                Diagnostic(
                    f"the allowed signers in {signers.source} lie in the work tree, where a change can name its own",
                    hint="Keep the file elsewhere: --allowed-signers FILE, LLMCTL_ALLOWED_SIGNERS, or git's "
                    "gpg.ssh.allowedSignersFile.",
                )
            ]
        )
    return signers
