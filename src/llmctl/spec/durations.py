"""Durations as the file writes them, ``30s`` or ``1.5h``, to seconds."""

from __future__ import annotations

from llmctl.spec.nodes import Location
from llmctl.spec.report import Report

HOUR = 3600.0
DAY = 24 * HOUR
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": HOUR}


def seconds(report: Report, location: Location, text: str, least: float, most: float) -> float:
    """The seconds that a well-formed duration says; one that is out of bounds (seconds, inclusive) is reported."""
    number = text.rstrip("hms")
    value = round(float(number) * _UNITS[text[len(number) :]], 3)
    if not least <= value <= most:
        summary = f"`{location[-1]}` must be from {shown(least)} to {shown(most)}, not {text}"
        report.error(location, summary, hint="Units: ms, s, m, h.")
    return value


def shown(value: float) -> str:
    """Seconds in the largest unit that keeps them whole."""
    unit = next((u for u in ("h", "m", "s") if value and value % _UNITS[u] == 0), "ms" if value else "s")
    return f"{value / _UNITS[unit]:g}{unit}"
