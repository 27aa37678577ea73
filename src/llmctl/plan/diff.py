"""Field-level differences, by path. What is equal is not looked into."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from llmctl.core.digests import Json
from llmctl.core.resources import Spec
from llmctl.plan.model import FieldDiff

#: Fields that repeat what other resources of the same plan show in full.
_DERIVED: dict[str, frozenset[str]] = {
    "endpoint": frozenset({"weights", "api_key"}),
    "route": frozenset({"chain", "template"}),
    "gate": frozenset({"dataset_digest", "dataset_format"}),
}
_NO_DERIVED: frozenset[str] = frozenset()
_ABSENT = object()
_PLAIN = re.compile(r"[^.\[\]]+")  # a key that cannot be taken for two, nor for a position in a list


def field_diffs(kind: str, before: Spec | None, after: Spec | None) -> tuple[FieldDiff, ...]:
    """The fields in which two specs of a kind differ, by path. None stands for a spec that is not there."""
    if _equal(before, after):
        return ()
    hidden = _DERIVED.get(kind, _NO_DERIVED)
    old, new = _shown(before, hidden), _shown(after, hidden)
    if before is None or after is None:
        return tuple(
            FieldDiff(key, old.get(key), new.get(key)) for key in (new or old) if (new or old)[key] is not None
        )
    diffs: list[FieldDiff] = []
    for key in {**old, **new}:
        if not _equal(old.get(key), new.get(key)):
            diffs += _nested(key, old.get(key), new.get(key))
    return tuple(diffs)


def _shown(spec: Spec | None, hidden: frozenset[str]) -> Mapping[str, Json]:
    return {key: value for key, value in (spec or {}).items() if key not in hidden}


def _nested(path: str, old: Json, new: Json) -> Iterator[FieldDiff]:
    """Where two values differ; what one of them lacks is ``_ABSENT`` there."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({**old, **new})
        inner = ((f"{path}{_step(key)}", old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys)
    elif isinstance(old, list) and isinstance(new, list):
        inner = ((f"{path}[{n}]", was, now) for n, was, now in _items(old, new))
    else:
        yield FieldDiff(path, None if old is _ABSENT else old, None if new is _ABSENT else new)
        return
    for place, was, now in inner:
        if not _equal(was, now):
            yield from _nested(place, was, now)


def _equal(old: Json, new: Json) -> bool:
    """Whether two values are the same JSON: in Python, 1 equals true and 1.0, which are other values there."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(_equal(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_equal, old, new))
    return type(old) is type(new) and old == new


def _step(key: str) -> str:
    return f".{key}" if _PLAIN.fullmatch(key) else f"[{json.dumps(key, ensure_ascii=False)}]"


def _items(old: list[Json], new: list[Json]) -> Iterator[tuple[int, Json, Json]]:
    """A list that only lost or only got items is told by those, any other position by position."""
    gone, come = _left_out(new, old), _left_out(old, new)
    if gone is not None:
        yield from ((n, old[n], _ABSENT) for n in gone)
    elif come is not None:
        yield from ((n, _ABSENT, new[n]) for n in come)
    else:
        for n, (was, now) in enumerate(zip_longest(old, new, fillvalue=_ABSENT)):
            yield n, was, now


def _left_out(some: list[Json], every: list[Json]) -> list[int] | None:
    """The positions in ``every`` of what ``some`` leaves out; None where it has anything else, or another order."""
    found: list[int] = []
    rest = enumerate(every)
    for item in some:
        for n, other in rest:
            if _equal(item, other):
                break
            found.append(n)
        else:
            return None
    return found + [n for n, _ in rest]
