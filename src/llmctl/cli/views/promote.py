"""What goes from one environment to the next, above the plan that does it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from llmctl.app.promotion import Artifact, artifacts_of, promoted
from llmctl.core.address import Address
from llmctl.core.decisions import PromotionProof
from llmctl.plan import Plan


def render_promotion(made: Plan, source: str) -> str:
    """The artifact revisions that a plan brings from ``source``, a line for each route."""
    name = made.desired.environment.name
    routes = promoted(made)
    if not routes:
        head = f"{name} has the artifact revisions of its routes already; nothing goes from {source} to {name}."
        return click.style(head, bold=True)
    lines = [click.style(f"From {source} to {name}:", bold=True)]
    for address, artifacts in sorted(routes.items()):
        lines.append(f"  {address}: {', '.join(_each(made, address, artifacts))}")
        lines += [f"    {text}" for text in _passed(made.promotion, str(address))]
    if made.promotion:
        lines.append(f"  The record of {source} verifies to {made.promotion.head[:12]} ({made.promotion.anchor}).")
    return "\n".join(lines)


def _passed(proof: PromotionProof | None, route: str) -> Iterator[str]:
    found = proof.routes.get(route) if proof else None
    if proof and found:
        gates = ", ".join(text.partition(" ")[0] for text in found["evidence"])
        by = f"passed {gates}" if gates else "had no gate"
        yield f"{by} in {proof.origin}, as {route}@{found['revision'][:8]} of serial {found['serial']}"


def _each(made: Plan, route: Address, artifacts: frozenset[Artifact]) -> Iterator[str]:
    recorded = made.recorded.resources.get(route)
    before = {a.address: a for a in artifacts_of(recorded.spec)} if recorded else {}
    for artifact in sorted(artifacts):
        was = before.get(artifact.address)
        if was == artifact:
            yield f"{artifact} as before"
        else:
            yield f"{artifact}" + (f" instead of {was.revision[:8]}" if was else "")
