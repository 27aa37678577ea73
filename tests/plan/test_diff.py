"""What differs between two specs, by path."""

from __future__ import annotations

import copy
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.digests import Json, canonical_json
from llmctl.plan import FieldDiff
from llmctl.plan.diff import field_diffs


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("a", "b", [("f", "a", "b")]),
        ({"a": 1, "b": 2}, {"a": 1, "c": 3}, [("f.b", 2, None), ("f.c", None, 3)]),
        ([{"role": "user", "text": "a"}], [{"role": "user", "text": "b"}], [("f[0].text", "a", "b")]),
        ([{"a": 1}, {"a": 2}], [{"a": 1}], [("f[1]", {"a": 2}, None)]),
        (["a", "b", "c"], ["a", "c"], [("f[1]", "b", None)]),
        (["a", "c"], ["a", "b", "c"], [("f[1]", None, "b")]),
        (["a", "b"], ["b", "c"], [("f[0]", "a", "b"), ("f[1]", "b", "c")]),
        ([10, 100], [10, 50, 100], [("f[1]", None, 50)]),
        ({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}, [("f.a.b[1].c", 2, 3)]),
        ({"a": 1}, [1], [("f", {"a": 1}, [1])]),
        ([], ["a"], [("f[0]", None, "a")]),
        (1, True, [("f", 1, True)]),
        ([1, 2], [True, 2], [("f[0]", 1, True)]),
        ({"a": [0, {"b": 1}]}, {"a": [False, {"b": 1.0}]}, [("f.a[0]", 0, False), ("f.a[1].b", 1, 1.0)]),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, [("f.a", 1, 2), ("f.b", 1, 2)]),
        ({"a.b": 1, "a": {"b": 1}}, {"a.b": 2, "a": {"b": 2}}, [("f.a.b", 1, 2), ('f["a.b"]', 1, 2)]),
        ({"": 1, "a[0]": 1}, {"": 2, "a[0]": 2}, [('f[""]', 1, 2), ('f["a[0]"]', 1, 2)]),
        ([*range(12)], [*range(1, 13)], [(f"f[{n}]", n, n + 1) for n in range(12)]),
        (["a", "b", "a", "c"], ["a", "c"], [("f[1]", "b", None), ("f[2]", "a", None)]),
    ],
)
def test_each_difference_has_its_path(before: Json, after: Json, found: list[tuple[str, Json, Json]]) -> None:
    diffs = field_diffs("prompt", {"f": before, "same": [1]}, {"f": after, "same": [1]})
    assert [(d.path, d.before, d.after) for d in diffs] == found


_SCALARS = st.booleans() | st.integers(-1, 1) | st.sampled_from([0.0, 1.0, 0.5, "", "a", "1"])
_KEYS = st.sampled_from(["a", "b", "a.b", "b[0]", '["a"]', "0", "", "ä x"])


def _values(scalars: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.recursive(
        scalars, lambda v: st.lists(v, max_size=5) | st.dictionaries(_KEYS, v, max_size=3), max_leaves=12
    )


def _read(before: Json, diffs: tuple[FieldDiff, ...]) -> Json:
    """What a reader makes of differences: what went had its place before, what came has its place after."""
    found = copy.deepcopy(before)
    changed = [d for d in diffs if d.before is not None and d.after is not None]
    gone = [d for d in reversed(diffs) if d.after is None]
    come = [d for d in diffs if d.before is None]
    for diff in (*changed, *gone, *come):
        *way, last = _places(diff.path)
        inside = found
        for place in way:
            inside = inside[place]
        if diff.after is None:
            del inside[last]
        elif diff.before is None and isinstance(inside, list):
            inside.insert(last, diff.after)
        else:
            inside[last] = diff.after
    return found


def _places(path: str) -> list[Json]:
    parts = re.findall(r'\[(?:(\d+)|("(?:[^"\\]|\\.)*"))\]|\.?([^.\[\]]+)', path)
    return [plain or (json.loads(quoted) if quoted else int(number)) for number, quoted, plain in parts]


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(_values(_SCALARS), _values(_SCALARS))
def test_the_differences_make_the_one_the_other(before: Json, after: Json) -> None:
    diffs = field_diffs("prompt", {"f": before, "same": [1]}, {"f": after, "same": [1]})
    assert canonical_json(_read({"f": before}, diffs)) == canonical_json({"f": after})


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(_values(_SCALARS | st.none()), _values(_SCALARS | st.none()))
def test_each_path_is_told_once_and_no_difference_is_lost(before: Json, after: Json) -> None:
    paths = [d.path for d in field_diffs("prompt", {"f": before}, {"f": after})]
    assert len(set(paths)) == len(paths)
    assert bool(paths) == (canonical_json(before) != canonical_json(after))
