"""Slices: every value of a column is judged by itself, against a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import InvalidInput
from llmctl.core.evidence import Verdict
from llmctl.core.protocols import ArtifactStore
from llmctl.gates import GateRequest, GateResult, Row, rejudge, run
from tests.gates.parts import Gateway, Reply, quiet, request, right, serving, store_at


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return store_at(tmp_path / "artifacts")


def sliced(value: Callable[[int], Any], /, **slices: Any) -> GateRequest:
    """120 rows; the language of row n is ``value(n)``."""
    asked = request(120, exact_match={"min": 0.5}, contains={"min": 0.5})
    rows = [Row(row.id, {**row.values, "language": value(n)}) for n, row in enumerate(asked.rows)]
    given = slices or {"language": {"exact_match": {"min": 0.9}}}
    return replace(asked, rows=rows, spec={**asked.spec, "slices": given})


def go(asked: GateRequest, gateway: Gateway, store: ArtifactStore, known: Any = ()) -> GateResult:
    return run(asked, gateway.access, store, known, progress=quiet, cancelled=threading.Event())


def no_french(_revision: str, variables: dict[str, Any]) -> Reply:
    """Wrong on every third question."""
    number = int(variables["question"].removeprefix("How is ").removesuffix("?"))
    return Reply("Je ne sais pas.") if number % 3 == 0 else right(_revision, variables)


def test_a_slice_that_fails_blocks_a_gate_that_passes_as_a_whole(store: ArtifactStore) -> None:
    asked = sliced(lambda n: "fr" if (n + 1) % 3 == 0 else "de")
    with serving(no_french) as gateway:
        evidence = go(asked, gateway, store).evidence
    assert [(j.metric, j.slice, j.samples, j.verdict) for j in evidence.judgements] == [
        ("exact_match", "", 120, Verdict.PASS),
        ("contains", "", 120, Verdict.PASS),
        ("exact_match", "language=de", 80, Verdict.PASS),
        ("exact_match", "language=fr", 40, Verdict.FAIL),
    ]
    assert evidence.verdict is Verdict.FAIL
    assert rejudge(evidence, asked.spec) == []


def test_a_slice_that_is_too_small_is_inconclusive_unless_it_is_judged_on_the_point(store: ArtifactStore) -> None:
    asked = sliced(lambda n: "fr" if n < 20 else "de")
    point = sliced(lambda n: "fr" if n < 20 else "de", language={"exact_match": {"min": 0.9, "decide": "point"}})
    with serving(right) as gateway:
        evidence = go(asked, gateway, store).evidence
        assert go(point, gateway, store).evidence.verdict is Verdict.PASS
    french = evidence.judgements[-1]
    assert (french.slice, french.verdict, french.samples_needed) == ("language=fr", Verdict.INCONCLUSIVE, 29)
    assert evidence.verdict is Verdict.INCONCLUSIVE


def test_known_evidence_answers_its_slices_and_no_others(store: ArtifactStore) -> None:
    asked = sliced(lambda n: "fr" if n < 60 else "de")
    with serving(right) as gateway:
        first = go(asked, gateway, store).evidence
        gateway.asked.clear()
        again = go(asked, gateway, store, [first])
        assert gateway.asked == []
        assert again.evidence == first
        harder = sliced(lambda n: "fr" if n < 60 else "de", language={"exact_match": {"min": 0.91}})
        assert go(harder, gateway, store, [first]).cached == ()


@pytest.mark.parametrize(
    ("value", "slices", "complaint"),
    [
        (lambda n: n, {}, "column language has more than 50 values"),
        (lambda _: "word " * 20, {}, "column language has values longer than 60 characters"),
        (lambda n: None if n == 3 else "de", {}, "row q4: nothing in language"),
        (lambda _: "de", {"tone": {"exact_match": {"min": 0.9}}}, "row q1: nothing in tone"),
        (lambda _: "de", {"language": {"rouge_l": {"min": 0.9}}}, "rouge_l is no score that the gate measures"),
        (lambda _: "de", {"language": {"exact_match": {"max_drop": 0.1}}}, "exact_match needs `min`"),
    ],
)
def test_slices_that_cannot_be_judged(
    store: ArtifactStore, value: Callable[[int], Any], slices: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidInput, match=r"gate\.faq") as caught:
        go(sliced(value, **slices), Gateway(right), store)
    assert complaint in caught.value.diagnostics()[0].summary
