"""A check of ``llmctl doctor``: whether the git remotes that have records can be reached."""

from __future__ import annotations

from llmctl.app.checks import Check, Level, Surroundings
from llmctl.record.remote import Remote
from llmctl.record.repository import branch


def remotes(around: Surroundings) -> Check:
    """Whether each remote that an environment's record is on answers. Raises ``RecordError`` for one that does not."""
    said = []
    for workspace in around.recorded:
        name = workspace.environment.name
        if remote := workspace.environment.record_remote:
            ref = branch(name)
            there = Remote(workspace.repository, name).values([ref])[ref]
            said.append(f"{remote} has the record of {name}" if there else f"{remote} has no record of {name} yet")
    return Check("remote", Level.OK, ", ".join(said) or "records are kept in this clone")
