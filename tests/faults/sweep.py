"""All points of all operations, in all modes: two projects at once, what was done is kept, and can be gone on from."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from threading import Event, Lock

from llmctl.core.digests import Json
from tests.e2e.project import REPOSITORY
from tests.faults.operations import OPERATIONS, Operation
from tests.faults.points import MODES, Fault, Point
from tests.faults.rig import Rig
from tests.faults.trial import Trial, discover, try_fault, unannounced

Say = Callable[[str], None]

_IN_A_PROJECT = 40  # trials: after each of them all of the record is verified, and it grows


@dataclass(frozen=True, slots=True)
class Found:
    """What the runs of an operation without a fault passed. ``unstable``: points that only one of two passed."""

    operation: str
    points: tuple[Point, ...]
    unstable: tuple[str, ...]
    uncovered: tuple[str, ...]
    code: str = ""

    def to_json(self) -> Json:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Found:
        points = tuple(Point(**point) for point in data["points"])
        return cls(data["operation"], points, tuple(data["unstable"]), tuple(data["uncovered"]), data["code"])

    def faults(self, modes: Sequence[str] = MODES, *, every: bool = False) -> list[Fault]:
        only = OPERATIONS[self.operation].only
        points = [point for point in self.points if not only or point.kind in only]
        return [Fault(point.name, mode) for point in points for mode in point.modes(every) if mode in modes]


def found(rig: Rig, operation: Operation) -> Found:
    """Run the operation without a fault, and see what it does."""
    one, two = discover(rig, operation)
    names = [{point.name for point in run.points} for run in (one, two)]
    points = (*two.points, *(point for point in one.points if point.name not in names[1]))
    uncovered = sorted({*one.uncovered, *two.uncovered, *unannounced(one.points), *unannounced(two.points)})
    unstable = tuple(sorted(names[0] ^ names[1]))
    return Found(operation.name, points, unstable, tuple(uncovered), code_digest())


@dataclass
class Results:
    """Lines of JSON in a folder, one a trial, written as they come."""

    folder: Path
    _mutex: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def _trials(self) -> Path:
        return self.folder / "trials.jsonl"

    def clear(self) -> None:
        for path in (self._trials, *self.folder.glob("points-*.json")):
            path.unlink(missing_ok=True)

    def points(self, operation: str) -> Found | None:
        path = self.folder / f"points-{operation}.json"
        return Found.from_json(json.loads(path.read_text())) if path.exists() else None

    def keep_points(self, seen: Found) -> None:
        (self.folder / f"points-{seen.operation}.json").write_text(json.dumps(seen.to_json(), indent=1))

    def add(self, trial: Trial, seconds: float) -> None:
        line = {
            "operation": trial.operation,
            "point": trial.fault.point,
            "mode": trial.fault.mode,
            "met": trial.met,
            "exit": trial.code,
            "losses": trial.losses,
            "seconds": round(seconds, 2),
            "code": code_digest(),
        }
        with self._mutex, self._trials.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def trials(self, code: str = "") -> dict[tuple[str, str, str], Json]:
        """The last trial of each operation, point and mode, of this code or else of that which was tried last."""
        if not self._trials.exists():
            return {}
        lines = [json.loads(line) for line in self._trials.read_text().splitlines()]
        code = code or (lines[-1]["code"] if lines else "")
        return {(line["operation"], line["point"], line["mode"]): line for line in lines if line["code"] == code}


@cache
def code_digest() -> str:
    """Names the code of llmctl that is tried: what was tried of another one says nothing of it."""
    seen = sha256()
    for path in sorted((REPOSITORY / "src/llmctl").rglob("*.py")):
        seen.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes())
    return seen.hexdigest()[:12]


def spread(faults: Sequence[Fault], count: int) -> list[Fault]:
    """So many of them, from everywhere: always the same ones."""
    if not count or count >= len(faults):
        return list(faults)
    return [faults[number * len(faults) // count] for number in range(count)]


@dataclass(frozen=True, slots=True)
class Which:
    """Which trials: in these modes, at points with ``point`` in their names, ``sample`` of each operation or all.

    With ``resume`` only what was not tried on this code, or was not met or lost.
    """

    modes: Sequence[str] = MODES
    point: str = ""
    every: bool = False
    resume: bool = False
    sample: int = 0

    def of(self, seen: Found, results: Results) -> list[Fault]:
        faults = [fault for fault in seen.faults(self.modes, every=self.every) if self.point in fault.point]
        faults = spread(faults, self.sample)
        trials = results.trials(code_digest()) if self.resume else {}
        done = {key for key, trial in trials.items() if trial["met"] and not trial["losses"]}
        return [fault for fault in faults if (seen.operation, fault.point, fault.mode) not in done]


def sweep(
    results: Results, operations: Iterable[str], which: Which, say: Say, *, jobs: int = 2, stop: Event | None = None
) -> None:
    """Try them all, until ``stop``."""
    stop = stop or Event()
    for name in operations:
        if stop.is_set():
            return
        operation = OPERATIONS[name]
        seen = results.points(name) if which.resume else None
        if seen is None or seen.code != code_digest():
            with Rig.made() as rig:
                seen = found(rig, operation)
            results.keep_points(seen)
        faults = which.of(seen, results)
        say(f"{name}: {len(seen.points)} points, {len(faults)} trials")
        with ThreadPoolExecutor(jobs) as pool:
            parts = [_until(stop, faults[number::jobs]) for number in range(jobs)]
            halves = [pool.submit(_work, results, operation, seen, part, say) for part in parts]
            for half in halves:
                half.result()


def _until(stop: Event, faults: Sequence[Fault]) -> Iterator[Fault]:
    for fault in faults:
        if stop.is_set():
            return
        yield fault


def _work(results: Results, operation: Operation, seen: Found, faults: Iterator[Fault], say: Say) -> None:
    while fault := next(faults, None):
        more = islice(faults, _IN_A_PROJECT - 1)
        with Rig.made() as rig:
            for one in _until_lost(rig, operation, seen, chain([fault], more), results):
                say(one)


def _until_lost(
    rig: Rig, operation: Operation, seen: Found, faults: Iterator[Fault], results: Results
) -> Iterator[str]:
    """Trials in one project, until one leaves it in a state that nobody knows."""
    for fault in faults:
        begun = time.monotonic()
        try:
            for _ in range(1 + 2 * (fault.point in seen.unstable)):
                trial = try_fault(rig, operation, fault, seen.points)
                if trial.met or trial.losses:
                    break
        except AssertionError as error:
            trial = Trial(operation.name, fault, met=True, losses=[f"the way back: {str(error)[-1500:]}"])
        results.add(trial, time.monotonic() - begun)
        if trial.losses:
            yield f"LOSS {operation.name} {fault.mode} {fault.point}\n    " + "\n    ".join(trial.losses)
            return
    yield f"{operation.name}: now at {fault.point}"
