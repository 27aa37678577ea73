"""The providers of a target as apply uses them: every call bounded and checked, what is live remembered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TypeVar

from llmctl.apply.calls import as_live, as_reading, bounded
from llmctl.apply.clock import Clock
from llmctl.core.digests import Json
from llmctl.core.errors import ProviderError, TransientError
from llmctl.core.protocols import Op, Provider, Target
from llmctl.core.resources import ALL, Key, Live, Reading
from llmctl.core.steps import Step

T = TypeVar("T")


class _Kind:
    """The provider of one kind, and what it has live: None until it is asked for, and after a failure."""

    def __init__(self, name: str, provider: Provider[Json], clock: Clock) -> None:
        self.name = name
        self.provider = provider
        self.mutex = Lock()
        self.reading: Reading[Json] | None = None
        self.found: dict[Key, Live[Json]] = {}
        self._clock = clock

    def call(self, step: Step, op: Op, verb: str, call: Callable[[], T]) -> tuple[str, T]:
        """What was called, for messages, and its answer."""
        by = f"{type(self.provider).__module__}.{type(self.provider).__qualname__}"
        what = f"{step.id}: {verb} of the {self.name} provider ({by})"
        return what, bounded(self._clock, op, what, call)

    def read(self, step: Step, op: Op) -> Reading[Json]:
        """To be called with ``mutex`` held, so that what is made meanwhile is added to this reading."""
        if self.reading is None:
            reading = as_reading(*self.call(step, op, "read_all", self.provider.read_all))
            self.reading, self.found = reading, dict(reading.found)
        return self.reading

    @contextmanager
    def changing(self) -> Iterator[None]:
        """After a failure nobody knows what is there, so it is read anew when it is next asked for."""
        try:
            yield
        except BaseException:
            with self.mutex:
                self.reading = None
            raise

    def put(self, key: Key, live: Live[Json] | None) -> None:
        with self.mutex:
            self.found.pop(key, None)
            if live is not None:
                self.found[key] = live


class Inventory:
    """What providers have live. Each kind is read once, and then kept up with what the steps do.

    So ``update`` and ``delete`` are guarded by what was read before: somebody else's change in between is a
    ``Conflict``. ``step`` only names the step in messages. All methods raise ``ProviderError``, and
    ``TransientError`` for what cannot be read: that is never taken for absent.
    """

    def __init__(self, target: Target, clock: Clock) -> None:
        self._kinds = {name: _Kind(name, provider, clock) for name, provider in target.providers.items()}

    def find(self, step: Step, op: Op, kind: str, key: Key) -> Live[Json] | None:
        """What is live under a key, None when nothing is."""
        there = self._kind(kind)
        with there.mutex:
            reading = there.read(step, op)
            live = there.found.get(key)
            if live is None:
                _refuse_unread(there, reading, {key, ALL})
            return live

    def keys(self, step: Step, op: Op, kind: str, name: str) -> list[Key]:
        """All keys of that name, of whatever revision."""
        there = self._kind(kind)
        with there.mutex:
            reading = there.read(step, op)
            _refuse_unread(there, reading, {ALL, *(key for key in reading.unreadable if key.name == name)})
            return sorted(key for key in there.found if key.name == name)

    def create(self, step: Step, op: Op, key: Key, want: Json, revision: str) -> Live[Json]:
        """Make it, or adopt what is there exactly so; ``revision`` is what must be there then."""
        there = self._kind(step.address.kind)
        with there.changing():
            what, answer = there.call(step, op, "create", lambda: there.provider.create(op, key, want))
            live = as_live(what, answer, key, revision)
        there.put(key, live)
        return live

    def update(self, step: Step, op: Op, was: Live[Json], want: Json, revision: str) -> Live[Json]:
        """Change in place what is still as it was read."""
        there = self._kind(step.address.kind)
        with there.changing():
            what, answer = there.call(step, op, "update", lambda: there.provider.update(op, was.key, was, want))
            live = as_live(what, answer, was.key, revision)
        there.put(was.key, live)
        return live

    def delete(self, step: Step, op: Op, was: Live[Json]) -> None:
        """Take away what is still as it was read; what is gone already is done."""
        there = self._kind(step.address.kind)
        with there.changing():
            there.call(step, op, "delete", lambda: there.provider.delete(op, was.key, was))
        there.put(was.key, None)

    def _kind(self, name: str) -> _Kind:
        if name not in self._kinds:
            raise ProviderError(f"the target has no provider for the kind {name}")
        return self._kinds[name]


def _refuse_unread(there: _Kind, reading: Reading[Json], keys: set[Key]) -> None:
    for key in sorted(keys & reading.unreadable.keys()):
        there.reading = None  # so that the next try reads anew
        why = reading.unreadable[key]
        what = f"the {there.name} resources" if key == ALL else f"{there.name} {key}"
        raise TransientError(f"{what} cannot be read: {why.summary}", detail=why.detail, hint=why.hint)
