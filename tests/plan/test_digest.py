"""What a plan's digest covers, for that is what people approve; and what it leaves out, so that it stays the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmctl.core.address import Address
from llmctl.core.decisions import BreakGlass
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.errors import InvalidInput
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.plan import (
    Consent,
    GateForecast,
    Plan,
    Weakening,
    build_plan,
    load_plan,
    plan_digest,
    plan_json,
    read_plan,
    sealed,
)
from llmctl.plan.planfile import body_digest
from tests.plan.builders import application, desired, live, recorded
from tests.plan.test_saved import everything

TINY = Address("model", "tiny")
FAQ = Address("gate", "faq")
RESULT = PolicyResult("open", "deny", TINY, False, "no", basis="base")


def rich() -> Plan:
    """A plan with something in every part."""
    plan = replace(everything(), policies=(RESULT,), skipped_gates=(FAQ,), break_glass="an emergency")
    gate = GateForecast(FAQ, Address("route", "support"), "a" * 16, "b" * 16, "proves it", ("exact_match ≥ 0.9",))
    plan = replace(plan, gates=(gate,), denials=(Diagnostic("it is protected", address=TINY, detail="Why: …"),))
    plan = replace(plan, weakened=(*plan.weakened, Weakening(FAQ, ("min 0.9 → 0.5",), "main")))
    still = BreakGlass(1, "down", "Bot <bot@example.org>", "2026-11-21T10:00:00Z", (FAQ,), 1)
    return replace(plan, recorded=replace(plan.recorded, break_glass=(still,)), reconciles=(1,))


@pytest.mark.parametrize(
    "other",
    [
        lambda p: replace(p, gates=tuple(replace(g, cached="PASS", cached_at="2026-11-21") for g in p.gates)),
        lambda p: replace(p, warnings=(Diagnostic("another", Severity.WARNING),)),
        lambda p: replace(p, source_commit="f" * 40),
        lambda p: replace(p, policies=(replace(RESULT, note="3 days are left"),)),
        lambda p: replace(p, policies=(replace(RESULT, waiver=Waiver("model.tiny", "2026-12-01", "soon", "me")),)),
        lambda p: replace(p, drift=tuple(replace(d, details=("pid 4711",)) for d in p.drift)),
        lambda p: replace(p, blocked=tuple(replace(b, detail="after 9.3 s") for b in p.blocked)),
        lambda p: replace(p, approvals=Consent(2, 2, ("ann@example.org",))),
        lambda p: replace(p, weakened=p.weakened[::-1]),
    ],
    ids=[
        "a measurement",
        "a warning",
        "the commit",
        "a day",
        "a waiver",
        "a process",
        "a time-out",
        "who approved",
        "order",
    ],
)
def test_a_plan_keeps_its_digest(other: Callable[[Plan], Plan]) -> None:
    assert plan_digest(other(rich())) == plan_digest(rich())


def _every_part() -> list[tuple[str, Callable[[Plan], Plan]]]:
    def first(name: str, **changes: Any) -> tuple[str, Callable[[Plan], Plan]]:
        def edit(plan: Plan) -> Plan:
            items = getattr(plan, name)
            edited: dict[str, Any] = {name: (replace(items[0], **changes), *items[1:])}
            return replace(plan, **edited)

        return f"{name}: {', '.join(changes)}", edit

    def whole(name: str, value: Any) -> tuple[str, Callable[[Plan], Plan]]:
        return name, lambda plan: replace(plan, **{name: value})

    return [
        *(first("changes", **{f: "other"}) for f in ("reason", "before", "after")),
        first("changes", diffs=()),
        first("drift", address=FAQ),
        *(first("gates", **{f: "other"}) for f in ("revision", "baseline", "why")),
        first("gates", rules=("exact_match ≥ 0.1",)),
        first("gates", as_recorded=True),
        *(first("policies", **{f: "other"}) for f in ("policy", "severity", "message", "error", "basis")),
        first("policies", ok=True),
        first("weakened", what=("nothing",)),
        first("denials", summary="other"),
        first("denials", detail="other"),
        first("blocked", address=FAQ),
        *(whole(name, ()) for name in ("policies", "denials", "weakened", "gates", "drift", "steps", "impact")),
        *(whole(name, ()) for name in ("targets", "waiting", "skipped_gates", "reconciles", "blocked")),
        whole("left_out", (FAQ,)),
        whole("break_glass", "another"),
        whole("rollback_to", 3),
        whole("action", "destroy"),
        whole("offline", True),
        ("settings", lambda plan: replace(plan, inputs=replace(plan.inputs, settings={}))),
        ("serial", lambda plan: replace(plan, inputs=replace(plan.inputs, serial=9))),
        ("open", lambda plan: replace(plan, recorded=replace(plan.recorded, break_glass=()))),
    ]


@pytest.mark.parametrize("edit", [edit for _, edit in _every_part()], ids=[name for name, _ in _every_part()])
def test_what_decides_and_what_is_shown_is_in_the_digest(edit: Callable[[Plan], Plan]) -> None:
    assert plan_digest(edit(rich())) != plan_digest(rich())


def test_every_part_of_the_file_is_covered_or_left_out_on_purpose() -> None:
    """A new part of the plan file must be thought of."""
    data = plan_json(rich())
    left_out = {"format", "llmctl", "digest", "source_commit", "warnings", "approvals"}
    for name in data.keys() - left_out:
        assert body_digest({**data, name: [] if isinstance(data[name], list) else None}) != data["digest"], name
    for name in left_out - {"format", "llmctl", "digest"}:
        assert body_digest({**data, name: None}) == data["digest"], name


@pytest.mark.parametrize("part", ["warnings", "source_commit", "approvals", "gist", "made_at", "policies", "steps"])
def test_an_edit_of_any_part_of_the_file_is_noticed(part: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    data = sealed({**plan_json(rich()), "gist": {"verdict": "fine"}, "made_at": "2026-11-21T10:00:00+00:00"})
    path.write_text(json.dumps(data))
    assert read_plan(path).seal == data["seal"]
    path.write_text(json.dumps({**data, part: []}))
    for reads in (read_plan, load_plan):
        with pytest.raises(InvalidInput, match="was edited or damaged"):
            reads(path)


def test_a_plan_of_an_earlier_llmctl_says_so(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_json(rich())))
    with pytest.raises(InvalidInput, match="an earlier llmctl wrote it"):
        read_plan(path)


def test_the_same_change_has_the_same_digest_wherever_it_is_planned() -> None:
    before, after = application(), application(system="Be kind.")
    made = [
        build_plan(replace(desired(after), root=root), recorded(before), live(before), source_commit=commit)
        for root, commit in (("/home/ann/project", "a" * 40), ("/runner/work", "b" * 40))
    ]
    assert plan_digest(made[0]) == plan_digest(made[1])
