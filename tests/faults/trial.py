"""One operation with one fault, and what must hold then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.project import Project
from tests.faults.operations import FIRST_STEPS, Operation
from tests.faults.points import Fault, Point
from tests.faults.rig import Client, Rig, Run

KILLED, HUNG = -9, 124
_ON_TARGET = ("provider", "gateway", "target", "supervisor")
_BRANCH = "refs/heads/llmctl/dev"
_UNEXPLAINED = ("Traceback", "internal error", "is a defect", "unexpected ")
_LEFT = (".llmctl/**/.tmp-*", ".git/**/*.lock", ".git/objects/**/tmp_*", ".git/llmctl/**/*", ".llmctl/*/gates/*")


@dataclass
class Trial:
    """How it came out. ``losses`` says what did not hold; ``met`` whether the point was reached at all; ``moved``
    whether the command is known to have gone on to move traffic."""

    operation: str
    fault: Fault
    met: bool = False
    code: int = 0
    moved: bool = False
    losses: list[str] = field(default_factory=list)

    def must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.losses.append(otherwise)


def discover(rig: Rig, operation: Operation) -> tuple[Run, Run]:
    """Two runs without a fault: what both passed is there each time."""
    runs = []
    rig.lag_s = operation.lag_s
    for _ in range(2):
        operation.prepare(rig)
        operation.change(rig)
        rig.applied = None
        run = rig.run(*operation.command(rig), watch=True)
        assert run.code == 0, run.text
        operation.settled(rig)
        runs.append(run)
    return runs[0], runs[1]


def unannounced(points: Sequence[Point]) -> list[str]:
    """Effects on the target of which the journal had not spoken when they were begun."""
    found: list[str] = []
    announced: Counter[str] = Counter()
    for point in sorted(points, key=lambda point: point.order):
        way, _, what = point.name.rpartition(" > ") if " > " in point.name else ("", "", point.name)
        if what.startswith("record intend"):
            announced[way] += 1
        elif what.startswith("record done"):
            announced[way] -= 1
        elif point.kind in _ON_TARGET and not (announced[way] or any(k in way for k in _ON_TARGET)):
            found.append(f"an effect that the journal does not speak of: {point.name}")
    return found


def try_fault(rig: Rig, operation: Operation, fault: Fault, points: Sequence[Point]) -> Trial:
    """Break the operation there, and look at what the next commands say and do."""
    trial = Trial(operation.name, fault)
    rig.lag_s = operation.lag_s
    operation.prepare(rig)
    rig.applied = None
    refs = rig.refs() | {_BRANCH}
    old = rig.project.answers().revision if operation.serves else ""
    operation.change(rig)
    if not operation.serves:
        _broken(trial, rig, operation, fault)
        _mended(trial, rig, operation)
        trial.must(rig.refs() == refs, f"refs: {sorted(rig.refs() ^ refs)}")
        return trial
    with rig.asked() as client:
        serial = rig.serial()
        _broken(trial, rig, operation, fault)
        if _is_before_traffic(fault, points) and not trial.moved:
            _still_serves(trial, rig, client, old)
        _mended(trial, rig, operation)
    trial.must(rig.serial() > serial, "nothing was recorded")
    trial.must(rig.refs() == refs, f"refs: {sorted(rig.refs() ^ refs)}")
    rig.applied = rig.wanted if not trial.losses else None
    for wrong in dict.fromkeys(client.wrong()):
        trial.losses.append(f"a client was not served: {wrong}")
    return trial


def _is_before_traffic(fault: Fault, points: Sequence[Point]) -> bool:
    moved = min((p.order for p in points if p.name.startswith(FIRST_STEPS)), default=0)
    return any(point.name == fault.point and point.order < moved for point in points)


def _still_serves(trial: Trial, rig: Rig, client: Client, old: str) -> None:
    """Before traffic moves the old revision serves."""
    seen = {reply.revision for reply in (*client.replies, rig.project.ask()) if reply.status == 200}
    trial.must(seen <= {old}, f"traffic moved before the shift: {seen} instead of {old}")


def _broken(trial: Trial, rig: Rig, operation: Operation, fault: Fault) -> None:
    before = rig.serial()
    if ".cache" in fault.point:
        rig.forget()
    run = rig.run(*operation.command(rig), watch=True, fault=fault)
    trial.met, trial.code = run.met, run.code
    trial.moved = any(point.name.startswith(FIRST_STEPS) for point in run.points)
    if not run.met:
        trial.must(run.code == 0, f"without its fault it exited {run.code}: {run.text[-1500:]}")
        return
    trial.must(run.code != HUNG, "it hung")
    if fault.mode.startswith("kill"):
        trial.must(run.code == KILLED, f"it was not killed but exited {run.code}")
        return
    for word in _UNEXPLAINED:
        trial.must(word not in run.text, f"not explained ({word.strip()}): {_tail(run)}")
    trial.must(not run.uncovered, f"{run.uncovered}")
    if run.code == 0:
        operation.settled(rig)
        if operation.engines:
            again = rig.run("plan", "--detailed-exitcode")
            trial.must(again.code == 0, f"it exited 0 and was not done: {_tail(again)}")
        return
    trial.must("error: " in run.text or "warning: " in run.text, f"exited {run.code} and did not say why: {run.text}")
    begun = any(point.name.startswith("record intend") for point in run.points)
    told = rig.serial() > before or _is_open(rig)
    trial.must(told or not begun, "it had effects and recorded nothing")


def _is_open(rig: Rig) -> bool:
    """Whether an attempt is open: its journal, or its commits, are there, or on the remote."""
    private = rig.project.root / ".git/llmctl"
    journals = [path for path in private.glob("*/attempt-*.jsonl") if path.read_bytes().count(b"\n")]
    return bool(journals) or any("/attempt/" in ref for ref in rig.refs())


def _is_merged(rig: Rig) -> bool:
    """Whether what looks open is in the record: it was killed between its merge and the end of its journal."""
    names = [path.stem for path in (rig.project.root / ".git/llmctl").glob("*/attempt-*.jsonl")]
    return any(int(name.removeprefix("attempt-")) <= rig.serial() for name in names)


def _mended(trial: Trial, rig: Rig, operation: Operation) -> None:
    """The next commands tell what they found, bring it to its end, and then nothing is left of the fault."""
    is_open = _is_open(rig) and not _is_merged(rig)
    if (rig.project.root / ".llmctl").exists() or _BRANCH in rig.project.refs():
        status = rig.run("status", "--json")
        trial.must(status.code in (0, 1), f"status exited {status.code}: {_tail(status)}")
    plan = rig.run("plan")
    trial.must(plan.code in operation.plans, f"plan exited {plan.code}: {_tail(plan)}")
    trial.must(("was interrupted" in plan.text) == is_open, f"open attempt {is_open}, plan says: {_tail(plan)}")
    settled = operation.settle(rig)
    trial.must(settled.code == 0, f"the next {operation.command(rig)[0]} exited {settled.code}: {_tail(settled)}")
    said = "was interrupted" in settled.text
    trial.must(said == is_open, f"open attempt {is_open}, the next command says: {_tail(settled)}")
    trial.losses += _unsettled(rig, operation)


def _unsettled(rig: Rig, operation: Operation) -> Iterator[str]:
    """What is not as it is after a run without a fault."""
    project = rig.project
    verified = rig.run("audit", "verify")
    if verified.code:
        yield f"audit verify exited {verified.code}: {_tail(verified)}"
    if operation.engines:
        plan = rig.run("plan", "--detailed-exitcode")
        if plan.code or "Nothing changes" not in plan.out:
            yield f"after a successful command plan exited {plan.code}: {_tail(plan)}"
        yield from _not_once(project, operation.engines)
        if (reply := project.ask()).status != 200:
            yield f"it does not serve: {reply}"
    else:
        left = [str(path) for path in project.run.iterdir()] + [str(p.cmdline()) for p in project.processes()]
        if left or (project.root / ".llmctl").exists():
            yield f"left after destroy: {left}"
    yield from leftovers(project.root)
    with suppress(FileNotFoundError):
        if found := [path.name for path in (project.base / "tmp").iterdir() if not path.name.startswith("tmp")]:
            yield f"left in the folder for temporary files: {found}"


def _not_once(project: Project, engines: int) -> Iterator[str]:
    """Processes that are there twice, or not at all."""
    census = project.census()
    found = {kind: len(pids) for kind, pids in census.items() if not kind.startswith("engine ")}
    running = sum(len(pids) for kind, pids in census.items() if kind.startswith("engine "))
    if found != {"supervisord": 1, "gateway": 1} or running != engines:
        yield f"not one of each and {engines} engines: {census}"


def leftovers(root: Path) -> Iterator[str]:
    """Files that only a command that runs has."""
    for pattern in _LEFT:
        if found := [str(path.relative_to(root)) for path in root.glob(pattern) if path.is_file()]:
            yield f"left: {', '.join(sorted(found))}"


def _tail(run: Run) -> str:
    return run.text.strip()[-1200:]
