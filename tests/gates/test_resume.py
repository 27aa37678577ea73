"""A run that was cut short: its answers are taken over, against a real HTTP server on loopback."""

from __future__ import annotations

import json
import os
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.errors import GateBlocked, Interrupted, LlmctlError
from llmctl.core.evidence import Verdict
from llmctl.core.protocols import ArtifactStore
from llmctl.gates import GateRequest, GateResult, read_rows, run
from llmctl.gates.answers import KEPT_DAYS, answer_log
from tests.gates.parts import CANARY, NEW, OLD, Gateway, Reply, Script, quiet, request, right, serving, store_at

MATCH: dict[str, Any] = {"exact_match": {"min": 0.5}}
HANGS = {f"How is {n}?" for n in range(31, 61)}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return store_at(tmp_path / "artifacts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "answers"


def go(asked: GateRequest, gateway: Gateway, store: ArtifactStore, folder: Path | None, **options: Any) -> GateResult:
    given: dict[str, Any] = {"progress": quiet, "cancelled": threading.Event(), "resume": folder, **options}
    return run(asked, gateway.access, store, given.pop("known", ()), **given)


def cut_short(asked: GateRequest, store: ArtifactStore, folder: Path, after: int = 30, script: Script = right) -> None:
    """A run that ends after so many answers."""
    cancelled = threading.Event()

    def progress(done: int, _total: int) -> None:
        if done == after:
            cancelled.set()

    def hangs(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply(hang=True) if variables["question"] in HANGS else script(revision, variables)

    with serving(hangs) as gateway, pytest.raises(Interrupted):
        go(asked, gateway, store, folder, progress=progress, cancelled=cancelled)


def questions(gateway: Gateway) -> list[str]:
    """What was asked, without the warm-up."""
    return [variables["question"] for _, variables in gateway.asked[1:]]


def test_only_the_rest_is_asked_and_the_file_goes_away(store: ArtifactStore, folder: Path) -> None:
    asked = request(60, **MATCH)
    cut_short(asked, store, folder)
    (file,) = folder.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert CANARY not in file.read_text()
    with serving(right) as gateway:
        result = go(asked, gateway, store, folder)
    assert sorted(questions(gateway)) == sorted(HANGS)
    assert result.taken_over == 30
    assert (result.evidence.verdict, result.evidence.samples) == (Verdict.PASS, 60)
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert [row.answer for row in kept] == [f"It is {n}." for n in range(1, 61)]
    assert [row.latency_ms is None for row in kept] == [True] * 30 + [False] * 30
    assert list(folder.iterdir()) == []
    with serving(right) as gateway:
        known = go(asked, gateway, store, folder, known=[result.evidence])
    assert gateway.asked == []
    assert known.evidence == result.evidence


def test_what_nobody_went_on_with_goes_when_another_gate_runs(store: ArtifactStore, folder: Path) -> None:
    folder.mkdir(parents=True)
    old, fresh, other = folder / "old.jsonl", folder / "fresh.jsonl", folder / "notes.txt"
    for path, days in ((old, KEPT_DAYS + 1), (fresh, KEPT_DAYS - 1), (other, 99)):
        path.write_text("{}")
        os.utime(path, (time.time() - days * 86400,) * 2)
    cut_short(request(60, **MATCH), store, folder)
    (mine,) = set(folder.iterdir()) - {fresh, other}
    os.utime(mine, (0, 0))
    with serving(right) as gateway:
        assert go(request(60, **MATCH), gateway, store, folder).taken_over == 30, "its own file may be of any age"
    assert set(folder.iterdir()) == {fresh, other}


def test_a_run_that_goes_on_with_old_answers_keeps_them_from_another(folder: Path) -> None:
    with answer_log(folder, "mine") as log:
        log.keep(NEW, "q1", "yes")
    os.utime(folder / "mine.jsonl", (0, 0))
    with answer_log(folder, "mine"), answer_log(folder, "other") as other:
        other.remove()
    with answer_log(folder, "mine") as log:
        assert log.known(NEW) == {"q1": "yes"}


def test_a_torn_line_and_garbage_are_left_aside(store: ArtifactStore, folder: Path) -> None:
    asked = request(60, **MATCH)
    cut_short(asked, store, folder)
    (file,) = folder.iterdir()
    lines = [line for line in file.read_bytes().split(b"\n") if line]
    garbage = [b"\xff\xfe", b"[]", b"7", b'{"id": "q1"}', b'{"revision": "%s", "id": "q2", "text": 7}' % NEW.encode()]
    garbage += [b'{"revision": "other", "id": "q40", "text": "x"}', b"[" * 100_000]
    strange = json.dumps({"revision": NEW, "id": "nobody", "text": "x"}).encode()
    file.write_bytes(b"\n".join([*garbage, *lines[:-1], strange, lines[-1][:-9]]))
    with serving(right) as gateway:
        cut = threading.Event()
        with pytest.raises(Interrupted):
            go(asked, gateway, store, folder, cancelled=cut, progress=lambda done, _: cut.set() if done == 5 else None)
        first = len(questions(gateway))
        result = go(asked, gateway, store, folder)
    assert 5 <= first <= 31
    assert 29 + 5 <= result.taken_over <= 29 + first
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert [row.answer for row in kept] == [f"It is {n}." for n in range(1, 61)]


def test_rows_that_failed_are_asked_again(store: ArtifactStore, folder: Path) -> None:
    def flaky(revision: str, variables: dict[str, Any]) -> Reply:
        failed = variables["question"] in ("How is 3?", "How is 8?")
        return Reply("busy", status=503) if failed else right(revision, variables)

    asked = request(60, **MATCH)
    cut_short(asked, store, folder, script=flaky)
    with serving(right) as gateway:
        result = go(asked, gateway, store, folder)
    assert sorted(questions(gateway)) == sorted({"How is 3?", "How is 8?", *HANGS})
    assert result.evidence.failing == ()
    assert result.taken_over == 28


@pytest.mark.parametrize("change", ["revision", "dataset", "threshold", "pattern", "baseline", "gate"])
def test_answers_of_another_run_are_not_taken(store: ArtifactStore, folder: Path, change: str) -> None:
    metrics: dict[str, Any] = {**MATCH, "regex": {"pattern": "^It", "min": 0.5}}
    asked = request(60, **metrics)
    cut_short(asked, store, folder)
    other = {
        "revision": replace(asked, route_revision=OLD),
        "dataset": replace(asked, spec={**asked.spec, "dataset_digest": "sha256:other"}),
        "threshold": request(60, exact_match={"min": 0.4}, regex=metrics["regex"]),
        "pattern": request(60, **MATCH, regex={"pattern": "It", "min": 0.5}),
        "baseline": request(60, baseline=OLD, exact_match={"min": 0.5, "max_drop": 0.1}, regex=metrics["regex"]),
        "gate": replace(asked, gate="other"),
    }[change]
    with serving(right) as gateway:
        result = go(other, gateway, store, folder)
    assert result.taken_over == 0
    assert len(list(folder.iterdir())) == 1


def test_the_baselines_answers_are_taken_over_too(store: ArtifactStore, folder: Path) -> None:
    asked = request(60, baseline=OLD, exact_match={"min": 0.5, "max_drop": 0.2})
    cut_short(asked, store, folder)
    with serving(right) as gateway:
        result = go(asked, gateway, store, folder)
    assert gateway.count(OLD) == 31
    assert gateway.count(NEW) == 61
    assert result.taken_over == 30
    assert result.evidence.judgements[1].samples == 60


@pytest.mark.parametrize(
    ("taken", "limits", "own"),
    [
        (30, {"latency_p50_ms": {"max": 20_000}}, 30),  # half of the rows are left
        (48, {"latency_p50_ms": {"max": 20_000}}, 30),  # a fifth is left: half of the rows are asked
        (40, {"error_rate": {"max": 0.06}}, 49),  # half of them could not prove it
        (30, {"latency_p95_ms": {"max": 20_000}}, 59),
        (60, {"error_rate": {"max": 0.001}}, 60),  # no number of these rows proves it
    ],
)
def test_latency_and_errors_are_judged_on_requests_of_this_run(
    store: ArtifactStore, folder: Path, taken: int, limits: dict[str, Any], own: int
) -> None:
    asked = request(60, **MATCH, **limits)
    cut_short(replace(asked, spec={**asked.spec, "metrics": MATCH}), store, folder)
    (file,) = folder.iterdir()
    file.write_text(
        "\n".join(json.dumps({"revision": NEW, "id": f"q{n}", "text": f"It is {n}."}) for n in range(1, taken + 1))
    )

    def down(revision: str, variables: dict[str, Any]) -> Reply:
        again = int(variables["question"].split()[-1].rstrip("?")) <= taken
        return Reply("busy", status=503) if again else right(revision, variables)

    with serving(down) as gateway:
        result = go(asked, gateway, store, folder)
    assert len(questions(gateway)) == len(set(questions(gateway))) == own
    quality, live = result.evidence.judgements
    assert (quality.samples, quality.estimate) == (60, 1.0)
    assert live.samples == own
    if live.metric == "error_rate":
        assert live.estimate == pytest.approx((own - (60 - taken)) / own)


def test_a_run_that_takes_too_long_can_be_taken_up(store: ArtifactStore, folder: Path) -> None:
    asked = request(60, **MATCH)

    def hangs(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply(hang=True) if variables["question"] in HANGS else right(revision, variables)

    with serving(hangs) as gateway, pytest.raises(GateBlocked, match=r"gate.faq did not end within 0\.5 s") as caught:
        go(asked, gateway, store, folder, run_timeout_s=0.5)
    (file,) = folder.iterdir()
    answered = sum(bool(line) for line in file.read_text().splitlines())
    assert f"of 60 requests to support@{NEW[:8]}" in caught.value.summary
    assert "it goes on with the rest" in caught.value.hint
    assert store.list() == frozenset()
    with serving(right) as gateway:
        result = go(asked, gateway, store, folder)
    assert result.taken_over == answered <= 30
    assert len(questions(gateway)) == 60 - answered


def test_time_that_is_over_at_once(store: ArtifactStore) -> None:
    with serving(right) as gateway, pytest.raises(GateBlocked, match="0 of 60 requests") as caught:
        go(request(60, **MATCH), gateway, store, None, run_timeout_s=0.0)
    assert "timeouts" in caught.value.hint
    assert "goes on" not in caught.value.hint
    assert gateway.asked == []


def test_a_request_that_takes_too_long_is_an_error_at_its_limit(store: ArtifactStore) -> None:
    def hangs(revision: str, variables: dict[str, Any]) -> Reply:
        return Reply(hang=True) if variables["question"] == "How is 2?" else right(revision, variables)

    with serving(hangs) as gateway:
        result = go(request(20, **MATCH, latency_p95_ms={"max": 5}), gateway, store, None, request_timeout_s=0.5)
    kept = read_rows(store, result.evidence)
    assert kept is not None
    assert (kept[1].error, kept[1].latency_ms) == ("no answer within 0.5 s", 500)
    assert result.evidence.judgements[1].upper == 500


def test_a_file_in_place_of_the_folder_is_told(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("x")
    with pytest.raises(LlmctlError, match="cannot be kept in") as caught:
        go(request(3, **MATCH), Gateway(right), store, tmp_path / "answers")
    assert caught.value.hint
