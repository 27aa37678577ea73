"""What `gc` keeps and what it takes away: real records, a real artifact store, nothing that runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.app import gc
from llmctl.app.gc import Garbage
from llmctl.app.recorded_change import changing
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.digests import Json, digest_bytes
from llmctl.core.errors import LeaseLost, ProviderError, RecordError
from llmctl.core.evidence import Evidence
from llmctl.core.protocols import Change, Op
from llmctl.core.resources import Key, Recorded, Resource
from llmctl.providers.local.launch import EndpointFile
from llmctl.providers.local.layout import Layout
from llmctl.record import Action, Outcome, find_interrupted
from tests.plan.builders import application
from tests.record.helpers import evidence as measured
from tests.record.helpers import git, make_repository

FILE = """\
apiVersion: llmctl/v1
project: acme
environments:
  dev: {target: local}
  prod: {target: local}
"""
ROUTE = Address("route", "support")
Resources = Mapping[Address, Resource]


def digest(text: str) -> str:
    return digest_bytes(text.encode())


def version(number: int) -> Resources:
    """An application whose weights, rows and prompt are of that version."""
    return application(
        system=f"Version {number}.", weights=digest(f"weights {number}"), rows=digest(f"dataset {number}")
    )


class World:
    """A repository with two environments, and what an apply leaves behind in each."""

    def __init__(self, folder: Path) -> None:
        self.folder = make_repository(folder)
        (folder / "llmops.yaml").write_text(FILE)

    def workspace(self, environment: str = "dev") -> Workspace:
        return open_workspace(str(self.folder / "llmops.yaml"), environment)

    def store(self, environment: str, *numbers: int) -> None:
        """The content of these versions, with manifests, and the rows of their gates."""
        target = self.workspace(environment).target
        for number in numbers:
            for text in (f"weights {number}", f"dataset {number}", f"rows {number}"):
                target.artifacts.put_bytes(text.encode())
            for address, resource in version(number).items():
                if address.kind in ("dataset", "model", "prompt"):
                    want = {"spec": resource.spec, "root": str(self.folder)}
                    target.providers[address.kind].create(_op(), Key(address.name, resource.revision), want)

    def entry(
        self,
        number: int | None,
        environment: str = "dev",
        action: Action = "apply",
        outcome: Outcome = "applied",
        decided: Json = None,
        proven: bool = True,
    ) -> None:
        """One entry that leaves exactly that version recorded, None for nothing, with the evidence of its gate."""
        resources = {} if number is None else version(number)
        with changing(self.workspace(environment), action, print) as held:
            attempt = held.begin()
            kept = {a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in resources.items()}
            gone = dict.fromkeys(held.state.resources.keys() - kept.keys())
            attempt.commit(Change("apply", {**kept, **gone}))
            if number is not None and proven:
                attempt.commit(Change("gate", evidence=[proof(number)]))
            attempt.close(outcome, subject=action, decisions=decided or {}, rejections=())

    def collect(self, keep: int = 1, environment: str = "dev") -> Garbage:
        return gc.collect(self.workspace(environment), keep, lambda _: True, print)

    def versions(self, environment: str = "dev") -> dict[str, set[int]]:
        """Of which versions there still is what, in the store and in the record."""
        workspace = self.workspace(environment)
        stored = workspace.target.artifacts.list()
        found = {
            what: {n for n in range(9) if digest(f"{what} {n}") in stored} for what in ("weights", "dataset", "rows")
        }
        manifests = {path.stem for path in Layout.of(self.folder, environment).manifests.glob("prompt/*.json")}
        prompt = Address("prompt", "answer")
        found["prompt"] = {n for n in range(9) if f"answer@{version(n)[prompt].revision}" in manifests}
        known = {e.route_revision for e in workspace.reader.evidence()}
        found["evidence"] = {n for n in range(9) if version(n)[ROUTE].revision in known}
        return found


def proof(number: int) -> Evidence:
    route = version(number)[ROUTE].revision
    return replace(measured(), route_revision=route, rows=digest(f"rows {number}"), key=digest(f"key {number}"))


def _op() -> Op:
    return Op("test", monotonic() + 60)


def only(*numbers: int) -> dict[str, set[int]]:
    return {what: set(numbers) for what in ("weights", "dataset", "rows", "prompt", "evidence")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "project")


def test_what_the_last_applies_need_stays_and_the_rest_goes(world: World) -> None:
    world.store("dev", 1, 2, 3, 4)
    for number in (1, 2, 3):
        world.entry(number)
    assert world.versions() | {"evidence": set()} == only(1, 2, 3, 4) | {"evidence": set()}
    before = world.workspace().reader.head()
    done = world.collect(keep=2)
    assert world.versions() == only(2, 3)
    assert (done.serial, len(done.evidence)) == (4, 1)
    assert done.bytes == sum(item.bytes for item in done.leftovers) > 0
    reader = world.workspace().reader
    (entry, *_) = reader.entries(1)
    assert (entry.action, entry.outcome) == ("gc", "applied")
    (change,) = reader.entry(4).changes
    assert ("Llmctl-Removes", done.evidence[0]) in change.trailers
    assert done.evidence[0] in git(world.folder, "ls-tree", "-r", "--name-only", before)  # the history keeps it
    assert reader.state().resources == reader.state_at(3).resources
    decided = reader.entry(4).decisions
    assert decided["removed"]["evidence"] == list(done.evidence)
    assert {item["name"] for item in decided["removed"]["leftovers"]} == {item.name for item in done.leftovers}
    assert world.collect(keep=2).serial == 0  # nothing is left to do, so nothing is recorded
    assert reader.head() == world.workspace().reader.head()


def test_a_dry_run_and_a_no_change_nothing(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    head, before = world.workspace().reader.head(), world.versions()
    looked = gc.look(world.workspace(), 1)
    declined = gc.collect(world.workspace(), 1, lambda _: False, print)
    assert looked == declined
    assert (declined.serial, looked.is_empty) == (0, False)
    assert (world.workspace().reader.head(), world.versions()) == (head, before)


@pytest.mark.parametrize("action", ["gc", "unreject", "state rm", "import"])
def test_entries_that_deploy_nothing_do_not_use_up_what_is_kept(world: World, action: Action) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    for _ in range(3):
        world.entry(2, action=action, proven=False)
    world.collect(keep=2)
    assert world.versions() == only(1, 2)


def test_applies_that_failed_do_not_use_up_what_is_kept(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    for _ in range(3):
        world.entry(2, outcome="failed", proven=False)
    world.collect(keep=2)
    assert world.versions() == only(1, 2)


def test_what_was_forgotten_is_needed_as_long_as_one_may_go_back_before_that(world: World) -> None:
    world.store("dev", 1)
    world.entry(1)
    world.entry(None, action="state rm")
    world.collect(keep=1)
    assert world.versions() == only(1)
    world.entry(None, action="destroy")
    world.collect(keep=1)
    assert world.versions() == only()


def test_what_another_environment_needs_stays(world: World) -> None:
    world.store("dev", 1, 2, 3)
    world.entry(1, "prod")
    for number in (1, 2, 3):
        world.entry(number)
    world.collect(keep=1)
    assert world.versions() == only(1, 3)
    world.entry(3, "prod")
    world.collect(keep=1)
    assert world.versions() == only(3)


def test_evidence_that_a_promotion_went_by_stays(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    named = {"promotion": {"routes": {"support": {"evidence": [proof(1).digest]}}}}
    world.entry(None, "prod", decided=named)
    world.collect(keep=1)
    assert world.versions() == only(2) | {"evidence": {1, 2}, "rows": {1, 2}}


def test_what_runs_stays_whether_it_is_recorded_or_not(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    layout = Layout.of(world.folder, "dev")
    spec = version(1)[Address("endpoint", "main")].spec | {"weights": {"digest": digest("weights 1")}}
    endpoint = EndpointFile(Key("main", "0" * 16), spec, (4711,))
    endpoint.write(layout.endpoint_file(endpoint.key))
    world.collect(keep=1)
    assert world.versions() == only(2) | {"weights": {1, 2}}
    layout.endpoint_file(endpoint.key).write_text("nonsense")
    world.entry(2)
    world.store("dev", 3)
    with pytest.raises(ProviderError, match="an endpoint cannot be read"):
        world.collect(keep=1)
    assert 3 in world.versions()["weights"]


def test_what_a_kind_of_a_plug_in_is_made_from_stays(world: World) -> None:
    world.store("dev", 1, 2)
    index = Address("fts", "faq")
    recorded = Recorded(index, {"dataset_digest": digest("dataset 1")}, "5" * 16, 1, (), ("5" * 16,))
    with changing(world.workspace(), "apply", print) as held:
        attempt = held.begin()
        attempt.commit(Change("an index", {index: recorded}))
        attempt.close("applied", subject="an index", decisions={}, rejections=())
    world.collect(keep=1)
    assert world.versions() == only() | {"dataset": {1}}


@pytest.mark.parametrize(("outcome", "stays"), [("interrupted", True), ("failed", False), ("applied", False)])
def test_answers_of_a_gate_stay_while_an_apply_may_go_on_from_them(world: World, outcome: Outcome, stays: bool) -> None:
    world.store("dev", 1)
    world.entry(1)
    world.entry(1, outcome=outcome, proven=False)
    answers = Layout.of(world.folder, "dev").state / "gates" / f"{'a' * 64}.jsonl"
    answers.parent.mkdir()
    answers.write_text("{}\n")
    done = world.collect()
    assert answers.exists() is stays
    assert [item.what for item in done.leftovers] == ([] if stays else ["gate answers"])


def test_a_record_that_cannot_be_read_needs_everything(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    git(world.folder, "branch", "llmctl/prod", "main")  # a branch that is no record
    with pytest.raises(RecordError, match="the record of prod cannot be read") as refused:
        world.collect(keep=1)
    assert "nothing is cleared away" in refused.value.summary
    assert "holds no state.json" in refused.value.detail
    assert world.versions() == only(1, 2)


def test_a_shallow_clone_does_not_know_what_is_needed(world: World, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        world.entry(number)
    clone = tmp_path / "clone"
    source = f"file://{world.folder}"
    subprocess.run(
        ["git", "clone", "-q", "--depth", "1", "-b", "llmctl/dev", source, str(clone)], check=True, capture_output=True
    )
    for name, value in (("user.name", "Ann Example"), ("user.email", "ann@example.org")):
        git(clone, "config", name, value)
    git(clone, "switch", "-q", "-c", "work")
    (clone / "llmops.yaml").write_text(FILE)
    there = open_workspace(str(clone / "llmops.yaml"), "dev")
    with pytest.raises(RecordError, match="nothing is cleared away") as refused:
        gc.look(there, 2)
    assert "only from serial 3 on" in refused.value.detail
    assert "--unshallow" in refused.value.hint
    assert gc.look(there, 1).keep == 1


def test_leftovers_of_attempts_that_are_in_the_record_go(world: World) -> None:
    world.entry(1)
    repository = world.workspace().repository
    tip = git(world.folder, "rev-parse", "llmctl/dev^2")
    git(world.folder, "update-ref", "refs/llmctl/dev/attempt/1", tip)  # as a crash just after the merge leaves it
    world.collect()
    assert git(world.folder, "for-each-ref", "refs/llmctl/dev/attempt") == ""
    assert not list(repository.private_dir("dev").glob("*"))


@pytest.mark.parametrize("effect", range(1, 8))
def test_cut_short_at_any_moment_nothing_needed_is_lost_and_the_next_one_finishes(
    world: World, effect: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.store("dev", 1, 2)
    world.entry(1)
    world.entry(2)
    made = 0

    def check(_: object) -> None:
        nonlocal made
        made += 1
        if made == effect:
            raise LeaseLost("the lock was lost")

    with monkeypatch.context() as cut:
        cut.setattr("llmctl.record.lock.HeldLock.check", check)
        with pytest.raises(LeaseLost):
            world.collect(keep=1)
    assert all({2} <= found for found in world.versions().values())
    said: list[str] = []
    again = gc.collect(world.workspace(), 1, lambda _: True, said.append)
    assert world.versions() == only(2)
    actions = [(e.action, e.outcome) for e in world.workspace().reader.entries()]
    begun = effect > 1
    assert [pair for pair in actions if pair[1] == "interrupted"] == ([("gc", "interrupted")] if begun else [])
    assert bool(said) is begun
    assert again.serial in (0, len(actions))
    assert find_interrupted(world.workspace().repository, "dev") is None
    assert world.collect(keep=1).is_empty


def test_a_copied_project_takes_nothing_from_the_one_that_it_was_copied_from(world: World) -> None:
    world.store("dev", 1, 2)
    world.entry(2)
    other = Layout.of(world.folder.parent / "origin", "dev")
    other.make()
    for layout in (other, Layout.of(world.folder, "dev")):
        (layout.state / "runtime.json").write_text(json.dumps({"state": str(other.state), "folder": "/tmp/none"}))
    assert gc.look(world.workspace(), 1).leftovers == ()


ENTRIES = st.lists(
    st.tuples(
        st.sampled_from(["dev", "prod"]),
        st.sampled_from(["apply", "apply", "rollback", "destroy", "state rm", "gc"]),
        st.sampled_from(["applied", "applied", "failed"]),
        st.sampled_from([None, 1, 2, 3, 4]),
    ),
    max_size=7,
)


def kept_by(history: Iterable[tuple[str, str, str, int | None]], keep: int) -> set[int]:
    """The rule in other words: from the newest entry of an environment back to its ``keep``-th good one."""
    found: set[int] = set()
    for environment in ("dev", "prod"):
        good = 0
        for _, action, outcome, number in reversed([entry for entry in history if entry[0] == environment]):
            if good == keep:
                break
            good += action in ("apply", "rollback", "destroy") and outcome != "failed"
            found |= {number} if number else set()
    return found


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(history=ENTRIES, keep=st.integers(1, 3))
def test_of_any_history_exactly_what_may_be_needed_stays(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[str, str, str, int | None]], keep: int
) -> None:
    world = World(tmp_path_factory.mktemp("world") / "project")
    world.store("dev", 1, 2, 3, 4)
    for environment, action, outcome, number in history:
        world.entry(number, environment, action, outcome)  # type: ignore[arg-type]
    wanted = kept_by(history, keep)
    world.collect(keep)
    left = world.versions()
    here = {number for environment, *_, number in history if environment == "dev" and number} & wanted
    assert left["weights"] == left["dataset"] == left["prompt"] == wanted
    assert here <= left["evidence"]
    assert left["rows"] == left["evidence"] <= wanted
