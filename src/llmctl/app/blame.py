"""Who set each field of a resource: its versions are walked from the oldest, and what stays equal keeps its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias, Union

from llmctl.core.digests import Json, canonical_json

#: The entry (by its place among the versions) that set a value, or of each part of it.
Origin: TypeAlias = Union[int, dict[str, "Origin"], list["Origin"]]


_PLAIN = re.compile(r"[^.\[\]]+")  # a key that cannot be taken for two, as ``plan/diff.py`` writes paths


@dataclass(frozen=True, slots=True)
class Field:
    """A field, and the place among the versions of the one that set it. What was set as a whole stands as a whole."""

    path: str
    value: Json
    version: int


def blamed(specs: Sequence[Json]) -> list[Field]:
    """The fields of the last of these specs, which are oldest first, by path."""
    origin, before = fresh(specs[0], 0), specs[0]
    for number, spec in enumerate(specs[1:], start=1):
        origin, before = _carried(before, spec, origin, number), spec
    parts = origin if isinstance(origin, dict) else {}  # an empty spec has no fields
    return [field for key, part in parts.items() for field in _told(key, specs[-1][key], part)]


def fresh(value: Json, number: int) -> Origin:
    """A value that is new as a whole."""
    if isinstance(value, dict) and value:
        return {key: fresh(inner, number) for key, inner in value.items()}
    if isinstance(value, list) and value:
        return [fresh(inner, number) for inner in value]
    return number


def _carried(old: Json, new: Json, origin: Origin, number: int) -> Origin:
    if isinstance(origin, dict) and isinstance(new, dict) and new:
        return {
            key: _carried(old[key], value, origin[key], number) if key in old else fresh(value, number)
            for key, value in new.items()
        }
    if isinstance(origin, list) and isinstance(new, list) and new:
        return _carried_list(old, new, origin, number)
    return origin if type(old) is type(new) and old == new else fresh(new, number)


def _carried_list(old: list[Json], new: list[Json], origin: list[Origin], number: int) -> list[Origin]:
    """Items are told by what they hold, so that one that is put before others does not make them new."""
    found: list[Origin] = []
    one, other = [canonical_json(item) for item in old], [canonical_json(item) for item in new]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            found += origin[i1:i2]
        elif tag == "replace" and i2 - i1 == j2 - j1:
            pairs = zip(old[i1:i2], new[j1:j2], origin[i1:i2], strict=True)
            found += [_carried(was, now, its, number) for was, now, its in pairs]
        else:
            found += [fresh(item, number) for item in new[j1:j2]]
    return found


def _told(path: str, value: Json, origin: Origin) -> Iterator[Field]:
    single = _single(origin)
    if single is not None:
        yield Field(path, value, single)
    elif isinstance(origin, dict):
        for key in origin:
            yield from _told(path + _step(key), value[key], origin[key])
    elif isinstance(origin, list):
        for n, inner in enumerate(origin):
            yield from _told(f"{path}[{n}]", value[n], inner)


def _single(origin: Origin) -> int | None:
    """The one version that set all of it; None where several did."""
    if isinstance(origin, int):
        return origin
    inner = [_single(part) for part in (origin.values() if isinstance(origin, dict) else origin)]
    return inner[0] if inner and len(set(inner)) == 1 else None


def _step(key: str) -> str:
    return f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=False)}]"
