"""What differs between two specs, by path."""

from __future__ import annotations

import pytest

from llmctl.core.digests import Json
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
    ],
)
def test_each_difference_has_its_path(before: Json, after: Json, found: list[tuple[str, Json, Json]]) -> None:
    diffs = field_diffs("prompt", {"f": before, "same": [1]}, {"f": after, "same": [1]})
    assert [(d.path, d.before, d.after) for d in diffs] == found
