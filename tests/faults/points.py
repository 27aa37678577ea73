"""Fault points: where a command has an effect, what such a place is called, and what is done there.

A point is a call at a boundary of the process. Its name is the way to it (step, call of a provider, request to the
process manager, …), what it does, to what, and the how-manieth time that was there. Digests, process ids, ports and
random names are left out of it, and each thread carries the way of who started it: so the same point has the same
name in every run, whatever runs beside it.
"""

from __future__ import annotations

import io
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from llmctl.apply.clock import Clock
from llmctl.core.digests import Json
from llmctl.core.protocols import Op

T = TypeVar("T")
Error = Callable[[str], Exception]

#: What is done at a point. ``lost``: the effect is made, and its answer is an error; ``passing``: one that may pass.
MODES = ("kill-before", "kill-after", "raise", "lost", "passing", "hang-before", "hang-after")
SAID = "fault put in by the harness"

_BEFORE = ("kill-before", "raise", "hang-before")

_OTHERS_GO_ON = ("process", "connect", "send", "signal")

GRACE_S = 0.2  # a caller with a deadline gives up what hangs so long after it
_LATE_S = 0.8  # so long after it was given up, what hung goes on
_ALONE_S = 1.2  # so long hangs what nobody gives up

_NORMAL = (
    (re.compile(r"/artifacts/[0-9a-f]{2}(?=/|$)"), "/artifacts/*"),
    (re.compile(r"\.tmp-[A-Za-z0-9_]+"), ".tmp-*"),
    (re.compile(r"[0-9a-f]{8,}(\.\d+)?"), "*"),
    (re.compile(r"\d+"), "0"),
)


@dataclass(frozen=True, slots=True)
class Point:
    """One place of a fault-free run.

    ``leaf``: it is a call of Python, and no other point lies inside it. ``passing``: its error may be one that passes.
    ``asks``: it changes nothing. ``order``: when it was begun. ``last``: no other leaf was begun after it.
    """

    name: str
    kind: str
    leaf: bool
    passing: bool
    asks: bool
    order: int
    last: bool = False

    def modes(self, every: bool = False) -> tuple[str, ...]:
        """What is done here: with ``every`` all that can be, else what is not the same as another one.

        No effect lies between two leaves, which is what the audit hook proves. So to be killed, or to hang, after a
        leaf is the same as before the next one, unless another process goes on meanwhile; and around what holds
        leaves, the same as around these. What asks is asked in vain, or answered late. A process that was started
        has no answer that could be lost.
        """
        if self.asks:
            return ("raise", "hang-before")
        lost = () if self.kind == "process" else ("lost",)
        passing = ("passing",) if self.passing else ()
        if not self.leaf:
            return ("raise", *lost, *passing, *(("hang-before", "hang-after") if every else ()))
        after = every or self.last or self.kind in _OTHERS_GO_ON
        more = ("kill-after", "hang-after") if after else ()
        return ("kill-before", "raise", *lost, *passing, "hang-before", *more)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is to be done at which point."""

    point: str
    mode: str


@dataclass(frozen=True, slots=True)
class Scope:
    """Where a thread is: the way there, the circumstances of what it does, and the threads that wait for it."""

    way: tuple[str, ...] = ()
    ops: tuple[Op, ...] = ()
    threads: tuple[threading.Thread, ...] = ()
    in_leaf: bool = False
    polls: bool = False  # a question that is put again until the answer is right: how often is chance


class _Here(threading.local):
    scope = Scope()


@dataclass
class Watch:
    """Sees every point of this process, and does at one of them what it was asked to."""

    fault: Fault | None = None
    met: Callable[[], None] = lambda: None
    points: list[Point] = field(default_factory=list)
    uncovered: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._here = _Here()
        self._mutex = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._order = 0
        self._hung: set[threading.Thread] = set()
        self._hung_at = 0.0
        self._given_up = threading.Event()
        self._kill = os.kill

    @property
    def scope(self) -> Scope:
        return self._here.scope

    @contextmanager
    def inside(self, label: str, **more: Any) -> Iterator[Scope]:
        """Go on under this label, which is no point itself."""
        was = self._here.scope
        label = normal(label)
        way = (*was.way, label) if label and (not was.way or was.way[-1] != label) else was.way
        self._here.scope = replace(was, way=way, **more)
        try:
            yield was
        finally:
            self._here.scope = was

    def at(
        self,
        kind: str,
        what: str,
        call: Callable[[], T],
        error: Error,
        *,
        passing: Error | None = None,
        leaf: bool = False,
        op: Op | None = None,
        polls: bool = False,
    ) -> T:
        """Make the call, as a point of that name."""
        scope = self._here.scope
        if scope.in_leaf:
            return call()
        polls = polls or scope.polls
        label = normal(f"{kind} {what}")
        point, mode = self._begin(Point(label, kind, leaf, passing is not None, polls, 0), polls)
        ops = (*scope.ops, op) if op else scope.ops
        with self.inside(label, ops=ops, in_leaf=leaf, polls=polls):
            self._before(mode, error)
            try:
                result = call()
            except BlockingIOError:  # it is under way
                self._after(mode, error, passing or error)
                raise
            except OSError:
                self._had_none(point)
                raise
            if mode in ("lost", "passing"):
                _let_go(result)
            self._after(mode, error, passing or error)
            return result

    def _had_none(self, point: Point | None) -> None:
        """A call of Python that fails has no effect, like that to make a folder that is there."""
        with self._mutex:
            if point is not None and point.leaf:
                self.points.remove(point)

    def _begin(self, point: Point, polls: bool) -> tuple[Point | None, str]:
        """Note the point, None for one that is no news; and what is to be done at it, "" for nothing.

        What a question is made of is no point of its own.
        """
        if self._here.scope.polls:
            return None, ""
        way = " > ".join((*self._here.scope.way, point.name))
        with self._mutex:
            self._counts[way] += 1
            count = self._counts[way]
            if polls and count > 1:
                return None, ""
            found = replace(point, name=way if polls else f"{way} #{count}", order=self._order)
            self._order += 1
            self.points.append(found)
            if self.fault is None or self.fault.point != found.name:
                return found, ""
        return found, self.fault.mode

    def _before(self, mode: str, error: Error) -> None:
        if mode in _BEFORE:
            self.met()
        if mode == "kill-before":
            self._die()
        elif mode == "raise":
            raise error(SAID)
        elif mode == "hang-before":
            self._hang()

    def _after(self, mode: str, error: Error, passing: Error) -> None:
        if mode and mode not in _BEFORE:
            self.met()
        if mode == "kill-after":
            self._die()
        elif mode == "lost":
            raise error(SAID)
        elif mode == "passing":
            raise passing(SAID)
        elif mode == "hang-after":
            self._hang()

    def _die(self) -> None:
        self._kill(os.getpid(), signal.SIGKILL)

    def _hang(self) -> None:
        """Past every deadline that there is here; whoever waits with one gives up, and then this goes on."""
        scope = self._here.scope
        for op in scope.ops:
            object.__setattr__(op, "deadline_s", time.monotonic() - 1.0)
        self._hung_at = time.monotonic()
        self._hung = {threading.current_thread(), *scope.threads}
        if self._given_up.wait(_ALONE_S):
            time.sleep(_LATE_S)

    # -- threads --------------------------------------------------------------------------------

    def carry(self) -> None:
        """Have each thread, and what is given to a pool, know the way of who began it."""
        start, run, submit = threading.Thread.start, threading.Thread.run, ThreadPoolExecutor.submit
        scopes: dict[threading.Thread, Scope] = {}

        def started(thread: threading.Thread) -> None:
            scope = self._here.scope
            scopes[thread] = replace(scope, threads=(*scope.threads, threading.current_thread()))
            start(thread)

        def runs(thread: threading.Thread) -> None:
            self._here.scope = scopes.pop(thread, Scope())
            run(thread)

        def submitted(pool: ThreadPoolExecutor, call: Callable[..., T], /, *values: Any, **named: Any) -> Any:
            scope = self._here.scope
            mine = replace(scope, threads=(*scope.threads, threading.current_thread()))

            def work() -> T:
                was, self._here.scope = self._here.scope, mine
                try:
                    return call(*values, **named)
                finally:
                    self._here.scope = was

            return submit(pool, work)

        threading.Thread.start = started  # type: ignore[method-assign, assignment]
        threading.Thread.run = runs  # type: ignore[method-assign, assignment]
        ThreadPoolExecutor.submit = submitted  # type: ignore[method-assign, assignment]
        Clock.await_end = self._await_end  # type: ignore[method-assign, assignment]

    def _await_end(self, thread: threading.Thread, seconds: float) -> bool:
        """``Clock.await_end``, with the deadlines of what hangs over at once."""
        until = time.monotonic() + seconds
        while thread.is_alive() and time.monotonic() < until:
            thread.join(0.02)
            if thread in self._hung and time.monotonic() > self._hung_at + GRACE_S and thread.is_alive():
                self._given_up.set()
                return False
        return not thread.is_alive()

    # -- what was seen --------------------------------------------------------------------------

    def to_json(self) -> Json:
        last = max((point.order for point in self.points if point.leaf), default=-1)
        points = [asdict(replace(point, last=point.order == last)) for point in self.points]
        return {"points": points, "uncovered": sorted(set(self.uncovered))}


def _let_go(result: object) -> None:
    """What was opened and is not handed out would stay open."""
    if isinstance(result, io.IOBase):
        result.close()


def normal(text: str) -> str:
    """Without what differs from run to run."""
    for pattern, instead in _NORMAL:
        text = pattern.sub(instead, text)
    return text
