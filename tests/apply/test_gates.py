"""How apply asks a gate: by which text, on which rows, within which limits. The gate runs against a small server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.apply import ApplyResult, Run, State
from llmctl.core.address import Address
from llmctl.core.evidence import Verdict
from llmctl.core.kinds import kind_of
from llmctl.core.resources import RecordState, Resource
from llmctl.core.steps import RunGate
from llmctl.plan import build_plan
from tests.apply.fakes import MemoryGateway, MemoryTarget
from tests.apply.world import ROUTE, World, recorded_by
from tests.gates.parts import FileStore, Gateway, Reply, Script, right, serving, store_at
from tests.plan.builders import application, desired, recorded

GATE = Address("gate", "faq")
DATASET = Address("dataset", "faq")
COUNT = 60


def wrong_half(revision: str, variables: dict[str, Any]) -> Reply:
    """Right for even questions alone."""
    even = int(variables["question"].rstrip("?").split()[-1]) % 2 == 0
    return right(revision, variables) if even else Reply("No idea.")


@dataclass
class Proof:
    """A world whose gate asks a real server, and keeps its rows in files."""

    world: World
    server: Gateway
    store: FileStore
    state: RecordState

    def answer(self, script: Script) -> None:
        self.server.script = script

    def apply(self, resources: dict[Address, Resource], **more: Any) -> tuple[ApplyResult, Run]:
        plan = build_plan(desired(resources), self.state, self.world.read())
        run = self.world.begin(plan, self.state.serial + 1, **more)
        return self.world.go(run), run


def dataset(store: FileStore, tag: str) -> str:
    rows = [{"id": f"q{n}", "question": f"How is {n}?", "answer": f"It is {n}.", "tag": tag} for n in range(COUNT)]
    return store.put_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())


@pytest.fixture
def proof(tmp_path: Path) -> Iterator[Proof]:
    """The application, applied once and proven."""
    store = store_at(tmp_path / "store")
    assert isinstance(store, FileStore)
    with serving(right) as server:
        world = World(MemoryTarget(artifacts=store, gateway=MemoryGateway(access=server.access)))
        found = Proof(world, server, store, recorded({}, 0))
        result, run = found.apply(gated(application(rows=dataset(store, "old"))))
        assert result.ok, [r.text for r in result.failed]
        server.asked.clear()
        server.most_at_once = 0
        yield replace(found, state=recorded_by(run))


def gated(resources: dict[Address, Resource], least: float = 0.9, **fields: Any) -> dict[Address, Resource]:
    """The application with a gate that compares with nothing, and with other fields of it."""
    was = resources[GATE]
    spec = {**was.spec, "metrics": {"exact_match": {"min": least}}, **fields}
    return {**resources, GATE: replace(was, spec=spec, revision=kind_of("gate").revision(spec))}


def loosened(proof: Proof) -> dict[Address, Resource]:
    """A new prompt, and a gate that asks less and on other rows."""
    return gated(application(system="Be kind.", rows=dataset(proof.store, "new")), least=0.2)


def new_prompt(proof: Proof, **gate: Any) -> dict[Address, Resource]:
    """A change that its gate has to prove, on the rows that it had."""
    return gated(application(system="Be kind.", rows=proof.state.resources[DATASET].spec["digest"]), **gate)


def test_a_change_that_weakens_its_gate_is_judged_by_the_recorded_one_too(proof: Proof) -> None:
    proof.answer(wrong_half)
    result, run = proof.apply(loosened(proof))
    judged = {r.step.as_recorded: r for r in result.results if isinstance(r.step, RunGate)}
    assert judged[False].error is None
    failure = judged[True].error
    assert failure is not None
    assert "Judged as it is recorded" in failure.detail
    was = proof.state.resources[GATE]
    evidence = {g.evidence.gate_revision: g.evidence for g in result.gates}
    old = evidence[was.revision]
    assert (old.verdict, old.dataset_digest, dict(old.gate_spec)) == (
        Verdict.FAIL,
        was.spec["dataset_digest"],
        was.spec,
    )
    assert evidence[loosened(proof)[GATE].revision].verdict is Verdict.PASS
    subjects = [c.subject for c in proof.world.journal.changes]
    assert f"gate faq as recorded FAIL for route.support@{judged[True].step.revision[:8]}" in subjects
    assert run.resources[ROUTE] == proof.state.resources[ROUTE]
    assert run.resources[GATE] == was


def test_a_refused_revision_is_taken_back_also_where_the_route_was_restored_in_the_same_apply(proof: Proof) -> None:
    gateway, engines = proof.world.target.gateway, proof.world.target.providers["endpoint"].found
    served, engine = gateway.config.routes["support"], dict(engines)
    gateway.config = replace(gateway.config, routes={})
    engines.clear()
    proof.answer(lambda *_: Reply("No idea."))
    change = application(weights="w2", rows=proof.state.resources[DATASET].spec["digest"])
    result, run = proof.apply(gated(change))
    # The endpoint has two steps: its old revision is brought back, and its new one is made.
    made = [r for r in result.results if not getattr(r.step, "restores", False)]
    states = {r.step.id.split("@")[0]: r.state for r in made}
    assert states["restore:route.support"] is State.DONE
    assert states["stage:route.support"] is states["provision:endpoint.main"] is State.UNDONE
    assert not result.warnings
    assert gateway.config.routes["support"] == served
    assert engines.keys() == engine.keys()
    again = build_plan(
        desired(gated(application(rows=proof.state.resources[DATASET].spec["digest"]))),
        recorded_by(run),
        proof.world.read(),
    )
    assert again.is_empty


def test_the_old_rows_come_from_the_store_and_their_loss_is_said(proof: Proof) -> None:
    wanted = loosened(proof)
    proof.store.delete(proof.state.resources[GATE].spec["dataset_digest"])
    result, run = proof.apply(wanted)
    [failed] = [r for r in result.failed if isinstance(r.step, RunGate)]
    assert failed.text == "gate.faq judges as it is recorded, whose dataset is not in the artifact store"
    assert failed.error is not None
    assert proof.state.resources[GATE].spec["dataset_digest"] in failed.error.detail
    assert run.resources[ROUTE] == proof.state.resources[ROUTE]


def test_a_gate_that_is_deleted_judges_as_it_was(proof: Proof) -> None:
    proof.answer(wrong_half)
    resources = new_prompt(proof)
    del resources[GATE]
    result, run = proof.apply(resources)
    assert [r.step.address for r in result.failed] == [GATE]
    assert run.resources[GATE] == proof.state.resources[GATE]


def test_concurrency_and_timeouts_are_the_gates_own(proof: Proof) -> None:
    proof.server.hold(3)
    result, _ = proof.apply(new_prompt(proof, concurrency=3, timeouts={"request_s": 30.0, "run_s": 60.0}))
    assert result.ok
    assert proof.server.most_at_once == 3


def test_a_request_that_hangs_is_an_error_after_the_time_that_the_gate_allows(proof: Proof) -> None:
    proof.answer(lambda revision, v: Reply(hang=True) if " 7?" in v["question"] else right(revision, v))
    result, _ = proof.apply(new_prompt(proof, timeouts={"request_s": 1.0}))
    assert "q7" in result.gates[-1].evidence.failing


def test_a_gate_that_is_broken_off_goes_on_in_the_scratch_folder(proof: Proof, tmp_path: Path) -> None:
    wanted = new_prompt(proof, concurrency=1)
    plan = build_plan(desired(wanted), proof.state, proof.world.read())
    run = proof.world.begin(plan, 2, scratch=tmp_path / "scratch")
    new = wanted[ROUTE].revision

    def interrupt(revision: str, variables: dict[str, Any]) -> Reply:
        if revision == new and proof.server.count(new) > COUNT / 2:
            run.cancelled.set()
            return Reply(hang=True)
        return right(revision, variables)

    proof.answer(interrupt)
    assert not proof.world.go(run).ok
    first = proof.server.count(new)
    proof.answer(right)
    result, _ = proof.apply(wanted, scratch=tmp_path / "scratch")
    assert result.ok
    assert proof.server.count(new) - first < COUNT, "what was answered before is not asked again"
