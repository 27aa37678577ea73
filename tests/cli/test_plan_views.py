"""A plan in its three forms: what people, programs and reviewers are shown, and that nothing in it can break out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmctl.cli.views import signs
from llmctl.cli.views.changed import field_lines, phrase
from llmctl.cli.views.explain import explanation_json, render_explanation
from llmctl.cli.views.gist import LINES, gist, gist_json
from llmctl.cli.views.layout import Line, rendered
from llmctl.cli.views.markdown import MOST, render_markdown
from llmctl.cli.views.plan import render_plan
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic, Severity
from llmctl.core.digests import Json
from llmctl.core.kinds import kind_of
from llmctl.core.policies import PolicyResult, Waiver
from llmctl.core.resources import Resource
from llmctl.plan import FieldDiff, Plan, build_plan
from llmctl.plan.explain import explain
from llmctl.plan.model import Weakening
from tests.plan.builders import NOTHING, application, desired, live, recorded

COLOR = re.compile(r"\x1b\[[0-9;]*m")
MODEL, ROUTE, POLICY = Address("model", "tiny"), Address("route", "support"), Address("policy", "open")
HOSTILE = (
    "```\n~~~\n</details></summary><img src=x onerror=alert(1)>\n| a | @octocat #1 GH-2 [x](https://evil.example) `b`"
)


def _plan(after: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Plan:
    """From one application to another, while everything runs as recorded."""
    old, new = application(**(before or {})), application(**after)
    return build_plan(desired(new), recorded(old), live(old))


def _many(count: int, text: str) -> dict[Address, Resource]:
    found = application()
    for number in range(count):
        address = Address("prompt", f"p{number}")
        spec: dict[str, Any] = {"messages": [{"role": "system", "content": f"{text} {number}"}], "variables": {}}
        found[address] = Resource(address, spec, kind_of("prompt").revision(spec))
    return found


def _shown(plan: Plan) -> str:
    return COLOR.sub("", render_plan(plan))


CHANGE = _plan({"system": "Be very brief."})


def test_the_three_forms_tell_the_same() -> None:
    plan = _plan({"system": "Be very brief.", "minimum": 0.5, "rows": "d2", "license": "GPL"})
    made = gist(plan)
    human, comment = _shown(plan).split("\n"), render_markdown(plan)
    assert human[1] == made.verdict == gist_json(plan)["verdict"]
    assert [line.strip() for line in human[2 : 2 + len(made.points)]] == [f"{p.sign} {p.text}" for p in made.points]
    assert comment.startswith(f"## llmctl: `acme` in `dev`: {made.verdict}\n")
    assert all(point.text in comment.partition("<details>")[0] for point in made.points)
    assert [p["text"] for p in gist_json(plan)["points"]] == [p.text for p in made.points]


WAIVER = Waiver("model.tiny", "2027-01-31", "fallback only", "security")
#: what is in a plan: what the first ten lines say of it
TOLD: dict[str, tuple[dict[str, Any], str]] = {
    "denied": (
        {"policies": (PolicyResult("open", "deny", MODEL, False, "No."),)},
        "✗ policy.open denies model.tiny: No.",
    ),
    "denied by the base": (
        {"policies": (PolicyResult("open", "deny", MODEL, False, "No.", basis="base"),)},
        "✗ policy.open, as it was before this change, denies model.tiny: No.",
    ),
    "denied by the base of --base": (
        {
            "policies": (PolicyResult("open", "deny", MODEL, False, "No.", basis="base"),),
            "weakened": (Weakening(POLICY, ("severity deny → warn",), "main"),),
        },
        "✗ policy.open, as in main, denies model.tiny: No.",
    ),
    "denied by both bases": (
        {
            "policies": (PolicyResult("open", "deny", MODEL, False, "No.", basis="base"),),
            "weakened": tuple(Weakening(POLICY, (f"a waiver for {w}",), w) for w in ("the record", "main")),
        },
        "✗ policy.open, as it was before this change or in main, denies model.tiny: No.",
    ),
    "not to be judged": (
        {"policies": (PolicyResult("open", "warn", MODEL, False, "No.", error="no such key"),)},
        "✗ policy.open denies model.tiny: No. [no such key]",
    ),
    "warned": (
        {"policies": (PolicyResult("open", "warn", MODEL, False, "Hm."),)},
        "! policy.open warns about model.tiny: Hm.",
    ),
    "waived": (
        {"policies": (PolicyResult("open", "deny", MODEL, False, "No.", waiver=WAIVER),)},
        "! policy.open is waived for model.tiny until 2027-01-31: fallback only",
    ),
    "waiver runs out": (
        {"policies": (PolicyResult("open", "deny", MODEL, True, "No.", note="the waiver ended on 2026-11-01"),)},
        "! policy.open on model.tiny: the waiver ended on 2026-11-01",
    ),
    "refused": ({"denials": (Diagnostic("it was rejected", address=ROUTE),)}, "✗ route.support: it was rejected"),
    "blocked": (
        {"blocked": (Diagnostic("cannot be read: timeout", address=MODEL),), "waiting": (ROUTE,)},
        "! 1 change held, they need what cannot be read: route.support",
    ),
    "weakened": (
        {"weakened": (Weakening(POLICY, ("severity deny → warn",), "main"),)},
        "▼ policy.open asks for less than in main: severity deny → warn",
    ),
    "left out": ({"targets": (MODEL,), "left_out": (ROUTE,)}, "left out by --target, though it would change too"),
    "offline": ({"offline": True}, "! live state unknown (--offline): drift is not shown, and this cannot be applied"),
    "warning": (
        {"warnings": (Diagnostic("not set", Severity.WARNING, address=MODEL),)},
        "! model.tiny: not set",
    ),
}


@pytest.mark.parametrize("case", TOLD)
def test_every_risk_is_in_the_first_ten_lines(case: str) -> None:
    more, text = TOLD[case]
    plan = replace(CHANGE, **more)
    assert text in "\n".join(_shown(plan).split("\n")[:LINES])
    assert text in render_markdown(plan).partition("<details>")[0]


def test_the_reason_of_a_change_is_told_once() -> None:
    before = application()
    after = application(names={"endpoint.main": "primary"}, replicas=3)
    moves = (("endpoint.main", "endpoint.primary"),)
    told = {
        p.text.split()[0]: p.text
        for p in gist(build_plan(desired(after, *moves), recorded(before), live(before))).points
    }
    assert told["endpoint.primary"].count("renamed from endpoint.main") == 1
    assert "runs beside it until everything uses the new one" in told["endpoint.primary"]
    assert told["route.support"].endswith(
        "follows the rename of endpoint.main to endpoint.primary; takes all traffic at once, when gate.faq passes"
    )

    after = application(names={"route.support": "help"}, aliases=("support",), system="Be kind.")
    plan = build_plan(desired(after, ("route.support", "route.help")), recorded(before), live(before))
    (text,) = (p.text for p in gist(plan).points if p.text.startswith("route.help"))
    assert (text.count("renamed from route.support"), text.count("prompt changed")) == (1, 1)


def test_a_rename_of_everything_says_renamed_and_not_changed() -> None:
    names = {"route.support": "help", "prompt.answer": "reply", "endpoint.main": "primary"}
    moves = [(old, f"{old.partition('.')[0]}.{new}") for old, new in names.items()]
    before, after = application(), application(names=names, aliases=("support",))
    plan = build_plan(desired(after, *moves), recorded(before), live(before))
    told = [p.text for p in gist(plan).points if p.text.startswith(("route.help", "prompt.reply", "endpoint.primary"))]
    assert len(told) == 3
    assert all("renamed from" in text and " changed" not in text for text in told)
    reason = "follows the rename of endpoint.main to endpoint.primary, prompt.answer to prompt.reply"
    assert any(f"renamed from route.support, and still answers to support; {reason};" in text for text in told)

    edited = application(names=names, aliases=("support", "hotline"), system="Be kind.")
    changed = build_plan(desired(edited, *moves), recorded(before), live(before))
    (text,) = (p.text for p in gist(changed).points if p.text.startswith("route.help"))
    assert "prompt, endpoint changed; aliases changed" in text


def test_routes_without_a_gate_go_live_unproven() -> None:
    after = application(system="Be kind.")
    after = {a: r for a, r in after.items() if a.kind != "gate"}
    other = Address("route", "brief")
    both = {**after, other: replace(after[ROUTE], address=other)}
    before = {a: r for a, r in application().items() if a.kind != "gate"}
    one = [p.text for p in gist(build_plan(desired(after), recorded(before), live(before))).points]
    assert "route.support goes live unproven: no gate is on it" in one
    two = [p.text for p in gist(build_plan(desired(both), recorded(before), live(before))).points]
    assert "route.brief, route.support go live unproven: no gate is on them" in two


def test_a_route_whose_endpoint_changes_in_place_says_so_and_comes_after_it() -> None:
    texts = [p.text for p in gist(_plan({"replicas": 3})).points]
    assert [text.split()[0] for text in texts] == ["endpoint.main", "route.support"]
    assert texts[1].endswith("what it uses changes in place; the revision stays")


def test_a_gate_that_runs_as_recorded_too_is_counted_and_told_once() -> None:
    shown = _shown(_plan({"system": "Be kind.", "minimum": 0.5}))
    assert "1 gate to run, also as recorded; weakens gate.faq." in shown.split("\n")[1]
    assert "when gate.faq passes, as recorded too" in shown
    assert shown.count("gate.faq as recorded on route.support@") == 1
    assert shown.count("weakened by this change") == 1


def test_an_alias_that_goes_is_a_risk() -> None:
    """It went with its entry under ``moved``, or with its route; another route may take the name."""
    names = {"route.support": "help"}
    before, after = application(names=names, aliases=("support",)), application(names=names)
    said = "- no route answers to support any more: requests to it fail from then on"
    assert said in _shown(build_plan(desired(after), recorded(before), live(before)))
    gone = {a: r for a, r in after.items() if a.kind not in ("route", "gate")}
    assert said in _shown(build_plan(desired(gone), recorded(before), live(before)))
    assert said not in _shown(build_plan(desired(application()), recorded(before), live(before)))
    assert said not in _shown(build_plan(desired({}), recorded(before), live(before), action="destroy", gated=False))


def test_ten_lines_stay_ten_and_leave_room_for_changes() -> None:
    denials = tuple(Diagnostic(f"reason {n}", address=ROUTE) for n in range(30))
    shown = _shown(replace(CHANGE, denials=denials)).partition("\n\n")[0].split("\n")
    assert len(shown) <= LINES
    assert "… and 25 more risks: see below" in "\n".join(shown)
    assert any("prompt.answer" in line for line in shown)


def test_a_first_plan_and_an_empty_one() -> None:
    first = _shown(build_plan(desired(application()), recorded({}, 0), NOTHING)).split("\n")
    assert first[:2] == [
        "plan: acme, environment dev (local), nothing recorded yet",
        "7 to create, 1 gate to run.",
    ]
    same = application()
    empty = _shown(build_plan(desired(same), recorded(same), live(same)))
    assert empty.split("\n", 1)[1] == ("Nothing changes: what runs and what is recorded is what llmops.yaml declares.")


def test_a_rollback_and_a_destroy() -> None:
    old, new = application(), application(system="Be very brief.")
    back = build_plan(desired(old), recorded(new, 2), live(new), action="rollback", gated=False, rollback_to=1)
    head, verdict, *points = _shown(back).partition("\n\n")[0].split("\n")
    assert head == "rollback to serial 1: acme, environment dev (local), serial 2"
    assert verdict == "1 to update, 1 to replace."
    assert points[-1].endswith("takes all traffic at once, proven when it was first applied")
    gone = build_plan(desired({}), recorded(old), live(old), action="destroy", gated=False)
    head, verdict, *points = _shown(gone).partition("\n\n")[0].split("\n")
    assert (head, verdict) == ("destroy: acme, environment dev (local), serial 1", "7 to delete.")
    assert points[0] == "  - deletes route.support: requests to it fail from then on"


def test_ten_thousand_changes_are_counted_and_not_listed() -> None:
    plan = build_plan(desired(_many(10_000, "New")), recorded(_many(10_000, "Old")), NOTHING)
    shown, comment = _shown(plan), render_markdown(plan)
    assert "10,000 to update" in shown.split("\n")[1]
    assert "… and 9,950 more changes; --json has all" in shown
    assert len(shown.split("\n")) < 500
    assert len(comment) <= MOST


@pytest.mark.parametrize("size", [1_000, 70_000, 400_000])
def test_a_comment_is_cut_from_its_end_and_says_so(size: int) -> None:
    words = "\n".join(f"line {n} of many" for n in range(size // 16))
    comment = render_markdown(_plan({"system": words}))
    assert len(comment) <= MOST
    long = "x" * 30_000
    several = build_plan(desired(_many(9, long)), recorded(_many(9, long[:-1])), NOTHING)
    cut = render_markdown(several)
    assert len(cut) <= MOST
    assert re.search(r"\*\*Cut to fit a comment: .*Steps left out\.\*\* `llmctl plan` shows all\.", cut)


def test_what_users_write_cannot_leave_its_fence() -> None:
    plan = _plan({"system": HOSTILE}, {"system": "````\nhello\n" + HOSTILE[::-1]})
    plan = replace(
        plan,
        policies=(PolicyResult(HOSTILE, "deny", MODEL, False, HOSTILE),),  # the name as an edited plan file may have it
        denials=(Diagnostic(HOSTILE, address=ROUTE, detail=HOSTILE, hint=HOSTILE),),
        weakened=(Weakening(POLICY, (HOSTILE,), HOSTILE),),
        warnings=(Diagnostic(HOSTILE, Severity.WARNING),),
    )
    outside = []
    for token in MarkdownIt("gfm-like", {"linkify": False}).parse(render_markdown(plan)):
        if token.type not in ("fence", "code_block"):
            outside += [token.content, *(child.type for child in token.children or ())]
    said = "\n".join(outside)
    for sign in ("@", "#1", "<img", "](", "link_open", "|"):
        assert sign not in said
    assert {line for line in said.split("\n") if "<" in line and "summary" not in line} <= {
        "</details>",
        f"<sub>`llmctl plan`, digest `{said.partition('digest `')[2][:71]}`</sub>",
        "<sub>",
    }
    assert said.count("<details>") == said.count("</details>") > 3


def test_control_characters_are_not_printed() -> None:
    evil = "red \x1b[31m bell \x07 turn \u202e back \r over \x9b"
    plan = replace(_plan({"system": evil}), denials=(Diagnostic(evil, address=ROUTE, hint=evil),))
    for text in (_shown(plan), render_markdown(plan)):
        assert not set(text) & set("\x1b\x07\u202e\r\x9b")
    assert "�" in _shown(plan)


def test_eighty_columns_hold_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _plan({"system": "Be brief, and " * 40, "minimum": 0.5, "license": "GPL"})
    wide = _shown(plan)
    monkeypatch.setattr("llmctl.cli.views.plan.screen_width", lambda: 80)
    narrow = _shown(plan)
    assert max(len(line) for line in narrow.split("\n")) <= 80 < max(len(line) for line in wide.split("\n"))
    assert narrow.split() == wide.split()


def test_a_long_word_is_broken_and_not_cut() -> None:
    shown = rendered([Line("x" * 100, indent=4)], 40)
    assert max(map(len, shown.split("\n"))) <= 40
    assert shown.count("x") == 100


def test_an_ascii_terminal_gets_what_stands_for_each_sign() -> None:
    plan = _plan({"system": "Be very brief.", "minimum": 0.5})
    plan = replace(plan, policies=(PolicyResult("open", "deny", MODEL, True, "No."),))
    text = "".join(_shown(plan)) + "".join(sign for sign, _ in signs.OF_ACTION.values()) + "✓✗▼↶·∞"
    shown = text.encode("ascii", signs.FALLBACK).decode("ascii")
    assert "?" not in shown
    assert "exact_match >= 0.9" in shown
    assert "v1 -> v2" in shown
    assert "é".encode("ascii", signs.FALLBACK) == b"?"


LONG = "You are the support assistant of Acme. Answer in English."


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (0.95, 0.9, "0.95 → 0.9"),
        (30.0, 60.0, "30 → 60"),
        (None, 3, "(none) → 3"),
        (
            "models/support-tiny.gguf",
            "models/support-tiny-early.gguf",
            "models/support-tiny.gguf → models/support-tiny-early.gguf",
        ),
        (LONG, LONG + " Be brief.", '… + "Be brief."'),
        (LONG + " Be brief.", LONG, '… - "Be brief."'),
        (LONG, LONG.replace("English", "Englisch"), '… "English" → "Englisch"'),
        (LONG, LONG.replace(" support", ""), '… - "support"'),
        ("sha256:" + "a" * 64, "sha256:" + "b" * 64, "sha256:aaaaaaaa → sha256:bbbbbbbb"),
        (LONG, LONG + ' Say "hello".', "… + 'Say \"hello\".'"),
    ],
)
def test_a_change_of_a_field_in_a_phrase(before: Json, after: Json, said: str) -> None:
    assert phrase(FieldDiff("x", before, after)) == said


@given(st.text(max_size=200), st.text(max_size=200))
def test_any_two_texts_make_a_phrase_and_a_difference(before: str, after: str) -> None:
    diff = FieldDiff("x", before, after)
    assert len(phrase(diff)) <= 110
    shown = rendered(field_lines(diff), 60)
    assert all(len(COLOR.sub("", line)) <= 60 for line in shown.split("\n"))


def test_a_resource_is_explained() -> None:
    told = explain(CHANGE, ROUTE)
    assert told is not None
    shown = COLOR.sub("", render_explanation(CHANGE, told))
    assert shown.startswith(f"route.support: {told.summary}\n")
    assert "~ prompt.answer" in shown
    assert "takes all traffic at once, when gate.faq passes" in shown
    assert "exact_match ≥ 0.9" in shown
    assert re.search(r"^ +\d+ promote:route.support@", shown, re.MULTILINE)
    as_json = explanation_json(CHANGE, told)
    assert as_json["change"]["action"] == "replace"
    assert [c["address"] for c in as_json["causes"]] == ["prompt.answer"]
    assert {s["type"] for s in as_json["steps"]} >= {"Stage", "RunGate", "Shift", "Promote"}
    assert as_json["runs"][0]["gate"] == "gate.faq"
