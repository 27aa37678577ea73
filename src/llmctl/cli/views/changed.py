"""How a change is told: in a phrase for the gist, field by field for the details."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator

import click

from llmctl.cli.views.layout import Line, count, cut, first, one_line
from llmctl.core.digests import Json
from llmctl.core.steps import Action
from llmctl.plan import FieldDiff, ResourceChange

_SHORT = 70  # characters of both sides together that still stand in one line
_PHRASE = 44  # characters of a side in the gist
_FIELDS = 20  # of one resource, in the details
_TEXT_LINES = 60  # of one field's difference
_COMPARED = 2_000  # lines of a text that are compared line by line; a longer one would take seconds
_RESOURCES = 50

#: Fields that repeat what another change of the same plan says: a change of these alone is a consequence.
_DERIVED = frozenset({"prompt_revision", "chain_revisions", "model_revision", "dataset_revision"})
#: Fields that say little to people; they come last.
_OPAQUE = ("digest", "bytes", "files", "weights")
_KINDS = ("model", "prompt", "dataset", "endpoint", "route", "gate", "policy")


def is_consequence(change: ResourceChange) -> bool:
    """Whether it changes only because something changed that it refers to."""
    told = bool(change.diffs) or change.action is Action.UPDATE
    return told and all(_field_of(diff) in _DERIVED for diff in change.diffs)


def in_place(change: ResourceChange) -> bool:
    """Whether only operating fields differ: nothing is rolled out."""
    return change.action is Action.UPDATE and change.before == change.after


def ordered(changes: tuple[ResourceChange, ...]) -> list[ResourceChange]:
    """Causes before consequences, and each in the way of the data: model, prompt, dataset, endpoint, route, gate."""
    order = {kind: index for index, kind in enumerate(_KINDS)}
    return sorted(changes, key=lambda c: (is_consequence(c), order.get(c.address.kind, len(order)), c.address))


def versions(change: ResourceChange) -> str:
    """``v3``, or ``v3 → v4`` where the number changes."""
    if change.action is Action.DELETE:
        return f"v{change.version_before}"
    if not change.version_before or change.version_before == change.version_after:
        return f"v{change.version_after}"
    return f"v{change.version_before} → v{change.version_after}"


def why(change: ResourceChange) -> str:
    """The reason in a phrase: what was edited, or what it follows from."""
    parts = [_renamed(change)] if change.moved_from else []
    edited = change.action in (Action.UPDATE, Action.REPLACE) and not is_consequence(change)
    told = [diff for diff in change.diffs if _field_of(diff) not in _OPAQUE] if edited else []
    reason = change.reason.removeprefix(f"renamed from {change.moved_from}").lstrip(":; ")
    if not told:
        parts.append(reason)
    elif any(_field_of(diff) in _DERIVED for diff in change.diffs):
        named = reason.partition(" changed")[0].split(", ")
        own = dict.fromkeys(_field_of(diff) for diff in told if not _told_as_rename(change, diff))
        parts += [reason, *(f"{field} changed" for field in own if field not in _DERIVED and field not in named)]
    else:
        rest = len(change.diffs) - min(len(told), 2)
        parts += [f"{one_line(diff.path)}: {phrase(diff)}" for diff in told[:2]]
        parts += [count(rest, "more field")] if rest else []
        parts += [reason.partition("; ")[2]] if change.before != change.after else ["in place"]
    return "; ".join(part for part in parts if part)


def _told_as_rename(change: ResourceChange, diff: FieldDiff) -> bool:
    """Whether a field differs only by a name, and the rename is told anyway."""
    if _field_of(diff) == "aliases":
        return change.moved_from is not None and diff.after == change.moved_from.name
    kind = "endpoint" if _field_of(diff) == "fallback" else _field_of(diff)
    return f"{kind}.{diff.before} to {kind}.{diff.after}" in change.reason


def _renamed(change: ResourceChange) -> str:
    origin = change.moved_from
    assert origin is not None
    still = any(_field_of(diff) == "aliases" and diff.after == origin.name for diff in change.diffs)
    return f"renamed from {origin}" + (f", and still answers to {origin.name}" if still else "")


def _field_of(diff: FieldDiff) -> str:
    return diff.path.partition(".")[0].partition("[")[0]


def phrase(diff: FieldDiff) -> str:
    """``0.95 → 0.9``; of a long text only the part that differs: ``… + "Be brief."``."""
    old, new = one_line(_text(diff.before)), one_line(_text(diff.after))
    if len(old) + len(new) <= _PHRASE:
        return f"{old} → {new}"
    if diff.before is None or diff.after is None or not isinstance(diff.before, str):
        return f"{cut(old, _PHRASE)} → {cut(new, _PHRASE)}"
    if old.startswith("sha256:"):
        return f"{old[:15]} → {new[:15]}"
    if max(len(old), len(new)) <= _PHRASE and " " not in old + new:
        return f"{old} → {new}"
    start = _common(old, new)
    end = _common(old[start:][::-1], new[start:][::-1])
    gone, come = old[start : len(old) - end].strip(), new[start : len(new) - end].strip()
    if not gone or not come:
        return f"… {'+' if come else '-'} {_quoted(come or gone, 2 * _PHRASE)}"
    return f"{'… ' if start else ''}{_quoted(gone, _PHRASE)} → {_quoted(come, _PHRASE)}"


def _common(one: str, other: str) -> int:
    """How many characters both begin with, not counting a word that goes on differently."""
    most = min(len(one), len(other))
    length = next((i for i in range(most) if one[i] != other[i]), most)
    while length and one[length - 1].isalnum() and (one[length : length + 1] + other[length : length + 1]).isalnum():
        length -= 1
    return length


def _quoted(text: str, most: int) -> str:
    mark = "'" if '"' in text else '"'
    return f"{mark}{cut(text, most)}{mark}"


def details(changes: tuple[ResourceChange, ...]) -> Iterator[Line]:
    """What differs in each resource that was edited, field by field; what only follows from that is not repeated."""
    edited = (Action.UPDATE, Action.REPLACE, Action.MOVE)
    told = [c for c in changes if c.diffs and c.action in edited and not is_consequence(c)]
    shown, more = first(told, _RESOURCES, "resources")
    for change in shown:
        yield Line(str(change.address))
        fields, others = first(change.diffs, _FIELDS, "fields")
        for diff in fields:
            yield from field_lines(diff)
        yield from others
    yield from more


def field_lines(diff: FieldDiff) -> Iterator[Line]:
    """One field: both sides in a line where they are short, else the lines that differ."""
    old, new, path = _text(diff.before), _text(diff.after), one_line(diff.path)
    if "\n" not in old + new and len(old) + len(new) <= _SHORT:
        old, new = one_line(old), one_line(new)
        styled = f"{path}: {click.style(old, fg='red')} → {click.style(new, fg='green')}"
        yield Line(f"{path}: {old} → {new}", indent=4, styled=styled)
        return
    yield Line(f"{path}:", indent=4)
    before, after = old.splitlines(), new.splitlines()
    if max(len(before), len(after)) > _COMPARED:
        yield Line(f"{len(before):,} lines → {len(after):,} lines; --json has both", indent=6, dim=True)
        return
    lines = [
        Line(text, indent=6, fg={"-": "red", "+": "green"}.get(text[:1]))
        for text in difflib.unified_diff(before, after, lineterm="", n=1)
        if not text.startswith(("---", "+++", "@@"))
    ]
    shown, more = first(lines, _TEXT_LINES, "lines")
    yield from shown
    yield from more


def _text(value: Json) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
