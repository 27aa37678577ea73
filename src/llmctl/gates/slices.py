"""Slices: the rows that share a value of a column, judged by themselves.

A slice is named ``column=value`` in evidence, which is recorded; so values must be short labels, not texts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from llmctl.core.digests import Json, canonical_json

#: Values that a column may have. Each is a threshold of its own, that any one can break by chance.
MOST_VALUES = 50
LONGEST_VALUE = 60

#: {column: {metric: {"min", "decide"}}}
Slices = Mapping[str, Mapping[str, Mapping[str, Json]]]


def slices_of(spec: Mapping[str, Json]) -> Slices:
    """The slices of a gate's resolved spec."""
    given: Slices = spec.get("slices") or {}
    return given


def name_of(column: str, value: str) -> str:
    return f"{column}={value}"


def column_of(name: str, columns: Iterable[str]) -> str:
    """The column of a slice's name, "" when it is none of these; of several that fit the longest."""
    return max((column for column in columns if name.startswith(name_of(column, ""))), key=len, default="")


def parts(column: str, rows: Iterable[tuple[str, Mapping[str, Json]]]) -> dict[str, list[str]]:
    """The values of a column, sorted, with the ids of their rows; ``rows`` are (id, values)."""
    found: dict[str, list[str]] = {}
    for row_id, values in rows:
        if values.get(column) is not None:
            found.setdefault(_text(values[column]), []).append(row_id)
    return dict(sorted(found.items()))


def slice_counts(spec: Mapping[str, Json], rows: Iterable[Mapping[str, Json]]) -> dict[str, dict[str, int]]:
    """How many rows there are of each value of each column that a gate slices by.

    One pass; of a column with too many values no more than one too many is remembered.
    """
    counts: dict[str, dict[str, int]] = {column: {} for column in slices_of(spec)}
    if not counts:
        return counts
    for row in rows:
        for column, found in counts.items():
            if row.get(column) is None:
                continue
            value = _text(row[column])
            if value in found or len(found) <= MOST_VALUES:
                found[value] = found.get(value, 0) + 1
    return {column: dict(sorted(found.items())) for column, found in counts.items()}


def value_findings(counts: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, str]]:
    """What is wrong with the values of the columns: (what, hint)."""
    for column, found in counts.items():
        if len(found) > MOST_VALUES:
            hint = "Slice by a column with few values, such as a language or a topic."
            yield f"column {column} has more than {MOST_VALUES} values to slice by", hint
        elif any(len(value) > LONGEST_VALUE for value in found):
            hint = "Slices are named in the record; slice by a column of short labels."
            yield f"column {column} has values longer than {LONGEST_VALUE} characters to slice by", hint


def _text(value: Json) -> str:
    return value if isinstance(value, str) and value.isprintable() else canonical_json(value)
