"""What was approved, by which key and until when."""

from __future__ import annotations

from llmctl.app.approvals import Approved
from llmctl.cli.views.layout import Line, rendered, screen_width
from llmctl.core.digests import Json
from llmctl.plan import SavedPlan


def approved_json(saved: SavedPlan, found: Approved) -> dict[str, Json]:
    """An approval for programs."""
    return {
        "format": 1,
        "environment": saved.environment,
        "project": saved.project,
        "plan": saved.digest,
        "key": found.key,
        "signer": found.principal,
        "expires": found.expires,
        "ref": found.ref,
        "pushed": found.pushed,
        "notes": list(found.notes),
    }


def render_approved(saved: SavedPlan, found: Approved) -> str:
    """The same for people, with what may keep it from counting."""
    who = f"{found.principal} ({found.key})" if found.principal else found.key
    where = "and pushed" if found.pushed else f"in this clone, {found.ref}"
    lines = [
        Line(f"Approved {saved.digest[:19]}… for {saved.environment}, until {found.expires}.", indent=0, bold=True),
        Line(f"signed by {who}, {where}"),
        *(Line(f"! {note}", fg="yellow") for note in found.notes),
    ]
    if not found.notes:
        lines.append(Line("It counts for whoever applies the plan, unless that is you.", dim=True))
    return rendered(lines, screen_width())
