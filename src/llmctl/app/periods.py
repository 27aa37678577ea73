"""Periods as people say them: dates, times, and how long ago. All in UTC, as the record's times are."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput

_AGO = re.compile(r"(\d{1,5}) ?(m|h|d|w)\Z")
_UNIT = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z")
_MONTH = re.compile(r"(\d{4})-(\d\d)\Z")


def period(since: str | None, until: str | None, now: datetime) -> tuple[str, str]:
    """The first moment of a period, and the first one after it, ISO 8601 in UTC; "" where it has no end there.

    Both ends are in it: a date is the whole day, ``2026-10`` the whole month, ``7d`` that moment. Raises
    ``InvalidInput`` for what cannot be read, and for a period that ends before it begins.
    """
    first = _text(_moment("--since", since, now)[0]) if since else ""
    after = _text(_moment("--until", until, now)[1]) if until else ""
    if first and after and first >= after:
        raise InvalidInput(
            [Diagnostic(f"the period from {since} until {until} is empty", hint="Give the earlier one to --since.")]
        )
    return first, after


def _moment(option: str, text: str, now: datetime) -> tuple[datetime, datetime]:
    """Where it begins, and the first moment after it."""
    text = text.strip()
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        if ago := _AGO.match(text):
            then = now.astimezone(UTC).replace(microsecond=0) - timedelta(**{_UNIT[ago[2]]: int(ago[1])})
            return then, then + timedelta(seconds=1)
        if text in ("today", "yesterday"):
            day = today - timedelta(days=text == "yesterday")
            return day, day + timedelta(days=1)
        if month := _MONTH.match(text):
            first = datetime(int(month[1]), int(month[2]), 1, tzinfo=UTC)
            return first, (first + timedelta(days=31)).replace(day=1)
        found = datetime.fromisoformat(text)
        # A bare time is UTC: the record has no other, and the machine's own would differ from a colleague's.
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        return found, found + (timedelta(days=1) if _DAY.match(text) else timedelta(seconds=1))
    except (ValueError, OverflowError):
        raise InvalidInput(
            [
                Diagnostic(
                    f"{option}: {text!r} is no moment",
                    hint="Write 2026-10-01, 2026-10, 2026-10-01T12:30 or 12:30Z after a date (all UTC), today, "
                    "yesterday, or how long ago: 90m, 12h, 7d, 2w.",
                )
            ]
        ) from None


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment.year >= 1000 else f"{moment.isoformat(timespec='seconds')[:19]}Z"
