"""Periods as people say them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from llmctl.app.periods import period
from llmctl.core.errors import InvalidInput

NOW = datetime(2026, 3, 15, 10, 30, 15, 999, tzinfo=timezone(timedelta(hours=2)))  # 08:30:15 UTC


@pytest.mark.parametrize(
    ("since", "until", "first", "after"),
    [
        (None, None, "", ""),
        ("7d", None, "2026-03-08T08:30:15Z", ""),
        ("12h", None, "2026-03-14T20:30:15Z", ""),
        ("90m", "30m", "2026-03-15T07:00:15Z", "2026-03-15T08:00:16Z"),
        ("2w", None, "2026-03-01T08:30:15Z", ""),
        ("today", "today", "2026-03-15T00:00:00Z", "2026-03-16T00:00:00Z"),
        ("yesterday", "yesterday", "2026-03-14T00:00:00Z", "2026-03-15T00:00:00Z"),
        ("2026-02", "2026-02", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
        ("2025-12", "2025-12", "2025-12-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-02-28", "2026-02-28", "2026-02-28T00:00:00Z", "2026-03-01T00:00:00Z"),
        (" 2026-02-28T23:30 ", "2026-03-01 01:30:05", "2026-02-28T23:30:00Z", "2026-03-01T01:30:06Z"),
        ("2026-02-28T23:30-05:00", None, "2026-03-01T04:30:00Z", ""),
        ("2026-02-28T23:30Z", None, "2026-02-28T23:30:00Z", ""),
        ("0999-01-01", None, "0999-01-01T00:00:00Z", ""),
    ],
)
def test_both_ends_are_in_it(since: str | None, until: str | None, first: str, after: str) -> None:
    assert period(since, until, NOW) == (first, after)
    assert period(since, until, NOW.astimezone(UTC)) == (first, after)


@pytest.mark.parametrize(
    "text", ["soon", "7", "d", "7 days", "-7d", "2026-00", "2026-02-30", "25:00", "9999-12-31", "\x00"]
)
def test_what_is_no_moment_is_explained(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no moment") as caught:
        period(None, text, NOW)
    assert "2026-10-01" in caught.value.findings[0].hint


def test_a_period_that_ends_before_it_begins() -> None:
    with pytest.raises(InvalidInput, match="the period from 2026-02 until 2026-01 is empty"):
        period("2026-02", "2026-01", NOW)
