"""Nothing reaches an environment that has not passed in the one before: real records, real plans."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.app.promotion import Promotion, promotion
from llmctl.app.promotion_proof import Origin, Sought, find_origin
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import InvalidInput, RecordError
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.core.kinds import kind_of
from llmctl.core.protocols import Change
from llmctl.core.resources import Environment, Recorded, RecordState, Rejection, Resource
from llmctl.gates.verdicts import NOT_APPLICABLE
from llmctl.plan import Plan, build_plan
from llmctl.record import Outcome, Reader, Repository, open_repository
from tests.plan.builders import NOTHING, application, desired, recorded
from tests.record.helpers import begin, git, make_repository

ROUTE, GATE = Address("route", "support"), Address("gate", "faq")
HERE = Sought()
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


def proven(
    resources: Resources, gate: Address = GATE, lower: float = 0.97, verdict: Verdict = Verdict.PASS
) -> Evidence:
    """What the gate measured of the route; nothing was live to compare with."""
    spec, route = resources[gate].spec, resources[ROUTE]
    least = spec["metrics"]["exact_match"]["min"]
    judgements = (
        Judgement("exact_match", "min", least, 0.99, lower, 1.0, 200, 0.95, "clopper-pearson", verdict),
        Judgement("exact_match", "max_drop", 0.02, 0.0, 0.0, 0.0, 0, 0.95, NOT_APPLICABLE, Verdict.NOT_APPLICABLE),
    )
    return Evidence(
        gate=gate.name,
        gate_revision=resources[gate].revision,
        gate_spec=spec,
        route="support",
        route_revision=route.revision,
        baseline_revision="",
        dataset_digest=spec["dataset_digest"],
        key="sha256:" + "3" * 64,
        samples=200,
        judgements=judgements,
        verdict=verdict,
        measured_at="2026-10-01T00:00:00+00:00",
    )


def entry(
    repository: Repository,
    resources: Resources,
    outcome: Outcome = "applied",
    rejections: tuple[Rejection, ...] | None = None,
    evidence: tuple[Evidence, ...] | None = None,
    break_glass: tuple[BreakGlass, ...] = (),
) -> None:
    """One entry of dev's record that leaves exactly these resources, as their gates let them pass."""
    state = Reader(repository, "dev").state()
    attempt = begin(repository, state, action="rollback" if outcome == "rolled back" else "apply")
    if evidence is None and ROUTE in resources:
        evidence = tuple(proven(resources, gate) for gate in resources if gate.kind == "gate")
    known = {found.digest for found in Reader(repository, "dev").evidence()}
    fresh = tuple(found for found in evidence or () if found.digest not in known)
    kept = {a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in resources.items()}
    gone = dict.fromkeys(state.resources.keys() - kept.keys())
    attempt.commit(Change("Apply", {**kept, **gone}, evidence=fresh))
    own = next((b for b in break_glass if b.serial == state.serial + 1), None)
    closed = [b.serial for b in state.break_glass if b not in break_glass]
    attempt.close(
        outcome,
        subject="Apply",
        decisions={**({"break_glass": own.to_json()} if own else {}), **({"reconciles": closed} if closed else {})},
        rejections=state.rejections if rejections is None else rejections,
        break_glass=break_glass,
        trailers=[*([("Break-Glass", own.reason)] if own else []), *(("Reconciles", str(serial)) for serial in closed)],
    )


def plan(
    resources: Resources, state: RecordState | None = None, environment: Environment = STAGING, action: str = "apply"
) -> Plan:
    wanted = replace(desired(resources), environment=environment)
    return build_plan(wanted, state or RecordState("staging"), NOTHING, action=action)


def promote(repository: Repository, made: Plan, source: str = "", sought: Sought = HERE) -> Promotion:
    def origin_of(name: str) -> Origin:
        return find_origin(repository, Environment(name, "local"), sought)

    return promotion(made, origin_of, source)


def missing(repository: Repository, made: Plan, source: str = "") -> tuple[Diagnostic, ...]:
    return promote(repository, made, source).denials


def short(resources: Resources, kind: str, name: str) -> str:
    return f"{kind}.{name}@{resources[Address(kind, name)].revision[:8]}"


def test_what_dev_serves_may_go_on_and_what_it_never_had_may_not(dev: Repository) -> None:
    now, later = application(), application(system="Be kind.")
    (first,) = missing(dev, plan(now))
    assert first.address == ROUTE
    assert first.detail == "Nothing is applied in dev yet."
    for way in ("record: {remote: origin}", "--from-record", "git bundle create dev.bundle llmctl/dev"):
        assert way in first.hint
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
    route = {**one[ROUTE].spec, "chain": [chain[0], spare], "chain_revisions": ["main@1", "spare@5"]}
    two = {**one, ROUTE: replace(one[ROUTE], spec=route, revision=kind_of("route").revision(route))}
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


def test_what_an_apply_rests_on_is_told_with_its_evidence(dev: Repository) -> None:
    now = application()
    entry(dev, application(system="Before."))
    entry(dev, now)
    found = promote(dev, plan(now))
    assert (found.denials, found.warnings) == ((), ())
    assert found.proof is not None
    assert found.proof.head == Reader(dev, "dev").head()
    assert (found.proof.origin, found.proof.serial, found.proof.anchor) == ("dev", 2, "unanchored")
    route = found.proof.routes["route.support"]
    assert (route["serial"], route["revision"]) == (2, now[ROUTE].revision)
    assert route["evidence"] == [f"faq {proven(now).digest}"]
    assert route["artifacts"] == [
        f"{a}@{now[a].revision}" for a in (Address("model", "tiny"), Address("prompt", "answer"))
    ]


def test_without_evidence_nothing_counts_as_gated(dev: Repository) -> None:
    now = application()
    entry(dev, now, evidence=())
    (refused,) = missing(dev, plan(now))
    assert "applied in dev, and not been proven there" in refused.summary
    assert (
        refused.detail
        == f"No evidence there says that route.support@{now[ROUTE].revision[:8]} of serial 1 passed gate.faq."
    )
    entry(dev, now | {Address("policy", "q"): Resource(Address("policy", "q"), {}, "1")})  # reconciled: it passed since
    found = promote(dev, plan(now))
    assert found.denials == ()
    assert found.proof is not None
    assert found.proof.routes["route.support"]["serial"] == 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda now: proven(now, lower=0.85, verdict=Verdict.INCONCLUSIVE),
        lambda now: replace(proven(now), route_revision="0" * 16),
        lambda now: replace(proven(application(minimum=0.5)), route_revision=now[ROUTE].revision),
    ],
    ids=["did not pass", "another revision of the route", "an easier gate"],
)
def test_evidence_of_something_else_proves_nothing(dev: Repository, wrong: Callable[[Resources], Evidence]) -> None:
    now = application()
    entry(dev, now, evidence=(wrong(now),))
    (refused,) = missing(dev, plan(now))
    assert "not been proven there" in refused.summary


def test_evidence_whose_figures_say_otherwise_spoils_the_record(dev: Repository) -> None:
    now = application()
    entry(dev, now, evidence=(proven(now, lower=0.85),))
    (refused,) = missing(dev, plan(now))
    assert refused.address == Address("environment", "dev")
    assert refused.summary.startswith("the record of dev does not verify, so it vouches for nothing: evidence/faq/")
    assert "the verdict is PASS, but its figures give INCONCLUSIVE" in refused.summary
    assert "llmctl audit verify -e dev" in refused.hint


def test_a_route_without_gates_is_said_as_such(dev: Repository) -> None:
    now = application()
    del now[GATE]
    entry(dev, now)
    found = promote(dev, plan(now))
    assert found.denials == ()
    assert found.proof is not None
    assert found.proof.routes["route.support"]["evidence"] == []
    (said,) = found.warnings
    assert said.summary == "route.support had no gate in dev: it was applied there (serial 1), and nothing was measured"


def test_what_broke_the_glass_does_not_count_until_it_is_reconciled(dev: Repository) -> None:
    now = application()
    broken = BreakGlass(1, "outage", "Ann <ann@example.org>", "2026-10-01T00:00:00+00:00", gates=(GATE,))
    entry(dev, now, evidence=(), break_glass=(broken,))
    (refused,) = missing(dev, plan(now))
    assert refused.detail == "Apply serial 1 skipped gate.faq in an emergency, and nothing has passed it since."
    entry(
        dev,
        now | {Address("policy", "q"): Resource(Address("policy", "q"), {}, "1")},
        evidence=(),
        break_glass=(broken,),
    )
    assert len(missing(dev, plan(now))) == 1
    entry(dev, now)
    assert missing(dev, plan(now)) == ()


def test_skipped_approvals_alone_leave_the_gates_proof_standing(dev: Repository) -> None:
    now = application()
    broken = BreakGlass(1, "outage", "Ann <ann@example.org>", "2026-10-01T00:00:00+00:00", approvals=1)
    entry(dev, now, break_glass=(broken,))
    assert missing(dev, plan(now)) == ()


def test_a_gate_that_changed_since_must_have_passed_too(dev: Repository) -> None:
    now, stricter = application(), application(minimum=0.95)
    entry(dev, now)
    entry(dev, stricter, evidence=())  # as a record would be from which the proof was left out
    found = promote(dev, plan(now))
    assert found.proof is not None
    assert found.proof.routes["route.support"]["serial"] == 1  # what passed then, by the gate as it was then


def test_a_route_that_was_renamed_since_keeps_its_proof(dev: Repository) -> None:
    before = application()
    entry(dev, before)
    names = {"route.support": "help"}
    after = application(names=names, aliases=("support",))
    assert after[Address("route", "help")].revision == before[ROUTE].revision
    entry(dev, after, evidence=())
    found = promote(dev, plan(after))
    assert found.denials == ()
    assert found.proof is not None
    assert found.proof.routes["route.help"]["evidence"] == [f"faq {proven(before).digest}"]


def test_the_record_of_another_project_vouches_for_nothing(dev: Repository) -> None:
    now = application()
    entry(dev, now)
    made = plan(now)
    other = replace(made, desired=replace(made.desired, project="other"))
    (refused,) = missing(dev, other)
    assert refused.summary == "the record of dev is one of project acme, and this is other"


class TestSigned:
    """Where git's settings say whose signatures count, the record must have them."""

    @pytest.fixture
    def signed(self, dev: Repository, tmp_path: Path) -> Repository:
        """A record that is signed by a key, which is the only one that counts."""
        key = tmp_path / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (tmp_path / "allowed").write_text(f"ann@example.org {key.with_suffix('.pub').read_text()}")
        for name, value in (
            ("gpg.format", "ssh"),
            ("user.signingkey", str(key)),
            ("commit.gpgsign", "true"),
            ("gpg.ssh.allowedSignersFile", str(tmp_path / "allowed")),
        ):
            git(dev.work_tree, "config", name, value)
        return open_repository(dev.work_tree)

    def test_by_whom_is_recorded(self, signed: Repository) -> None:
        entry(signed, application())
        found = promote(signed, plan(application()))
        assert found.denials == ()
        assert found.proof is not None
        assert found.proof.anchor == "signed by ann@example.org"

    def test_by_a_stranger(self, signed: Repository, tmp_path: Path) -> None:
        entry(signed, application())
        (tmp_path / "allowed").write_text("")
        (refused,) = missing(signed, plan(application()))
        assert refused.summary.startswith("the record of dev does not verify, so it vouches for nothing: ")

    def test_whose_signatures_count_is_said_by_whom_applies(self, signed: Repository, tmp_path: Path) -> None:
        """Not only git's settings name them, but also ``--allowed-signers`` and ``LLMCTL_ALLOWED_SIGNERS``."""
        git(signed.work_tree, "config", "--unset", "gpg.ssh.allowedSignersFile")
        entry(signed, application())
        named = Sought(allowed=tmp_path / "allowed")
        found = promote(open_repository(signed.work_tree), plan(application()), sought=named)
        assert found.proof is not None
        assert found.proof.anchor == "signed by ann@example.org"
        (tmp_path / "allowed").write_text("")
        (refused,) = promote(open_repository(signed.work_tree), plan(application()), sought=named).denials
        assert "does not verify" in refused.summary

    def test_an_unsigned_one(self, signed: Repository) -> None:
        git(signed.work_tree, "config", "commit.gpgsign", "false")
        entry(open_repository(signed.work_tree), application())
        (refused,) = missing(open_repository(signed.work_tree), plan(application()))
        assert "does not verify" in refused.summary
        assert "sign" in refused.summary


class TestElsewhere:
    """FROM's record lies in another clone."""

    @pytest.fixture
    def other(self, tmp_path: Path) -> Repository:
        made = open_repository(make_repository(tmp_path / "other"))
        entry(made, application())
        return made

    def sought(self, dev: Repository, place: object) -> Promotion:
        return promote(dev, plan(application()), sought=Sought(str(place)))

    def test_a_clone_by_its_path_a_url_and_a_bundle(self, dev: Repository, other: Repository, tmp_path: Path) -> None:
        assert len(missing(dev, plan(application()))) == 1
        bundle = tmp_path / "dev.bundle"
        git(other.work_tree, "bundle", "create", "-q", str(bundle), "llmctl/dev")
        before = git(dev.work_tree, "for-each-ref", "refs/heads", "refs/remotes", "refs/tags")
        for place in (other.work_tree, f"file://{other.work_tree}", bundle):
            found = self.sought(dev, place)
            assert found.denials == ()
            assert found.proof is not None
            assert found.proof.head == Reader(other, "dev").head()
        assert git(dev.work_tree, "for-each-ref", "refs/heads", "refs/remotes", "refs/tags") == before
        assert Reader(dev, "dev").head() == ""  # it is not taken for this clone's record

    def test_it_is_read_anew_each_time(self, dev: Repository, other: Repository) -> None:
        later = application(system="Be kind.")
        assert promote(dev, plan(later), sought=Sought(str(other.work_tree))).denials
        entry(other, later)
        assert not promote(dev, plan(later), sought=Sought(str(other.work_tree))).denials

    def test_a_clone_that_fetched_the_record(self, dev: Repository, other: Repository, tmp_path: Path) -> None:
        git(tmp_path, "clone", "-q", str(other.work_tree), "copy")
        assert self.sought(dev, tmp_path / "copy").denials == ()

    def test_a_tampered_one_is_refused(self, dev: Repository, other: Repository) -> None:
        head = Reader(other, "dev").head()
        tree, parent = git(other.work_tree, "rev-parse", f"{head}^{{tree}}", head).split()
        forged = git(other.work_tree, "commit-tree", "-p", parent, "-m", "By hand", tree)
        git(other.work_tree, "update-ref", "refs/heads/llmctl/dev", forged)
        (refused,) = self.sought(dev, other.work_tree).denials
        assert "is no entry that llmctl made" in refused.summary

    def test_a_place_without_the_record_has_the_three_ways(self, dev: Repository, tmp_path: Path) -> None:
        (refused,) = self.sought(dev, make_repository(tmp_path / "empty")).denials
        assert refused.detail == "Nothing is applied in dev yet."
        assert "--from-record" in refused.hint

    def test_what_lies_here_does_not_stand_in_for_what_is_named(self, dev: Repository, tmp_path: Path) -> None:
        entry(dev, application())
        git(dev.work_tree, "update-ref", "refs/remotes/origin/llmctl/dev", Reader(dev, "dev").head())
        (refused,) = self.sought(dev, make_repository(tmp_path / "empty")).denials
        assert refused.detail == "Nothing is applied in dev yet."

    @pytest.mark.parametrize("place", ["nowhere", "../nowhere", "--upload-pack=touch", "ext::sh -c touch% canary", ""])
    def test_what_is_no_place_is_told_before_git_is_asked(self, dev: Repository, place: str) -> None:
        if not place:
            assert self.sought(dev, place).denials
            return
        with pytest.raises(InvalidInput, match="there is no"):
            self.sought(dev, place)

    def test_an_address_that_does_not_answer(self, dev: Repository) -> None:
        with pytest.raises(
            RecordError, match=r"the record of dev could not be fetched from http://127\.0\.0\.1:9/x\.git"
        ):
            self.sought(dev, "http://127.0.0.1:9/x.git")

    def test_an_offline_plan_asks_no_address(self, dev: Repository, other: Repository) -> None:
        here = promote(dev, plan(application()), sought=Sought("http://127.0.0.1:9/x.git", fetch=False))
        assert [d.detail for d in here.denials] == ["Nothing is applied in dev yet."]
        assert promote(dev, plan(application()), sought=Sought(str(other.work_tree), fetch=False)).denials == ()

    def test_a_file_that_is_no_bundle(self, dev: Repository, tmp_path: Path) -> None:
        (tmp_path / "x.bundle").write_text("nonsense")
        with pytest.raises(RecordError, match="could not be fetched"):
            self.sought(dev, tmp_path / "x.bundle")

    def test_the_remote_that_the_file_names(self, dev: Repository, other: Repository) -> None:
        git(dev.work_tree, "remote", "add", "upstream", str(other.work_tree))
        declared = Environment("dev", "local", record_remote="upstream")
        assert find_origin(dev, declared, Sought(fetch=False)).head == ""
        assert find_origin(dev, declared, Sought()).head == Reader(other, "dev").head()
        assert find_origin(dev, declared, Sought(fetch=False)).head == Reader(other, "dev").head()  # as it was fetched
        with pytest.raises(InvalidInput, match="is on the remote upstream, and no other place vouches for it"):
            find_origin(dev, declared, Sought(str(other.work_tree)))
