"""What was tried, what was covered, and what was lost: as JSON with every point, and as a table."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tests.faults.points import MODES
from tests.faults.sweep import Found, Results


def losses(results: Results, operations: Sequence[str]) -> list[str]:
    """A line for each effect without a point, and for each trial in which something did not hold."""
    lines: list[str] = []
    for name in operations:
        seen = results.points(name)
        if seen is None:
            lines.append(f"{name}: never tried")
            continue
        lines += [f"{name}: {what}" for what in seen.uncovered]
    for (name, point, mode), trial in results.trials().items():
        if name in operations:
            lines += [f"{name}: {mode} at {point}: {loss}" for loss in trial["losses"]]
    return lines


def summary(results: Results, operations: Sequence[str]) -> str:
    """All points by name with what was done at each, and the losses."""
    trials = results.trials()
    found = {name: seen for name in operations if (seen := results.points(name))}
    done = {
        name: {
            point.name: {
                mode: "lost" if trial["losses"] else "ok" if trial["met"] else "not met"
                for mode in MODES
                if (trial := trials.get((name, point.name, mode)))
            }
            for point in seen.points
        }
        for name, seen in found.items()
    }
    return json.dumps({"format": 1, "operations": done, "losses": losses(results, operations)}, indent=1)


def table(results: Results, operations: Sequence[str]) -> str:
    """Markdown: for each operation how many points there are, and in how many each mode was tried."""
    trials = results.trials()
    head = ["operation", "points", *MODES, "trials", "not met", "losses"]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] + ['---:'] * (len(head) - 1))}|"]
    total = [0, 0, 0, 0]
    for name in operations:
        seen = results.points(name)
        if seen is None:
            continue
        names = {point.name for point in seen.points}
        mine = [trial for key, trial in trials.items() if key[0] == name and key[1] in names]
        met = Counter(trial["mode"] for trial in mine if trial["met"])
        modes = [f"{met[mode]}/{_possible(seen, mode)}" for mode in MODES]
        unmet, lost = sum(not t["met"] for t in mine), sum(bool(t["losses"]) for t in mine)
        total = [was + now for was, now in zip(total, (len(seen.points), len(mine), unmet, lost), strict=True)]
        cells = [name, str(len(seen.points)), *modes, str(len(mine)), str(unmet), str(lost)]
        lines.append(f"| {' | '.join(cells)} |")
    cells = ["all", str(total[0]), *[""] * len(MODES), *map(str, total[1:])]
    return "\n".join([*lines, f"| {' | '.join(cells)} |"]) + "\n"


def _possible(seen: Found, mode: str) -> int:
    return len(seen.faults([mode]))
