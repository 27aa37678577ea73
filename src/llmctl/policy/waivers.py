"""Waivers: exceptions from a policy for one resource, until a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date

from llmctl.core.digests import Json
from llmctl.core.policies import PolicyResult, Waiver

#: A waiver that ends within so many days is pointed out.
SOON_DAYS = 14


def waivers_of(specs: Iterable[Mapping[str, Json]]) -> list[Waiver]:
    """The waivers of a policy's resolved spec."""
    keys = ("resource", "until", "reason", "approved_by")
    return [Waiver(*(str(spec.get(key, "")) for key in keys)) for spec in specs]


def days_left(waiver: Waiver, today: date) -> int:
    """Days after today on which a waiver is still in force; negative when it has run out.

    One whose end is no date, which only a damaged record holds, has run out.
    """
    try:
        return (date.fromisoformat(waiver.until) - today).days
    except ValueError:
        return -1


def note_of(waiver: Waiver, today: date) -> str:
    """That a waiver has run out, and what it was; or that it soon will, for then its result has the waiver itself."""
    left = days_left(waiver, today)
    if left > SOON_DAYS:
        return ""
    if left < 0:
        approved = f", approved by {waiver.approved_by}" if waiver.approved_by else ""
        return f"its waiver ran out on {waiver.until} ({waiver.reason}{approved})"
    return f"{left} {'day is' if left == 1 else 'days are'} left" if left else "today is its last day"


def waived(result: PolicyResult, specs: Iterable[Mapping[str, Json]], today: date) -> PolicyResult:
    """The result with the waiver that excepts its resource, if one does. An error is never waived."""
    if result.ok or result.error:
        return result
    mine = [w for w in waivers_of(specs) if w.resource == str(result.address)]
    if not mine:
        return result
    longest = max(mine, key=lambda w: days_left(w, today))
    in_force = days_left(longest, today) >= 0
    return replace(result, waiver=longest if in_force else None, note=note_of(longest, today))
