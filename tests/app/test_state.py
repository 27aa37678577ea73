"""What the record forgets: only what nothing recorded needs, with who, why and what in the entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from llmctl.app.recorded_change import changing
from llmctl.app.state import Forgotten, forget, listing, show
from llmctl.app.unreject import unreject
from llmctl.app.workspace import Workspace, open_workspace
from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.errors import Denied, InvalidInput, Locked, RecordError
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, Rejection
from llmctl.record import Lock
from tests.plan.builders import application
from tests.record.helpers import begin, git, make_repository

FILE = "apiVersion: llmctl/v1\nproject: acme\nenvironments: {dev: {target: local}}\n"
ROUTE = Address("route", "support")
BAD = Rejection(ROUTE, "b" * 16, 1, "wrong tone")


def applied(folder: Path, protected: tuple[str, ...] = ()) -> Workspace:
    """A project in whose record the small application is, and a rejected revision of its route."""
    make_repository(folder)
    (folder / "llmops.yaml").write_text(FILE)
    workspace = open_workspace(str(folder / "llmops.yaml"), None)
    with changing(workspace, "apply", print) as held:
        attempt = held.begin()
        resources = application(protected=protected)
        attempt.commit(
            Change("all", {a: Recorded(a, r.spec, r.revision, 1, r.needs, (r.revision,)) for a, r in resources.items()})
        )
        attempt.close("applied", subject="all", decisions={}, rejections=(BAD,))
    return workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return applied(tmp_path / "project")


def rm(workspace: Workspace, *names: str, yes: bool = True) -> Forgotten:
    return forget(workspace, names, "a reason", lambda _: yes, print)


def test_the_entry_says_who_what_and_why_and_the_rest_stays(workspace: Workspace) -> None:
    before = workspace.recorded()
    done = rm(workspace, "gate.faq", "route.support", "gate.faq")
    now = workspace.recorded()
    assert [str(r.address) for r in done.resources] == ["gate.faq", "route.support"]
    assert done.serial == now.serial == before.serial + 1
    assert now.resources == {a: r for a, r in before.resources.items() if a.kind not in ("gate", "route")}
    assert now.rejections == (BAD,)
    detail = workspace.reader.entry(done.serial)
    assert (detail.entry.action, detail.entry.outcome) == ("state rm", "applied")
    assert detail.entry.subject == "state rm: gate.faq, route.support: a reason"
    assert detail.decisions["reason"] == "a reason"
    assert detail.decisions["actor"] == "Ann Example <ann@example.org>"
    assert [(c["address"], c["action"], c["after"]) for c in detail.decisions["changes"]] == [
        ("gate.faq", "forget", ""),
        ("route.support", "forget", ""),
    ]
    assert [c.resources for c in detail.changes] == [(Address("gate", "faq"),), (ROUTE,)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("route.support",), "route.support is needed by what stays recorded: gate.faq"),
        (("model.tiny", "route.support", "gate.faq"), "model.tiny is needed by what stays recorded: endpoint.main"),
        (("dataset.faq",), "dataset.faq is needed by what stays recorded: gate.faq"),
        (("prompt.answer",), "prompt.answer is needed by what stays recorded: route.support"),
        (("prompt.anser",), "prompt.anser is not recorded in dev"),
        (("nonsense",), "nonsense is not recorded in dev"),
        (("prompt.answer", "gate.none"), "gate.none is not recorded in dev"),
    ],
)
def test_what_is_needed_or_not_there_is_refused_and_nothing_changes(
    workspace: Workspace, names: tuple[str, ...], said: str
) -> None:
    head = workspace.reader.head()
    with pytest.raises(InvalidInput) as refused:
        rm(workspace, *names)
    assert said in [d.summary for d in refused.value.findings]
    assert all(d.hint for d in refused.value.findings)
    assert workspace.reader.head() == head


def test_what_nothing_needs_is_forgotten_alone_and_all_of_it_together(workspace: Workspace) -> None:
    for name in ("policy.open", "gate.faq"):
        rm(workspace, name)
    everything = [str(a) for a in workspace.recorded().resources]
    rm(workspace, *everything)
    assert workspace.recorded().resources == {}
    with pytest.raises(InvalidInput, match="is not recorded") as refused:
        rm(workspace, "route.support")
    assert refused.value.findings[0].hint == "Nothing is recorded."


def test_a_no_records_nothing(workspace: Workspace) -> None:
    head = workspace.reader.head()
    assert rm(workspace, "policy.open", yes=False).serial == 0
    assert workspace.reader.head() == head


def test_what_is_protected_stays(tmp_path: Path) -> None:
    workspace = applied(tmp_path / "project", protected=("policy.open",))
    with pytest.raises(Denied, match=r"policy\.open is protected"):
        rm(workspace, "policy.open")
    assert Address("policy", "open") in workspace.recorded().resources


def test_each_command_waits_for_nobody_and_takes_nothing_from_the_holder(workspace: Workspace) -> None:
    with Lock(workspace.repository, "dev").acquire("llmctl apply"):
        for command in (
            lambda: rm(workspace, "policy.open"),
            lambda: unreject(workspace, "bbbb", "x", print),
        ):
            with pytest.raises(Locked, match="dev is locked by Ann Example"):
                command()


def test_an_apply_that_was_cut_short_is_recorded_first(workspace: Workspace) -> None:
    was = workspace.recorded().resources[ROUTE]
    cut = begin(workspace.repository)
    cut.commit(Change("promote", {ROUTE: replace(was, version=2)}))
    said: list[str] = []
    done = forget(workspace, ["policy.open"], "x", lambda _: True, said.append)
    assert ["was interrupted" in text for text in said] == [True, False]
    assert said[1] == "It is recorded as serial 2, interrupted."
    outcomes = [(e.serial, e.action, e.outcome) for e in workspace.reader.entries(2)]
    assert outcomes == [(3, "state rm", "applied"), (2, "apply", "interrupted")]
    assert done.serial == 3
    assert workspace.recorded().resources[ROUTE].version == 2


def test_unreject_takes_one_back_and_keeps_the_others(workspace: Workspace) -> None:
    found, serial = unreject(workspace, "bbbb", "it was the data", print)
    state = workspace.recorded()
    assert (found, state.rejections, state.serial) == (BAD, (), serial)
    decided = workspace.reader.entry(serial).decisions
    assert (decided["action"], decided["address"], decided["revision"]) == ("unreject", "route.support", BAD.revision)
    assert decided["reason"] == "it was the data"


def test_another_projects_record_is_left_alone(workspace: Workspace) -> None:
    file = workspace.root / "llmops.yaml"
    file.write_text(FILE.replace("acme", "other"))
    other = open_workspace(str(file), None)
    with pytest.raises(RecordError, match="is the record of project acme"):
        rm(other, "policy.open")


def test_looking_needs_only_the_repository(workspace: Workspace, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(workspace.root), str(clone))
    (clone / "llmops.yaml").write_text("nonsense: [")
    file = str(clone / "llmops.yaml")
    found = listing(file, None, None)
    assert [r.address for r in found.resources] == sorted(workspace.recorded().resources)
    assert [str(r.address) for r in listing(file, "dev", "route").resources] == ["route.support"]
    shown = show(file, None, "endpoint.main")
    assert (shown.recorded_by.serial, shown.users) == (1, (ROUTE,))
    assert shown.first == {shown.resource.revision: 1}
    with pytest.raises(InvalidInput, match="no fts is recorded in dev") as refused:
        listing(file, None, "fts")
    assert refused.value.findings[0].hint.startswith("Recorded kinds: dataset, endpoint")


def test_who_recorded_it_and_when_each_version_came(workspace: Workspace) -> None:
    prompt = Address("prompt", "answer")
    was = workspace.recorded().resources[prompt]
    new = "c" * 16
    for number, revision in ((2, new), (1, was.revision)):
        attempt = begin(workspace.repository)
        changed = replace(was, revision=revision, version=number, revisions=(was.revision, new))
        attempt.commit(Change("change", {prompt: changed}))
        attempt.close("applied", subject="change", decisions={}, rejections=())
    rm(workspace, "policy.open")
    shown = show(str(workspace.root / "llmops.yaml"), None, "prompt.answer")
    assert shown.recorded_by.serial == 3
    assert shown.first == {was.revision: 1, new: 2}
    assert (shown.serial, shown.resource.version) == (4, 1)


def test_a_rule_is_not_forgotten_where_changes_need_approvals(workspace: Workspace) -> None:
    """Without its record, a change that loosens it would not be held to it any more."""
    file = workspace.root / "llmops.yaml"
    file.write_text(FILE.replace("target: local", "target: local, approvals: 1"))
    strict = open_workspace(str(file), None)
    with pytest.raises(Denied, match=r"gate\.faq: dev asks for approvals, and forgetting a rule has none"):
        rm(strict, "gate.faq")
    with changing(strict, "apply", print) as held:
        decided = {"action": "apply", "approvals": {"required": 1, "declared": 1, "given": []}}
        held.begin().close("applied", subject="strict", decisions=decided, rejections=())
    file.write_text(FILE)
    with pytest.raises(Denied, match=r"policy\.open: dev asks for approvals"):
        rm(open_workspace(str(file), None), "policy.open")  # as long as no approved apply took them away


def test_a_gate_that_a_break_glass_skipped_is_not_forgotten(workspace: Workspace) -> None:
    """Else there would be nothing left that had to pass, and the break-glass would count as put right."""
    gate = Address("gate", "faq")
    glass = BreakGlass(2, "support is down", "Ann Example <ann@example.org>", "2026-11-21T10:00:00Z", (gate,))
    with changing(workspace, "apply", print) as held:
        held.begin().close("applied", subject="emergency", decisions={}, rejections=(), break_glass=(glass,))
    with pytest.raises(Denied, match="skipped by the break-glass of serial 2, which is still open"):
        rm(open_workspace(str(workspace.root / "llmops.yaml"), None), "gate.faq", "route.support")
