"""The plan as a comment of a pull request.

Whatever a user wrote stands inside code fences, where nothing is a link, a mention, a reference or HTML; the
heading holds our own words, counts and addresses, and those are plain by their grammar.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from llmctl.cli.views.gist import Gist, gist
from llmctl.cli.views.layout import Line, Section, count, one_line, plain
from llmctl.cli.views.risks import Point, Tone
from llmctl.cli.views.sections import sections
from llmctl.plan import Plan, plan_digest

MOST = 65_000  # characters; GitHub takes 65,536
_NOTICE = 600  # characters kept for the line that says what was cut
_FRAME = 120  # characters of a section beside its title, its lines and its fences
_LEAST = 400  # characters below which a section is left out rather than cut

#: What a line begins with in a `diff` fence, so that it is coloured.
_MARK = {Tone.BAD: "-", Tone.WARN: "!"}
_MARK_OF_SIGN = {"+": "+", "±": "!", "~": "!", "-": "-"}


def render_markdown(plan: Plan, *, notice: str = "") -> str:
    """At most ``MOST`` characters; what does not fit goes from the end, and a line says so."""
    made = gist(plan)
    parts = [f"## {_heading(plan, made)}", _fence([made.head, *(_point(p) for p in made.points)], "diff")]
    if notice:
        parts.insert(1, _fence([notice], "text"))
    last = f"<sub>`llmctl plan`, digest `{plan_digest(plan)}`</sub>"
    room = MOST - sum(len(part) + 2 for part in parts) - len(last) - _NOTICE
    dropped: list[str] = []
    for section in sections(plan, made):
        text, cut = _folded(section, room if not dropped else 0)
        dropped += cut
        if text:
            parts.append(text)
            room -= len(text) + 2
    if dropped:
        parts.append(f"**Cut to fit a comment: {'; '.join(dropped)}.** `llmctl plan` shows all.")
    return "\n\n".join([*parts, last])


def _heading(plan: Plan, made: Gist) -> str:
    what = {"rollback": "rollback of ", "destroy": "destroy of "}.get(plan.action, "")
    project, environment = _name(plan.desired.project), _name(plan.desired.environment.name)
    return f"llmctl: {what}`{project}` in `{environment}`: {_inline(made.verdict)}"


def _name(text: str) -> str:
    """A name as the grammar has it; a plan file may say anything."""
    return re.sub(r"[^\w.-]", "?", text)


def _inline(text: str) -> str:
    """Our own words with names, as text of a heading; signs that neither of them has are no longer themselves."""
    return re.sub(r"([\\*_{}])", r"\\\1", re.sub(r"[`\[\]<>#|@&]", "?", one_line(text)))


def _point(point: Point) -> str:
    mark = _MARK.get(point.tone) or _MARK_OF_SIGN.get(point.sign, " ")
    return next(
        plain([Line(f"{mark} {point.text}" if mark == point.sign else f"{mark} {point.sign} {point.text}", indent=0)])
    )


def _fence(lines: Sequence[str], code: str) -> str:
    """A fence that is longer than any run of backticks in it, so that no line can close it."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    marks = "`" * max(3, longest + 1)
    return "\n".join([f"{marks}{code}", *lines, marks])


def _folded(section: Section, room: int) -> tuple[str, list[str]]:
    """The section in ``<details>``, and what of it does not fit."""
    lines = list(plain(section.lines))
    if section.code == "diff":
        lines = [_at_the_margin(line) for line in lines]
    kept = list(lines)
    while kept and _size(section, kept) > room:
        over = _size(section, kept) - room
        while kept and over > 0:
            over -= len(kept.pop()) + 1
    name = section.title.partition(":")[0]
    if len(kept) < len(lines) and room < _LEAST:
        return "", [f"{name} left out"]
    if not kept:
        return "", [f"{name} left out"]
    cut = [f"{name} shows {len(kept):,} of {len(lines):,} lines"] if len(kept) < len(lines) else []
    summary = f"<details><summary>{section.title} ({count(len(lines), 'line')})</summary>"
    return f"{summary}\n\n{_fence(kept, section.code)}\n\n</details>", cut


def _size(section: Section, lines: Sequence[str]) -> int:
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    return _FRAME + len(section.title) + 2 * longest + sum(len(line) + 1 for line in lines)


def _at_the_margin(line: str) -> str:
    """A `diff` fence colours by the first character of a line."""
    text = line.lstrip()
    return f"{text[0]}{line[: -len(text)]}{text[1:]}" if text[:1] in ("+", "-") and line.startswith("      ") else line
