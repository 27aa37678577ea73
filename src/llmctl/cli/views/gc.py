"""What can be cleared away: what, how many, how many bytes."""

from __future__ import annotations

from collections.abc import Iterator

import click

from llmctl.app.gc import Garbage
from llmctl.cli.views.layout import count, cut
from llmctl.core.digests import Json

_NAMED = 5  # of each sort
_WORDS = {"artifact": "artifact", "manifest": "manifest", "gate answers": "file with answers of gates"}
_MANY = {"gate answers": "files with answers of gates"}


def garbage_json(found: Garbage) -> dict[str, Json]:
    """The same for programs. ``serial`` is 0 where nothing was cleared away."""
    return {
        "format": 1,
        "environment": found.environment,
        "keep": found.keep,
        "serial": found.serial,
        "bytes": found.bytes,
        "leftovers": [{"what": i.what, "name": i.name, "bytes": i.bytes} for i in found.leftovers],
        "evidence": list(found.evidence),
        "note": found.note,
    }


def render_garbage(found: Garbage) -> str:
    """What nothing needs."""
    return "\n".join(_lines(found))


def _lines(found: Garbage) -> Iterator[str]:
    if found.note:
        yield click.style(f"! {found.note}", fg="yellow")
    last = "its last good apply" if found.keep == 1 else f"one of its last {found.keep:,} good applies"
    kept = f"what an environment has recorded now, or needs to go back to {last}"
    if found.is_empty:
        yield f"Nothing to clear away in {found.environment}: all there is is {kept}."
        return
    head = f"Nothing needs this in {found.environment} any more; kept is {kept}:"
    yield click.style(head, bold=True)
    for what, word in _WORDS.items():
        items = [item for item in found.leftovers if item.what == what]
        if items:
            yield f"  {count(len(items), word, _MANY.get(what, ''))}, {size(sum(i.bytes for i in items))}"
            yield from _named([f"{cut(item.name, 60)}  {size(item.bytes)}" for item in items])
    if found.evidence:
        yield f"  {count(len(found.evidence), 'piece', 'pieces')} of evidence; the history of the record keeps it"
        yield from _named([cut(path, 60) for path in found.evidence])


def _named(names: list[str]) -> Iterator[str]:
    yield from (f"    {name}" for name in names[:_NAMED])
    if len(names) > _NAMED:
        yield f"    … and {len(names) - _NAMED:,} more; --json has all"


def render_cleared(found: Garbage) -> str:
    """What was done."""
    return f"Freed {size(found.bytes)}; recorded as serial {found.serial}."


def size(number: int) -> str:
    """Bytes as people read them: ``1.4 MB``."""
    if number < 1000:
        return f"{number} B"
    for unit, of in (("kB", 1e3), ("MB", 1e6)):
        if number < of * 999.5:
            return f"{number / of:.1f} {unit}"
    return f"{number / 1e9:.1f} GB"
