"""Saving a plan to a file, for people to review, to approve and to apply."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from llmctl.core.errors import LlmctlError
from llmctl.core.files import write_atomic

if TYPE_CHECKING:
    from llmctl.plan import Plan


def refuse_to_replace(out: Path) -> None:
    """A mistyped --out must not cost a file that is no plan, least of all llmops.yaml."""
    from llmctl.plan.saved import may_replace

    if not may_replace(out):
        hint = "Choose another path for --out, or take that file away first."
        raise LlmctlError(f"{out} exists and is no saved plan; it is not replaced", hint=hint)


def save(made: Plan, made_at: str, out: Path) -> None:
    """Write the plan; ``made_at`` is when it was made (ISO 8601, UTC). Raises ``LlmctlError`` when it cannot be."""
    from llmctl.cli.views.plan import shown_json

    try:
        write_atomic(out, (json.dumps(shown_json(made, made_at), indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        folder = f"Make its folder first: `mkdir -p {shlex.quote(str(out.parent))}`."
        hint = folder if isinstance(error, FileNotFoundError) else "Choose another path for --out."
        raise LlmctlError(f"{out} cannot be written: {error.strerror}", hint=hint) from None
