"""What an apply says while it works and when it ended: what happened, what did not, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from llmctl.app.applying import Outcome
from llmctl.apply import ApplyResult, GateReport, State, StepResult
from llmctl.cli.views.gate import judgement_lines
from llmctl.cli.views.progress import LiveProgress, PlainProgress, step_line
from llmctl.cli.views.summary import outcome_json, render_summary
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import GateBlocked, Interrupted, LlmctlError, ProviderError, TransientError
from llmctl.core.evidence import Evidence, Judgement, Verdict
from llmctl.core.exits import ExitCode
from llmctl.core.steps import RunGate, Shift, Step
from llmctl.gates import Failures, RowReport
from llmctl.plan import Plan, build_plan
from tests.plan.builders import application, desired, live, recorded

COLOR = re.compile(r"\x1b\[[0-9;]*m")
OLD, NEW = application(), application(system="Be very brief.")
PLAN = build_plan(desired(NEW), recorded(OLD), live(OLD))
GATE = next(s for s in PLAN.steps if isinstance(s, RunGate))
BAD = "no \x1b[31m answer"


def _outcome(
    states: dict[str, State],
    *,
    errors: Sequence[LlmctlError] = (),
    code: ExitCode = ExitCode.OK,
    plan: Plan = PLAN,
    gates: tuple[GateReport, ...] = (),
    tries: int = 1,
) -> Outcome:
    """An apply of ``PLAN`` whose steps of the named types ended as given, all others well."""

    def ended(step: Step) -> StepResult:
        state = states.get(type(step).__name__, State.DONE)
        because = GATE.id if state is State.SKIPPED and errors else ""
        return StepResult(step, state, "interrupted" if code == 130 else "", tries=tries, because=because)

    result = ApplyResult(tuple(ended(s) for s in plan.steps), {}, gates)
    return Outcome(plan, result, 8, code, errors=tuple(errors))


FAILED = {
    "RunGate": State.FAILED,
    "Stage": State.UNDONE,
    "Shift": State.SKIPPED,
    "Promote": State.SKIPPED,
    "Retire": State.SKIPPED,
}
JUDGED = Judgement("exact_match", "min", 0.9, 0.5, 0.4, 0.6, 210, 0.95, "exact", Verdict.FAIL, slice="language=de")
EVIDENCE = Evidence("faq", "r", {}, "support", GATE.revision, "", "d", "k", 210, (JUDGED,), Verdict.FAIL)
REPORT = GateReport(EVIDENCE, worst=(RowReport("row-1", {"question": BAD}, "yes", BAD, 0.0),))


def _said(outcome: Outcome) -> str:
    return COLOR.sub("", render_summary(outcome))


def test_a_gate_that_stopped_an_apply() -> None:
    error = GateBlocked("gate.faq FAIL", hint="Look at the rows.")
    outcome = _outcome(FAILED, errors=[error], code=ExitCode.GATE, gates=(REPORT,))
    said = _said(outcome)
    assert said.startswith("error: gate.faq FAIL\n")
    short = GATE.revision[:8]
    assert f"· not started, gate:faq:route.support@{short} failed: shift:route.support@{short}, promote:" in said
    assert f"↶ taken back, for nothing uses it: stage:route.support@{short}\n" in said
    assert "Apply stopped by its gate (1 done, 1 failed, 3 skipped, 1 undone); recorded as serial 8 on branch" in said
    path = f"evidence/faq/{EVIDENCE.digest.removeprefix('sha256:')}.json"
    assert f"Evidence of gate.faq: git show llmctl/dev:{path}\n" in said
    assert said.endswith("What served before still serves. llmctl audit show 8 tells all.")
    shown = json.loads(json.dumps(outcome_json(outcome)))
    assert (shown["exit_code"], shown["finished"], shown["gates"][0]["path"]) == (4, False, path)
    assert {s["because"] for s in shown["steps"] if s["state"] == "skipped"} == {GATE.id}


DOWN = "HTTP 502: support-1 answers with a page"
SLOW = Judgement("latency_p95_ms", "max", 500, 60_000, 60_000, 60_000, 60, 0.95, "order statistics", Verdict.FAIL)


def _unanswered(failed: int, alike: int, *, errors: tuple[str, ...] = (DOWN,)) -> GateReport:
    failures = Failures(failed, 60, DOWN, alike)
    rows = (RowReport(f"row-{n}", {"q": "Why?"}, "yes", "", 0.0, error, failures) for n, error in enumerate(errors))
    return GateReport(replace(EVIDENCE, judgements=(JUDGED, SLOW)), worst=tuple(rows))


def _stopped_by(report: GateReport) -> Outcome:
    error = GateBlocked("gate.faq failed", detail="latency: 6e+04", hint="Look at the worst rows; change the model.")
    outcome = _outcome(FAILED, errors=[error], code=ExitCode.GATE, gates=(report,))
    assert outcome.result is not None
    ended = tuple(replace(r, error=error) if r.step is GATE else r for r in outcome.result.results)
    return replace(outcome, result=replace(outcome.result, results=ended))


def test_a_gate_whose_requests_all_failed_says_why_and_where_to_look(capsys: pytest.CaptureFixture[str]) -> None:
    report = _unanswered(60, 60)
    PlainProgress().gate(report)
    told = capsys.readouterr().err
    assert told.split("\n")[1] == f"  60 of 60 requests got no answer: {DOWN}"
    assert f"      no answer {DOWN}\n" in told
    assert "answered" not in told
    error = _said(_stopped_by(report)).partition("· not started")[0]
    assert f"60 of 60 requests got no answer: {DOWN}\n" in error
    assert "= help: Look at the endpoint: `llmctl logs` and `llmctl status` say why requests fail.\n" in error
    for text in (told, error):
        assert "latency_p95_ms ≤ 500" in text
        assert "    none  [–, –] at 95%  FAIL" in text
        assert "60000" not in text
        assert "6e+04" not in text
    shown = outcome_json(_stopped_by(report))
    assert shown["errors"][0]["detail"].startswith("60 of 60 requests got no answer")
    assert shown["gates"][0]["judgements"][1]["estimate"] == 60_000  # the evidence is as it was


def test_a_gate_of_whose_requests_a_part_failed_says_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    report = _unanswered(4, 3, errors=(DOWN, "HTTP 500"))
    PlainProgress().gate(report)
    assert f"  4 of 60 requests got no answer, 3 of them: {DOWN}\n" in capsys.readouterr().err
    said = _said(_stopped_by(report))
    assert "say why requests fail. Look at the worst rows; change the model.\n" in said


def test_the_evidence_of_many_gates_leaves_the_headline_on_the_screen() -> None:
    gates = tuple(replace(REPORT, evidence=replace(EVIDENCE, gate=f"faq-{n}")) for n in range(200))
    said = _said(_outcome(FAILED, errors=[GateBlocked("failed")], code=ExitCode.GATE, gates=gates))
    assert said.count("Evidence of gate.") == 10
    assert "\n… and 190 more: `llmctl audit show 8`\n" in said
    assert "more:" not in _said(_outcome(FAILED, errors=[GateBlocked("failed")], code=ExitCode.GATE, gates=gates[:10]))


def test_one_cause_of_many_failures_is_told_once_and_many_causes_in_part() -> None:
    alike = [ProviderError("the gateway refuses the configuration", hint="Look at its log.") for _ in range(500)]
    said = _said(_outcome({"Promote": State.FAILED}, errors=alike, code=ExitCode.ERROR))
    assert said.count("the gateway refuses the configuration") == 1
    assert "  = help: Look at its log.\n  = 500 times\n" in said
    others = [ProviderError(f"route r{number} cannot be published") for number in range(300)]
    outcome = _outcome({"Promote": State.FAILED}, errors=others, code=ExitCode.ERROR)
    assert _said(outcome).count("cannot be published") == 20
    assert "… and 280 more errors; --json has all" in _said(outcome)
    assert len(outcome_json(outcome)["errors"]) == 300


def test_what_was_tried_again_held_and_left_out() -> None:
    model, dataset = Address("model", "tiny"), Address("dataset", "faq")
    changed = {"waiting": (model,), "left_out": (dataset,), "blocked": (Diagnostic("timeout", address=model),)}
    plan = Plan(**{f: getattr(PLAN, f) for f in PLAN.__slots__} | changed)
    said = _said(_outcome({}, plan=plan, code=ExitCode.ERROR, tries=3))
    assert "! tried again: provision:prompt.answer@" in said
    assert "(3 tries)" in said
    assert "! left as it is, for it cannot be read: model.tiny (timeout)\n" in said
    assert "! held, for it needs that: model.tiny\n" in said
    assert "! left out by --target: dataset.faq\n" in said
    assert "Apply done in part (6 done); recorded as serial 8 on branch llmctl/dev." in said
    assert "2 changes still to do: `llmctl plan` shows them." in said


def test_an_interrupted_one_and_a_good_one() -> None:
    rest = {"RunGate": State.SKIPPED, "Shift": State.SKIPPED, "Promote": State.SKIPPED, "Retire": State.SKIPPED}
    said = _said(_outcome(rest | {"Stage": State.UNDONE}, code=ExitCode.INTERRUPTED))
    assert "· not started, interrupted: gate:faq:" in said
    assert "Apply interrupted (1 done, 4 skipped, 1 undone)" in said
    assert "`llmctl apply` goes on from here." in said
    good = _said(_outcome({}))
    assert good.split("\n") == [
        "Apply done (6 done); recorded as serial 8 on branch llmctl/dev.",
        'Ask it: llmctl chat support "…"',
    ]


def test_what_to_do_next_names_the_file_and_the_environment() -> None:
    option = " -f 'my app/llmops.yaml' -e dev"
    assert COLOR.sub("", render_summary(_outcome({}), option)).endswith(f'llmctl chat support "…"{option}')
    failed = COLOR.sub(
        "", render_summary(_outcome(FAILED, errors=[TransientError("gone")], code=ExitCode.ERROR), option)
    )
    assert f"llmctl audit show 8{option} tells all. `llmctl apply{option}` goes on from here." in failed


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_has_every_try_and_counts_only_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = _Clock()
    shown = PlainProgress(clock)
    shift = next(s for s in PLAN.steps if isinstance(s, Shift))
    shown.started(GATE)
    for done in range(0, 210, 10):
        shown.progress(GATE, f"{done}/210 samples")
        clock.now += 1.0
    for left in (30, 29, 28):
        shown.progress(shift, f"10 %, {left} s left")
    for number in (2, 3):
        shown.progress(shift, f"try {number} of 4 in 1.0 s: the gateway cannot be read")
    lines = [line[11:] for line in capsys.readouterr().err.splitlines()]
    gate, traffic = (f"{step.id.partition('@')[0]}@{step.id.partition('@')[2][:8]}" for step in (GATE, shift))
    assert lines == [
        gate,
        f"{gate}  100/210 samples",
        f"{gate}  200/210 samples",
        f"{traffic}  10 %, 30 s left",
        f"{traffic}  try 2 of 4 in 1.0 s: the gateway cannot be read",
        f"{traffic}  try 3 of 4 in 1.0 s: the gateway cannot be read",
    ]


def test_the_thresholds_of_a_gate_stand_in_columns() -> None:
    long = replace(JUDGED, slice="language=de", threshold=0.955, metric="json_schema")
    point = replace(JUDGED, slice="", method="point", verdict=Verdict.PASS)
    nothing = replace(JUDGED, slice="", rule="max_drop", verdict=Verdict.NOT_APPLICABLE)
    lines = [COLOR.sub("", text) for text in judgement_lines(replace(EVIDENCE, judgements=(long, point, nothing)))]
    first, second = (line.index("[") for line in lines[:2])
    assert first == second
    assert lines[2].index("n/a") == len("json_schema ≥ 0.955 where language=de ")
    assert lines[1].endswith("PASS  by the figure alone")
    assert "alone" not in lines[0] + lines[2]


def test_a_gate_report_says_that_the_gate_judged_as_recorded(capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress().gate(replace(REPORT, as_recorded=True))
    assert "gate.faq as recorded FAIL" in capsys.readouterr().err


def test_a_gate_report_names_its_slice_and_prints_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    PlainProgress().gate(REPORT)
    said = capsys.readouterr().err
    assert "exact_match ≥ 0.9 where language=de" in said
    assert "\x1b[31m answer" not in said
    assert "no �[31m answer" in said


def test_what_waited_for_an_interrupted_step_blames_no_failure() -> None:
    stopped = StepResult(GATE, State.FAILED, "interrupted", error=Interrupted("interrupted"))
    later = next(s for s in PLAN.steps if isinstance(s, Shift))
    skipped = StepResult(later, State.SKIPPED, f"needs {GATE.id}, which was interrupted", because=GATE.id)
    result = ApplyResult((stopped, skipped), {}, ())
    said = _said(Outcome(PLAN, result, 8, ExitCode.INTERRUPTED, errors=(Interrupted("interrupted"),)))
    short = GATE.revision[:8]
    assert f"· not started, gate:faq:route.support@{short} was interrupted: shift:route.support@{short}\n" in said

    lines = COLOR.sub("", step_line(skipped, 60)).split("\n")
    assert max(map(len, lines)) <= 60
    assert " ".join(line.strip() for line in lines) == (
        f"· shift:route.support@{short}  needs gate:faq:route.support@{short}, which was interrupted"
    )


def test_a_step_says_how_often_it_was_tried() -> None:
    error = TransientError("gone")
    line = COLOR.sub("", step_line(StepResult(GATE, State.FAILED, error.summary, 1.0, error, tries=4)))
    assert line == f"✗ gate:faq:route.support@{GATE.revision[:8]}  gone after 4 tries  (1.0 s)"


def test_a_terminal_shows_a_dozen_running_steps_and_every_one_that_ended(capsys: pytest.CaptureFixture[str]) -> None:
    """All that run are drawn anew for each line: hundreds of routes that go out together would take minutes."""
    steps = [replace(GATE, id=f"stage:route.r{number:03}@1") for number in range(100)]
    with LiveProgress() as progress:
        for step in steps:
            progress.started(step)
        assert len(progress._progress.tasks) == 12
        for step in steps:
            progress.ended(StepResult(step, State.DONE, "done"))
        assert not progress._progress.tasks
    said = capsys.readouterr().err
    assert all(f"✓ stage:route.r{number:03}" in said for number in range(100))


def test_a_long_step_that_began_among_many_is_shown_once_they_ended() -> None:
    steps = [replace(GATE, id=f"stage:route.r{number:03}@1") for number in range(100)]
    with LiveProgress() as progress:
        for step in (*steps, GATE):
            progress.started(step)
        progress.progress(GATE, "10/210 samples")
        assert len(progress._progress.tasks) == 12
        for step in steps:
            progress.ended(StepResult(step, State.DONE, "done"))
        progress.progress(GATE, "20/210 samples")
        assert [task.fields["note"] for task in progress._progress.tasks] == ["20/210 samples"]
        progress.ended(StepResult(GATE, State.DONE, "PASS"))
        progress.progress(GATE, "said too late")
        assert not progress._progress.tasks
