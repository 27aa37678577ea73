"""Running a gate against a real HTTP server on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import Interrupted, InvalidInput, LlmctlError, ProviderError, TransientError
from llmctl.core.evidence import Evidence, Verdict
from llmctl.core.protocols import ArtifactStore, GateAccess
from llmctl.core.secrets import Secret
from llmctl.gates import Failures, GateRequest, GateResult, Row, find_cached, read_rows, rejudge, run
from llmctl.gates.runner import Answer, Target, ask
from tests.gates.parts import (
    CANARY,
    NEW,
    OLD,
    Gateway,
    Reply,
    always,
    quiet,
    request,
    right,
    rows,
    serving,
    spec,
    store_at,
)

LIMITS: dict[str, Any] = {"latency_p95_ms": {"max": 20_000}, "error_rate": {"max": 0.06}}
MATCH: dict[str, Any] = {"exact_match": {"min": 0.9}}
DROP: dict[str, Any] = {"exact_match": {"min": 0.5, "max_drop": 0.05}}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return store_at(tmp_path / "artifacts")


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with serving(right) as server:
        yield server


def go(
    asked: GateRequest, gateway: Gateway, store: ArtifactStore, known: Sequence[Evidence] = (), **options: Any
) -> GateResult:
    given: dict[str, Any] = {"progress": quiet, "cancelled": threading.Event(), **options}
    return run(asked, gateway.access, store, known, **given)


def test_right_answers_pass_and_are_kept(gateway: Gateway, store: ArtifactStore) -> None:
    result = go(request(60, **MATCH, rouge_l={"min": 0.9}, **LIMITS), gateway, store)
    evidence = result.evidence
    assert evidence.verdict is Verdict.PASS
    assert [(j.metric, j.estimate, j.samples) for j in evidence.judgements if j.rule == "min"] == [
        ("exact_match", 1.0, 60),
        ("rouge_l", 1.0, 60),
    ]
    assert result.worst == ()
    assert result.cached == ()
    assert evidence.failing == ()
    kept = read_rows(store, evidence)
    assert kept is not None
    assert [row.id for row in kept] == [f"q{n}" for n in range(1, 61)]
    assert kept[6].answer == "It is 7."
    assert kept[6].scores == {"exact_match": 1.0, "rouge_l": 1.0}
    assert 0 < (kept[6].latency_ms or 0) < 20_000
    assert rejudge(evidence, request(60, **MATCH, rouge_l={"min": 0.9}, **LIMITS).spec) == []
    assert Evidence.from_json(json.loads(json.dumps(evidence.to_json(), allow_nan=False))) == evidence


def test_every_row_is_asked_once_by_its_prompt_variables_after_a_warm_up(
    gateway: Gateway, store: ArtifactStore
) -> None:
    seen: list[tuple[int, int]] = []
    gateway.wait_for = 4
    go(request(20, **MATCH), gateway, store, progress=lambda done, total: seen.append((done, total)), concurrency=4)
    questions = [variables["question"] for _, variables in gateway.asked]
    assert questions[0] == "How is 1?"
    assert sorted(questions[1:]) == sorted(f"How is {n}?" for n in range(1, 21))
    assert seen == [(n, 20) for n in range(1, 21)]
    assert gateway.most_at_once == 4
    assert {h["Authorization"] for h in gateway.headers} == {f"Bearer {CANARY}"}


def test_wrong_answers_fail_and_the_worst_rows_are_shown(store: ArtifactStore) -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply("No idea.") if variables["question"] in ("How is 3?", "How is 9?") else right(revision, variables)

    with serving(script) as gateway:
        result = go(request(12, exact_match={"min": 0.99, "decide": "point"}), gateway, store)
    assert result.evidence.verdict is Verdict.FAIL
    assert result.evidence.failing == ("q3", "q9")
    worst = result.worst[0]
    assert (worst.id, worst.inputs, worst.expected) == ("q3", {"question": "How is 3?"}, "It is 3.")
    assert (worst.answer, worst.score) == ("No idea.", 0.0)
    assert "No idea" not in json.dumps(result.evidence.to_json())


def test_at_most_five_worst_and_a_hundred_failing(store: ArtifactStore) -> None:
    with serving(always(Reply("No."))) as gateway:
        result = go(request(120, **MATCH), gateway, store)
    assert len(result.worst) == 5
    assert len(result.evidence.failing) == 100


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply("overloaded", status=503), "HTTP 503: overloaded"),
        (Reply("", status=503, served_by="", body="<html>"), "HTTP 503"),
        (Reply("no such model upstream", status=404), "HTTP 404: no such model upstream"),
        (Reply(None), "the answer has no text"),
        (Reply(body="not json"), "the answer has no text"),
        (Reply(body="[]"), "the answer has no text"),
        (Reply(cut=True), "the connection broke: ServerDisconnectedError"),
        (Reply(f"you sent Bearer {CANARY}", status=500), "HTTP 500: you sent Bearer **********"),
    ],
)
def test_a_failed_request_is_a_row_with_an_error(store: ArtifactStore, reply: Reply, error: str) -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return reply if variables["question"] == "How is 2?" else right(revision, variables)

    with serving(script) as gateway:
        result = go(request(20, **MATCH, **LIMITS), gateway, store)
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert kept[1].error == error
    assert kept[1].scores == {}
    assert kept[1].latency_ms == 60_000
    figures = {j.metric: j.estimate for j in result.evidence.judgements}
    assert figures["error_rate"] == pytest.approx(0.05)
    assert figures["exact_match"] == pytest.approx(0.95)
    assert result.worst[0].error == error


def test_all_requests_failing_fails(store: ArtifactStore) -> None:
    with serving(always(Reply("down", status=500))) as gateway:
        result = go(request(60, **MATCH, **LIMITS), gateway, store)
    assert [j.verdict for j in result.evidence.judgements] == [Verdict.FAIL] * 3
    assert result.worst[0].failures == Failures(60, 60, "HTTP 500: down", 60)
    json.dumps(result.evidence.to_json(), allow_nan=False)


def test_a_gate_with_known_answers_tells_of_the_requests_that_fail_now(store: ArtifactStore) -> None:
    down: set[str] = set()

    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply("down", status=502) if variables["question"] in down else right(revision, variables)

    with serving(script) as gateway:
        first = go(request(60, **MATCH, **LIMITS), gateway, store)
        down.update(f"How is {n}?" for n in range(40))
        second = go(request(60, **MATCH, **LIMITS), gateway, store, [first.evidence])
    assert first.worst == ()
    assert second.cached == ("exact_match",)
    assert [(row.error, row.score) for row in second.worst] == [("HTTP 502: down", 1.0)] * 5
    assert second.worst[0].failures == Failures(39, 60, "HTTP 502: down", 39)
    with serving(right) as gateway:  # a gate of answers alone has nothing to say of that run's requests
        third = go(request(60, **MATCH), gateway, store, [second.evidence])
    assert third.cached == ("exact_match",)
    assert third.worst == ()


def test_no_rows_is_inconclusive_and_asks_nothing(gateway: Gateway, store: ArtifactStore) -> None:
    result = go(request(0, baseline=OLD, **DROP, **LIMITS), gateway, store)
    assert {j.verdict for j in result.evidence.judgements} == {Verdict.INCONCLUSIVE}
    assert gateway.asked == []


def test_an_answer_by_another_revision_stops_the_gate(store: ArtifactStore) -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply("x", served_by=OLD) if variables["question"] == "How is 5?" else right(revision, variables)

    with serving(script) as gateway, pytest.raises(ProviderError, match=f"support@{NEW} by revision {OLD}"):
        go(request(300, **MATCH), gateway, store, concurrency=2)
    assert len(gateway.asked) < 20
    assert store.list() == frozenset()


@pytest.mark.parametrize(
    ("reply", "summary"),
    [
        (Reply("x", served_by=""), "by revision unknown"),
        (Reply("x", served_by=NEW.upper()), "by revision NEW"),
        (Reply("x", status=500, served_by=OLD), "by revision old"),
        (Reply("x", status=401, served_by=""), "refuses the gate's token"),
        (Reply("x", status=403, served_by=""), "refuses the gate's token"),
        (Reply("x", status=404, served_by=""), f"does not know support@{NEW}"),
    ],
)
def test_what_the_gateway_itself_refuses_stops_the_gate(store: ArtifactStore, reply: Reply, summary: str) -> None:
    with serving(always(reply)) as gateway, pytest.raises(ProviderError, match=summary) as caught:
        go(request(5, **MATCH), gateway, store)
    assert caught.value.hint
    assert CANARY not in repr(caught.value) + caught.value.detail


def test_a_redirect_is_not_followed(store: ArtifactStore) -> None:
    with serving(always(Reply("x", status=307))) as gateway:
        result = go(request(3, **MATCH), gateway, store)
    assert [r.error for r in result.worst] == ["HTTP 307: x"] * 3


def test_an_unreachable_gateway(store: ArtifactStore) -> None:
    with serving(right) as gateway:
        base_url = gateway.base_url
    gone = Gateway(right, base_url)
    with pytest.raises(TransientError, match="cannot be reached at http://127") as caught:
        go(request(5, **MATCH), gone, store)
    assert CANARY not in repr(caught.value) + caught.value.detail + caught.value.hint
    with pytest.raises(ProviderError, match="cannot be reached at nonsense"):
        go(request(5, **MATCH), Gateway(right, "nonsense"), store)


def test_a_token_that_cannot_be_a_header_is_not_shown(gateway: Gateway, store: ArtifactStore) -> None:
    access = GateAccess(gateway.base_url, Secret(f"{CANARY}\n"))
    with pytest.raises(ProviderError, match="token cannot be sent") as caught:
        run(request(2, **MATCH), access, store, (), progress=quiet, cancelled=threading.Event())
    assert CANARY not in str(caught.value) + caught.value.detail + caught.value.hint
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert gateway.asked == []


def test_the_token_is_nowhere_in_what_comes_back(store: ArtifactStore, tmp_path: Path) -> None:
    with serving(always(Reply(f"echo {CANARY}"))) as gateway:
        result = go(request(3, **MATCH), gateway, store)
    assert CANARY not in repr(result) + json.dumps(result.evidence.to_json())
    assert all(CANARY.encode() not in file.read_bytes() for file in (tmp_path / "artifacts").iterdir())
    assert "**********" in result.worst[0].answer


def answers(gateway: Gateway, count: int, timeout_s: float) -> list[Answer]:
    questions = [{"question": f"How is {n}?"} for n in range(1, count + 1)]
    target = Target(gateway.access, "support", NEW, timeout_s)
    return ask(target, questions, concurrency=4, answered=lambda *_: None, cancelled=threading.Event())


def test_a_time_out_is_a_row_with_an_error() -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply(hang=True) if variables["question"] == "How is 2?" else right(revision, variables)

    with serving(script) as gateway:
        found = answers(gateway, 3, 0.2)
    assert [a.error for a in found] == ["", "no answer within 0.2 s", ""]
    assert found[1].latency_ms == 200


def test_cancelling_stops_promptly(store: ArtifactStore) -> None:
    cancelled = threading.Event()

    def script(_revision: str, _variables: dict[str, Any]) -> Reply:
        cancelled.set()
        return Reply(hang=True)

    with serving(script) as gateway, pytest.raises(Interrupted):
        go(request(50, **MATCH), gateway, store, cancelled=cancelled)
    assert len(gateway.asked) == 1
    assert store.list() == frozenset()
    with serving(right) as gateway, pytest.raises(Interrupted):
        go(request(50, **MATCH), gateway, store, cancelled=cancelled)
    assert gateway.asked == []


def test_cancelling_between_rows(gateway: Gateway, store: ArtifactStore) -> None:
    cancelled = threading.Event()

    def progress(done: int, _total: int) -> None:
        if done == 10:
            cancelled.set()

    with pytest.raises(Interrupted):
        go(request(3000, **MATCH), gateway, store, progress=progress, cancelled=cancelled, concurrency=2)
    assert len(gateway.asked) < 2000


def test_max_drop_does_not_apply_when_nothing_else_is_live(gateway: Gateway, store: ArtifactStore) -> None:
    for baseline in ("", NEW):
        result = go(request(60, baseline=baseline, **DROP), gateway, store)
        assert [j.verdict for j in result.evidence.judgements] == [Verdict.PASS, Verdict.NOT_APPLICABLE]
        assert result.evidence.verdict is Verdict.PASS
    assert gateway.count(OLD) == 0


def test_max_drop_asks_the_baseline_when_its_rows_are_not_known(store: ArtifactStore) -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        worse = revision == NEW and variables["question"] in [f"How is {n}?" for n in range(1, 21)]
        return Reply("No.") if worse else right(revision, variables)

    seen: list[tuple[int, int]] = []
    with serving(script) as gateway:
        result = go(
            request(100, baseline=OLD, **DROP), gateway, store, progress=lambda done, total: seen.append((done, total))
        )
    assert gateway.count(OLD) == gateway.count(NEW) == 101
    assert seen == [(n, 200) for n in range(1, 201)]
    drop = result.evidence.judgements[1]
    assert drop.estimate == pytest.approx(0.2)
    assert (drop.rule, drop.verdict) == ("max_drop", Verdict.FAIL)
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert (kept[0].scores, kept[0].baseline) == ({"exact_match": 0.0}, {"exact_match": 1.0})


def test_max_drop_takes_the_baseline_from_known_rows(gateway: Gateway, store: ArtifactStore) -> None:
    old = go(request(60, revision=OLD, exact_match={"min": 0.1}, contains={"min": 0.1}), gateway, store).evidence
    gateway.asked.clear()
    result = go(request(60, baseline=OLD, **DROP), gateway, store, [old])
    assert gateway.count(OLD) == 0
    assert result.evidence.judgements[1].samples == 60
    assert result.evidence.verdict is Verdict.PASS


@pytest.mark.parametrize("change", ["dataset", "inputs", "scorer", "gone", "damaged", "fewer"])
def test_rows_that_do_not_compare_are_not_taken(
    gateway: Gateway, store: ArtifactStore, tmp_path: Path, change: str
) -> None:
    before = request(60, revision=OLD, **MATCH)
    if change == "dataset":
        before = replace(before, spec={**before.spec, "dataset_digest": "sha256:other"})
    if change == "inputs":
        before = replace(before, spec={**before.spec, "inputs": {"question": "answer"}})
    if change == "scorer":
        before = replace(before, spec={**before.spec, "metrics": {"contains": {"min": 0.1}}})
    if change == "fewer":
        before = replace(before, rows=before.rows[:-1])
    old = go(before, gateway, store).evidence
    if change == "gone":
        store.delete(old.rows)
    if change == "damaged":
        file = tmp_path / "artifacts" / old.rows.replace(":", "_")
        file.write_bytes(file.read_bytes().replace(b"1.0", b"0.0"))
    gateway.asked.clear()
    result = go(request(60, baseline=OLD, **DROP), gateway, store, [old])
    assert gateway.count(OLD) == 61
    assert result.evidence.verdict is Verdict.PASS


def test_a_baseline_that_did_not_answer_hides_no_drop(store: ArtifactStore) -> None:
    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply("down", status=500) if revision == OLD else right(revision, variables)

    with serving(script) as gateway:
        result = go(request(60, baseline=OLD, **DROP), gateway, store)
        again = go(request(60, baseline=OLD, **DROP), gateway, store, [result.evidence])
    drop = result.evidence.judgements[1]
    assert (drop.samples, drop.verdict) == (0, Verdict.INCONCLUSIVE)
    assert again.cached == ()


def test_known_evidence_stands_and_nothing_is_asked(gateway: Gateway, store: ArtifactStore) -> None:
    first = go(request(60, baseline=OLD, **DROP), gateway, store)
    gateway.asked.clear()
    second = go(request(60, baseline=OLD, **DROP), gateway, store, [first.evidence])
    assert gateway.asked == []
    assert second.evidence == first.evidence
    assert second.cached == ("exact_match",)
    renamed = replace(request(60, baseline=OLD, **DROP), gate="faq-two", gate_revision="g2")
    third = go(renamed, gateway, store, [first.evidence]).evidence
    assert third == replace(first.evidence, gate="faq-two", gate_revision="g2")


def test_known_wrong_answers_are_shown_again(store: ArtifactStore) -> None:
    with serving(always(Reply("No."))) as gateway:
        first = go(request(60, **MATCH), gateway, store)
        second = go(request(60, **MATCH), gateway, store, [first.evidence])
    assert second.worst == first.worst != ()
    assert second.evidence.verdict is Verdict.FAIL


def test_latency_and_errors_are_measured_anew(store: ArtifactStore) -> None:
    gate: dict[str, Any] = {**MATCH, **LIMITS}
    with serving(right) as gateway:
        first = go(request(60, **gate), gateway, store)
    with serving(always(Reply("x", status=500))) as gateway:
        second = go(request(60, **gate), gateway, store, [first.evidence])
    assert gateway.count(NEW) == 61
    verdicts = {j.metric: j.verdict for j in second.evidence.judgements}
    assert verdicts == {"exact_match": Verdict.PASS, "latency_p95_ms": Verdict.FAIL, "error_rate": Verdict.FAIL}
    assert second.cached == ("exact_match",)
    assert second.evidence.key == first.evidence.key
    kept = read_rows(store, second.evidence)
    assert kept is not None
    assert (kept[0].answer, kept[0].scores, kept[0].error) == ("It is 1.", {"exact_match": 1.0}, "HTTP 500: x")


@pytest.mark.parametrize(
    "how", ["rows gone", "other threshold", "other revision", "other baseline", "other confidence"]
)
def test_evidence_that_does_not_answer_is_measured(gateway: Gateway, store: ArtifactStore, how: str) -> None:
    asked = request(60, baseline=OLD, **DROP)
    first = go(asked, gateway, store).evidence
    if how == "rows gone":
        store.delete(first.rows)
    if how == "other threshold":
        asked = request(60, baseline=OLD, exact_match={"min": 0.51, "max_drop": 0.05})
    if how == "other revision":
        asked = replace(asked, route_revision="another")
    if how == "other baseline":
        asked = replace(asked, baseline_revision="another")
    if how == "other confidence":
        asked = replace(asked, spec={**asked.spec, "confidence": 0.9})
    gateway.asked.clear()
    result = go(asked, gateway, store, [first])
    assert result.cached == ()
    assert gateway.count(asked.route_revision) == 61


def test_evidence_with_failed_requests_is_not_reused(store: ArtifactStore) -> None:
    calls = iter(range(1000))

    def script(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply("flaky", status=502) if next(calls) == 5 else right(revision, variables)

    with serving(script) as gateway:
        first = go(request(60, **MATCH), gateway, store)
        second = go(request(60, **MATCH), gateway, store, [first.evidence])
    assert len(first.evidence.failing) == 1
    assert second.cached == ()
    assert second.evidence.failing == ()


def test_find_cached_takes_the_latest_and_knows_what_cannot_be_cached(gateway: Gateway, store: ArtifactStore) -> None:
    evidence = go(request(60, **MATCH), gateway, store).evidence
    older = replace(evidence, measured_at="2001-01-01T00:00:00+00:00")
    assert find_cached(request(60, **MATCH), [evidence, older]) is evidence
    assert find_cached(request(60, baseline=OLD, **MATCH), [evidence]) is evidence
    assert find_cached(request(60, **MATCH, **LIMITS), [evidence]) is evidence
    assert find_cached(request(60, exact_match={"min": 0.8}), [evidence]) is None
    only_live = go(request(60, **LIMITS), gateway, store).evidence
    assert find_cached(request(60, **LIMITS), [only_live]) is None
    assert find_cached(request(60, **MATCH), []) is None


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ({"metrics": {"exact": {"min": 1}}}, "unknown metric exact"),
        ({"metrics": {"latency_p95_ms": {"min": 1}}}, "latency_p95_ms has min"),
        ({"metrics": {"exact_match": {"decide": "point"}}}, "exact_match has no threshold"),
        ({"expected": None}, "exact_match needs the expected answers"),
        ({"inputs": {"question": "frage"}}, "dataset faq-eval, row q1: nothing in frage"),
        ({"expected": "antwort"}, "dataset faq-eval, row q1: nothing in antwort"),
    ],
)
def test_a_request_that_cannot_be_run(store: ArtifactStore, change: dict[str, Any], finding: str) -> None:
    asked = request(30, **MATCH)
    with pytest.raises(InvalidInput) as caught:
        go(replace(asked, spec={**asked.spec, **change}), Gateway(right), store)
    found = caught.value.diagnostics()
    assert finding in found[0].summary
    assert found[0].hint
    assert len(found) <= 11


def test_a_row_id_twice_is_refused(store: ArtifactStore) -> None:
    twice = replace(request(3, **MATCH), rows=[*rows(3), rows(1)[0]])
    with pytest.raises(LlmctlError, match="the row id q1 twice"):
        go(twice, Gateway(right), store)


def test_row_ids() -> None:
    assert Row.of(3, {"id": "a"}).id == "a"
    assert Row.of(3, {"id": 7}).id == "7"
    assert Row.of(3, {"id": 0}).id == "0"
    assert Row.of(3, {"id": ""}).id == Row.of(3, {}).id == Row.of(3, {"id": None}).id == "3"


def test_values_that_are_no_strings(store: ArtifactStore) -> None:
    with serving(lambda _, variables: Reply(json.dumps(variables["question"]))) as gateway:
        asked = GateRequest("faq", "g", spec(**MATCH), NEW, "", [Row.of(1, {"question": True, "answer": True})])
        assert go(asked, gateway, store).evidence.judgements[0].estimate == 1.0


def test_a_token_like_a_word_does_not_spoil_answers(gateway: Gateway, store: ArtifactStore) -> None:
    access = GateAccess(gateway.base_url, Secret("t"))
    result = run(request(3, **MATCH), access, store, (), progress=quiet, cancelled=threading.Event())
    assert result.evidence.judgements[0].estimate == 1.0


def test_an_answer_that_is_not_unicode_is_kept(store: ArtifactStore) -> None:
    with serving(always(Reply("\ud800"))) as gateway:
        result = go(request(2, **MATCH), gateway, store)
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert kept[0].answer == "\ud800"
