"""The gist of a plan: what changes, why, what it risks. People, programs and comments get the same ten lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from llmctl.cli.views import signs
from llmctl.cli.views.changed import in_place, ordered, versions, why
from llmctl.cli.views.layout import Line, count, cut, listed
from llmctl.cli.views.risks import Point, Tone, proven, risks
from llmctl.core.address import Address
from llmctl.core.digests import Json
from llmctl.core.steps import Action, Promote, Shift
from llmctl.plan import GateForecast, Plan, ResourceChange
from llmctl.plan.drift import UNMANAGED

LINES = 10  # with the head and the verdict
_POINTS = LINES - 2
_CHANGES = 3  # lines that risks leave to changes, however many risks there are
_TEXT = 240  # characters of a line; the sections below have the whole
_MANY = {"policy": "policies"}
_COLORS = {Tone.BAD: "red", Tone.WARN: "yellow", Tone.PLAIN: None}


@dataclass(frozen=True, slots=True)
class Gist:
    """``points`` are at most eight; ``complete`` says whether they tell every change."""

    head: str
    verdict: str
    tone: Tone
    points: tuple[Point, ...]
    complete: bool


def gist(plan: Plan) -> Gist:
    """The ten lines, as values."""
    dangers, changes = risks(plan), _changes(plan)
    if plan.is_empty:
        return Gist(_head(plan), nothing(plan), Tone.PLAIN, _cut(dangers, _POINTS), complete=True)
    shown = _cut(dangers, _POINTS - min(len(changes), _CHANGES))
    told = _points(plan, changes, _POINTS - len(shown))
    known_to_fail = any(g.cached in ("FAIL", "INCONCLUSIVE") for g in plan.gates)
    bad = refused(plan) or plan.blocked or known_to_fail or plan.break_glass
    tone = Tone.BAD if bad else Tone.WARN if plan.weakened else Tone.PLAIN
    points = (*shown, *told)
    complete = (
        len(shown) == len(dangers) and len(told) == len(changes) and not any(p.text.endswith("…") for p in points)
    )
    return Gist(_head(plan), verdict(plan), tone, points, complete)


def gist_json(plan: Plan) -> dict[str, Json]:
    """The same for programs."""
    made = gist(plan)
    points = [{"sign": p.sign, "text": p.text, "tone": p.tone.value} for p in made.points]
    return {"verdict": made.verdict, "tone": made.tone.value, "points": points}


def gist_lines(made: Gist) -> list[Line]:
    """The same for people."""
    lines = [Line(made.head, indent=0, bold=True)]
    lines.append(Line(made.verdict, indent=0, bold=True, fg=_COLORS[made.tone]))
    for point in made.points:
        color = _COLORS[point.tone] or next((c for s, c in signs.OF_ACTION.values() if s == point.sign), None)
        lines.append(Line(f"{point.sign} {point.text}", fg=color))
    return lines


def refused(plan: Plan) -> list[str]:
    """Who is against it: policies and resources by address. What is destroyed needs no policy's consent."""
    policies = [f"policy.{p.policy}" for p in plan.policies if p.denies] if plan.action != "destroy" else []
    return list(dict.fromkeys([*policies, *(str(d.address or "the record") for d in plan.denials)]))


def verdict(plan: Plan) -> str:
    """One sentence or two: how much of what, and whether apply would do it."""
    if plan.blocked and not plan.steps:
        return "Nothing is planned while something cannot be read."
    words = Counter(_word(c) for c in plan.changes)
    parts = [f"{number:,} to {word}" for word, number in sorted(words.items(), key=lambda w: _ORDER.index(w[0]))]
    others = sum(d.summary.startswith(UNMANAGED) for d in plan.drift)
    parts += [f"{len(plan.drift) - others:,} to restore"] if len(plan.drift) > others else []
    parts += [f"{others:,} unmanaged"] if others else []
    parts += [_gates(plan.gates)] if plan.gates else []
    parts += [f"break-glass of serial {listed(plan.reconciles)} to put right"] if plan.reconciles else []
    text = ", ".join(parts) or count(len(plan.steps), "step")
    if words.keys() == {"update in place"} and not plan.gates:
        text += "; no new revision"
    failing = [g.gate for g in plan.gates if g.cached in ("FAIL", "INCONCLUSIVE")]
    text += f"; {listed(failing)} did not pass it before" if failing else ""
    if plan.weakened:
        text += f"; weakens {listed(w.address for w in plan.weakened)}"
    if plan.blocked:
        text += f"; {len(plan.blocked):,} cannot be read"
    if plan.targets:
        text += f"; only {listed(plan.targets)}"
        text += f", {count(len(plan.left_out), 'other change')} left out" if plan.left_out else ""
    if plan.break_glass:
        text += "; BREAK-GLASS"
    against = refused(plan)
    if missing := plan.approvals.missing if not plan.break_glass else 0:
        return f"{text}. {_missing(missing)}" + (f" Apply would refuse it: {listed(against)}." if against else "")
    return f"{text}. Apply would refuse it: {listed(against)}." if against else f"{text}."


def _missing(number: int) -> str:
    return f"{count(number, 'approval')} {'is' if number == 1 else 'are'} missing."


def _gates(forecasts: Sequence[GateForecast]) -> str:
    """How many run, and which of them as recorded: ``2 gates to run, 1 of them also as recorded``."""
    now = {(g.gate, g.route) for g in forecasts if not g.as_recorded}
    before = {(g.gate, g.route) for g in forecasts if g.as_recorded}
    text = f"{count(len(now | before), 'gate')} to run"
    if before:
        text += ", " if len(now | before) == 1 else f", {len(before):,} of them "
        text += "also as recorded" if before <= now else "as recorded"
    return text


_ORDER = ("create", "update", "update in place", "replace", "delete", "move", "adopt", "restore", "no-op")


def _word(change: ResourceChange) -> str:
    return "update in place" if in_place(change) else change.action.value


def nothing(plan: Plan) -> str:
    """Why there is nothing to do."""
    if plan.targets:
        left = f"; {count(len(plan.left_out), 'other change')} left out" if plan.left_out else ""
        return f"Nothing changes in {listed(plan.targets)}{left}."
    return {
        "destroy": "Nothing is recorded; only what is left on this machine goes.",
        "rollback": f"Nothing changes: what runs is what serial {plan.rollback_to} declared.",
    }.get(plan.action, "Nothing changes: what runs and what is recorded is what llmops.yaml declares.")


def _head(plan: Plan) -> str:
    environment = plan.desired.environment
    what = {"rollback": f"rollback to serial {plan.rollback_to}", "destroy": "destroy"}.get(plan.action, "plan")
    target = f" ({environment.target})" if environment.target else ""
    recorded = f"serial {plan.recorded.serial}" if plan.recorded.serial else "nothing recorded yet"
    return f"{what}: {plan.desired.project}, environment {environment.name}{target}, {recorded}"


def _changes(plan: Plan) -> list[ResourceChange]:
    """Deletions are among the risks, and so is a gate or policy that is weakened."""
    told = {w.address for w in plan.weakened}
    return [c for c in ordered(plan.changes) if c.action is not Action.DELETE and c.address not in told]


def _points(plan: Plan, changes: Sequence[ResourceChange], most: int) -> tuple[Point, ...]:
    """One each, in columns; where there are more, the last line counts them by kind."""
    shown = changes if len(changes) <= most else changes[: most - 1]
    traffic = rollouts(plan)
    names = max((len(str(c.address)) for c in shown), default=0)
    actions = max((len(c.action.value) for c in shown), default=0)
    numbers = max((len(versions(c)) for c in shown), default=0)
    points = []
    for change in shown:
        then = traffic.get(change.address, "")
        text = f"{change.address!s:<{names}}  {change.action.value:<{actions}} {versions(change):<{numbers}}  "
        text += why(change) + (f"; {then}" if then else "")
        points.append(Point(signs.OF_ACTION[change.action][0], cut(text, _TEXT), Tone.PLAIN))
    rest = changes[len(shown) :]
    if rest:
        kinds = Counter((c.address.kind, c.action.value) for c in rest)
        said = ", ".join(
            f"{count(number, kind, _MANY.get(kind, ''))} to {action}" for (kind, action), number in kinds.most_common()
        )
        points.append(Point("…", f"and {len(rest):,} more: {said}", Tone.PLAIN))
    return tuple(points)


def rollouts(plan: Plan) -> dict[Address, str]:
    """How each route that is rolled out gets its traffic, and what it must prove before."""
    shares: dict[Address, list[Shift]] = {}
    promoted: dict[Address, tuple[str, Action]] = {}
    for step in plan.steps:
        if isinstance(step, Shift):
            shares.setdefault(step.address, []).append(step)
        elif isinstance(step, Promote) and step.action is not Action.RESTORE:
            promoted[step.address] = (step.revision, step.action)
    proofs: dict[tuple[Address, str], list[GateForecast]] = {}
    for forecast in plan.gates:
        proofs.setdefault((forecast.route, forecast.revision), []).append(forecast)
    said = {}
    for route, (revision, action) in promoted.items():
        runs = proofs.get((route, revision), ())
        now = {forecast.gate for forecast in runs if not forecast.as_recorded}
        gates = [_passes(forecast, again=forecast.as_recorded and forecast.gate in now) for forecast in runs]
        bare = "proven when it was first applied" if plan.action == "rollback" else "unproven"
        traffic = "serves" if action in (Action.CREATE, Action.ADOPT) else _traffic(shares.get(route, []), revision)
        said[route] = f"{traffic}, {f'when {listed(gates)}' if gates else bare}"
    for gate, text in _reruns(plan, promoted.keys()):
        said[gate] = text
    return said


def _reruns(plan: Plan, promoted: Collection[Address]) -> Iterator[tuple[Address, str]]:
    """Gates that run on what serves already, because only they changed."""
    for forecast in plan.gates:
        if forecast.route not in promoted and not forecast.as_recorded:
            known = f" ({proven(forecast)})" if forecast.cached else ""
            yield forecast.gate, f"must pass on what serves, {forecast.route}@{forecast.revision[:8]}{known}"


def _passes(forecast: GateForecast, *, again: bool) -> str:
    which = f"{forecast.gate} as recorded" if forecast.as_recorded else str(forecast.gate)
    known = f" ({proven(forecast)})" if forecast.cached == "PASS" else ""
    return f"{'as recorded too' if again else f'{which} passes'}{known}"


def _traffic(shifts: Sequence[Shift], revision: str) -> str:
    if len(shifts) < 2:
        return "takes all traffic at once"
    stages = " → ".join(str(dict(s.weights).get(revision, 0)) for s in shifts)
    holds = {s.hold_s for s in shifts if s.hold_s}
    whole = f"{sum(s.hold_s for s in shifts):g} s in all"
    return f"traffic goes {stages} %" + (
        f", {max(holds):g} s each" if len(holds) == 1 else f", {whole}" if holds else ""
    )


def _cut(points: Sequence[Point], most: int) -> tuple[Point, ...]:
    shown = points if len(points) <= most else points[: most - 1]
    rest = len(points) - len(shown)
    more = [Point("…", f"and {count(rest, 'more risk', 'more risks')}: see below", Tone.WARN)] if rest else []
    return (*(Point(p.sign, cut(p.text, _TEXT), p.tone) for p in shown), *more)
