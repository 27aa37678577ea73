"""Nothing reaches an environment that has not passed in the one before: real records, real plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.app.promotion import missing_promotions
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput
from llmctl.core.protocols import Change
from llmctl.core.resources import Environment, Recorded, RecordState, Rejection, Resource
from llmctl.plan import Plan, build_plan
from llmctl.record import Outcome, Reader, Repository, open_repository
from tests.plan.builders import NOTHING, application, desired, recorded
from tests.record.helpers import begin, make_repository

ROUTE = Address("route", "support")
STAGING = Environment("staging", "local", promote_from="dev")
Resources = Mapping[Address, Resource]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return open_repository(make_repository(tmp_path_factory.mktemp("promotion") / "project"))


@pytest.fixture
def dev(repository: Repository, tmp_path: Path) -> Repository:
    """A repository whose environment dev has no record yet."""
    del repository
    return open_repository(make_repository(tmp_path / "project"))


def entry(
    repository: Repository,
    resources: Resources,
    outcome: Outcome = "applied",
    rejections: tuple[Rejection, ...] | None = None,
) -> None:
    """One entry of dev's record that leaves exactly these resources."""
    state = Reader(repository, "dev").state()
    attempt = begin(repository, state, action="rollback" if outcome == "rolled back" else "apply")
    kept = {a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in resources.items()}
    gone = dict.fromkeys(state.resources.keys() - kept.keys())
    attempt.commit(Change("Apply", {**kept, **gone}))
    attempt.close(
        outcome, subject="Apply", decisions={}, rejections=state.rejections if rejections is None else rejections
    )


def plan(
    resources: Resources, state: RecordState | None = None, environment: Environment = STAGING, action: str = "apply"
) -> Plan:
    wanted = replace(desired(resources), environment=environment)
    return build_plan(wanted, state or RecordState("staging"), NOTHING, action=action)


def missing(repository: Repository, made: Plan, source: str = "") -> tuple[Diagnostic, ...]:
    return missing_promotions(made, lambda name: Reader(repository, name), source)


def short(resources: Resources, kind: str, name: str) -> str:
    return f"{kind}.{name}@{resources[Address(kind, name)].revision[:8]}"


def test_what_dev_serves_may_go_on_and_what_it_never_had_may_not(dev: Repository) -> None:
    now, later = application(), application(system="Be kind.")
    (first,) = missing(dev, plan(now))
    assert first.address == ROUTE
    assert first.detail == "Nothing is applied in dev yet."
    entry(dev, now)
    assert missing(dev, plan(now)) == ()
    (refused,) = missing(dev, plan(later, replace(recorded(now), environment="staging")))
    assert refused.summary == f"{short(later, 'prompt', 'answer')} has not passed in dev"
    assert refused.detail == f"dev serves {short(now, 'model', 'tiny')} and {short(now, 'prompt', 'answer')}."
    assert "llmctl apply -e dev" in refused.hint
    entry(dev, later)
    assert missing(dev, plan(later)) == ()
    assert missing(dev, plan(now)) == ()  # an earlier entry counts


def test_what_passed_apart_did_not_pass_together(dev: Repository) -> None:
    entry(dev, application(system="A", weights="1"))
    entry(dev, application(system="B", weights="2"))
    mixed = application(system="A", weights="2")
    (refused,) = missing(dev, plan(mixed))
    both = f"{short(mixed, 'model', 'tiny')} and {short(mixed, 'prompt', 'answer')}"
    assert refused.summary == f"{both} have passed in dev only apart, never together"


def test_a_failed_entry_proves_nothing_until_one_is_applied(dev: Repository) -> None:
    old, new = application(), application(system="Be kind.")
    entry(dev, old)
    entry(dev, new, "failed")
    assert len(missing(dev, plan(new))) == 1
    assert missing(dev, plan(old)) == ()
    entry(dev, new | {Address("policy", "q"): Resource(Address("policy", "q"), {}, "1")})  # the route stays as it is
    assert missing(dev, plan(new)) == ()


def test_what_was_rolled_back_in_dev_does_not_count_until_it_is_good_again(dev: Repository) -> None:
    old, new = application(), application(system="Be kind.")
    entry(dev, old)
    entry(dev, new)
    rejection = Rejection(ROUTE, new[ROUTE].revision, 3, "wrong tone")
    entry(dev, old, "rolled back", (rejection,))
    (refused,) = missing(dev, plan(new))
    assert "has been rolled back in dev" in refused.summary or "have been rolled back in dev" in refused.summary
    assert f"llmctl unreject {new[ROUTE].revision[:8]} -e dev" in refused.hint
    assert missing(dev, plan(old)) == ()
    entry(dev, old, rejections=())
    assert missing(dev, plan(new)) == ()


def test_a_destroyed_dev_and_another_route_of_the_same_artifacts(dev: Repository) -> None:
    entry(dev, application())
    entry(dev, {})
    assert missing(dev, plan(application())) == ()
    others = application()
    del others[Address("gate", "faq")]
    route = replace(others.pop(ROUTE), address=Address("route", "other"))
    (refused,) = missing(dev, plan({**others, route.address: route}))
    assert refused.address == route.address
    assert refused.detail == "dev serves no route.other."


def test_a_fallback_must_have_passed_too(dev: Repository) -> None:
    one = application(fallback=True)
    chain = one[ROUTE].spec["chain"]
    spare = {**chain[1], "spec": {**chain[1]["spec"], "model": "spare", "model_revision": "5" * 16}}
    two = {**one, ROUTE: replace(one[ROUTE], spec={**one[ROUTE].spec, "chain": [chain[0], spare]})}
    entry(dev, one)
    (refused,) = missing(dev, plan(two))
    assert refused.summary == "model.spare@55555555 has not passed in dev"
    entry(dev, two)
    assert missing(dev, plan(one)) == ()


def test_only_new_revisions_of_routes_by_an_apply_where_a_source_is_named(repository: Repository) -> None:
    old, new = application(), application(system="Be kind.")
    same = replace(recorded(old), environment="staging")
    assert missing(repository, plan(old, same)) == ()
    assert missing(repository, plan(application(license="GPL-3.0"), same)) == ()
    assert missing(repository, plan(new, same, Environment("staging", "local"))) == ()
    assert missing(repository, plan(new, same, action="rollback")) == ()
    assert missing(repository, plan({}, same, action="destroy")) == ()
    assert len(missing(repository, plan(new, same))) == 1
    assert len(missing(repository, plan(new, same, Environment("staging", "local")), "dev")) == 1


def test_another_source_than_the_file_says_is_an_error(repository: Repository) -> None:
    with pytest.raises(InvalidInput, match="staging is promoted from dev, not from test"):
        missing(repository, plan(application()), "test")
    with pytest.raises(InvalidInput, match="staging cannot be promoted from itself"):
        missing(repository, plan(application()), "staging")


def test_a_long_history_is_read_no_further_than_needed(dev: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        entry(dev, application(system=f"Version {number}."))
    entry(dev, application(system="Version 3.", license="GPL-3.0"))  # the route stays as it is
    read: list[int] = []
    state_at = Reader.state_at

    def counted(self: Reader, serial: int) -> RecordState:
        read.append(serial)
        return state_at(self, serial)

    monkeypatch.setattr(Reader, "state_at", counted)
    for number, serials in ((3, []), (2, [3]), (1, [3, 2]), (9, [3, 2, 1])):
        read.clear()
        missing(dev, plan(application(system=f"Version {number}.")))
        assert read == serials
