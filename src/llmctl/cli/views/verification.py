"""The verdict on a whole record, and what vouches for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import click

from llmctl.app.verifying import Verified
from llmctl.core.diagnostics import printable
from llmctl.core.digests import Json
from llmctl.record import Finding

_SAME = 20  # commits of one reason that are named; --json names all
_NOT_GOOD = ("unsigned", "bad", "stranger", "revoked", "expired")


def verification_json(found: Verified) -> dict[str, Json]:
    """The verdict for programs."""
    result = found.result
    return {"format": 1, "environment": found.environment, "ok": result.ok, **asdict(result)}


def render_verification(found: Verified) -> str:
    """Green in a few lines; red with a line a finding. The last lines say what vouches for the head."""
    result = found.result
    counts = f"{_count(result.entries, 'entr', 'y', 'ies')}, {_count(result.commits, 'commit')}, "
    counts += f"{_count(result.evidence, 'piece')} of evidence"
    if result.ok:
        head = f"{click.style('✓ the record holds', fg='green', bold=True)}: {counts}"
    else:
        said = f"✗ {_count(len(result.findings), 'finding')} in llmctl/{found.environment}"
        head = f"{click.style(said, fg='red', bold=True)} ({counts})"
    lines = [head, *_findings(result.findings)]
    if result.head:
        lines += [f"  head {result.head}", *(f"  {line}" for line in _vouching(found))]
    return "\n".join(lines)


def _findings(findings: tuple[Finding, ...]) -> Iterator[str]:
    of: dict[str, int] = {}
    for finding in findings:
        of[finding.reason] = of.get(finding.reason, 0) + 1
        if of[finding.reason] <= _SAME:
            yield f"  {finding.commit[:12] or '-':<12}  {printable(finding.reason)}  [{printable(finding.anchor)}]"
    for reason, times in of.items():
        if times > _SAME:
            yield f"  {'…':<12}  {printable(reason)}: {times - _SAME} more commits (--json names them)"


def _vouching(found: Verified) -> Iterator[str]:
    """What vouches for the head, and what nothing vouches for."""
    result = found.result
    yield _signatures(result.signatures)
    if "signed by" in result.anchor:
        signer, _, expected = printable(result.anchor).partition(", ")
        head = f"; {expected}" if expected else ""
        key = f" with {result.key}" if result.key else ""
        yield f"anchored: {signer}{key}{head}; allowed signers: {result.signers}"
    elif result.anchor != "unanchored":
        yield "anchored: it is the head that was expected"
    elif result.key:
        yield f"not anchored: signed with {result.key}, and nobody said whose keys count (--allowed-signers FILE)"
    else:
        yield "not anchored: unsigned, and without --expect-head a rewrite as a whole cannot be told"
    if found.inside:
        yield "the allowed signers lie in the work tree: whoever can change that file can name themselves"
    if "signed by" in result.anchor and "expected head" not in result.anchor:
        yield "whether newer entries were cut off can only be told with --expect-head"


def _signatures(worth: Mapping[str, int]) -> str:
    good, others = worth.get("good", 0), [f"{worth[name]} {name}" for name in _NOT_GOOD if worth.get(name)]
    return f"{_count(good, 'good signature')}" + (f", {', '.join(others)}" if others else "")


def _count(number: int, word: str, one: str = "", many: str = "s") -> str:
    return f"{number} {word}{one if number == 1 else many}"
