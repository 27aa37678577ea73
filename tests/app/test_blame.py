"""Who set a field: what stays equal keeps its origin, wherever it stands."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmctl.app.blame import blamed
from llmctl.core.digests import Json


def told(*specs: Json) -> dict[str, int]:
    return {field.path: field.version for field in blamed(specs)}


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ([{}], {}),
        ([{"a": 1, "b": [1, {"c": None}]}], {"a": 0, "b": 0}),
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], {"a": 0, "b": 1}),
        ([{"a": 1}, {"a": 2}, {"a": 1}], {"a": 2}),  # that it had the value before is no matter
        ([{"a": 1}, {}, {"a": 1}], {"a": 2}),
        ([{"a": 1}, {"a": True}], {"a": 1}),
        ([{"a": 1}, {"a": 1.0}], {"a": 1}),
        ([{"a": {}}, {"a": {}}], {"a": 0}),
        ([{"a": []}, {"a": {}}], {"a": 1}),
        ([{"a": {"b": 1}}, {"a": {}}], {"a": 1}),
        ([{"a": {}}, {"a": {"b": 1}}], {"a": 1}),
        ([{"a": {"b": 1, "c": 1}}, {"a": {"b": 1, "c": 2}}], {"a.b": 0, "a.c": 1}),
        ([{"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}], {"a.b.c": 0, "a.b.d": 1}),
        ([{"a": [1, 2]}, {"a": [0, 1, 2]}], {"a[0]": 1, "a[1]": 0, "a[2]": 0}),
        ([{"a": [1, 2, 3]}, {"a": [1, 3]}], {"a": 0}),
        ([{"a": [{"b": 1, "c": 1}]}, {"a": [{"b": 1, "c": 2}]}], {"a[0].b": 0, "a[0].c": 1}),
        ([{"a": {"x.y": 1, "z": 1}}, {"a": {"x.y": 2, "z": 1}}], {'a["x.y"]': 1, "a.z": 0}),
    ],
)
def test_fields_and_their_origin(specs: list[Json], expected: dict[str, int]) -> None:
    assert told(*specs) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
specs = st.lists(st.dictionaries(st.sampled_from("abc"), values, max_size=3), min_size=1, max_size=5)


@given(specs)
def test_every_field_is_told_once_with_its_value(history: list[Json]) -> None:
    before = copy.deepcopy(history)
    found = blamed(history)
    assert history == before
    assert {field.path.partition(".")[0].partition("[")[0] for field in found} == set(history[-1])
    assert len({field.path for field in found}) == len(found)
    assert all(0 <= field.version < len(history) for field in found)


@given(specs)
def test_what_never_changed_is_of_the_first(history: list[Json]) -> None:
    assert {field.version for field in blamed([history[0]] * 3)} <= {0}
    fields = {field.path: field for field in blamed(history)}
    for key, value in history[-1].items():
        if key in fields and len(history) > 1 and key not in history[-2]:
            assert fields[key].version == len(history) - 1
            assert fields[key].value == value
