"""What of an environment's state folder nothing needs any more: content, manifests, answers of gates cut short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llmctl.core.errors import ProviderError
from llmctl.core.resources import Key
from llmctl.providers.local.launch import Launch, endpoint_files
from llmctl.providers.local.layout import Layout, explained
from llmctl.providers.local.lock import StateLock
from llmctl.providers.local.store import FileStore


@dataclass(frozen=True, slots=True)
class Keep:
    """What is needed: content by digest (``sha256:…``), and artifacts by kind and revision, whatever their name."""

    digests: frozenset[str] = frozenset()
    artifacts: frozenset[tuple[str, str]] = frozenset()
    gate_answers: bool = False  # an apply was cut short, and the next one goes on from them


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing that can go. ``what`` is "artifact" (content), "manifest" or "gate answers"."""

    what: str
    name: str  # of content its digest, else a path below the state folder
    bytes: int


class Collector:
    """Finds and removes leftovers; call it with the environment's lock held."""

    def __init__(self, layout: Layout, lock: StateLock, store: FileStore) -> None:
        self._layout = layout
        self._lock = lock
        self._store = store

    def find(self, keep: Keep) -> list[Leftover]:
        """All that can go, sorted. Nothing is changed.

        What an endpoint runs with stays, also one that nobody recorded. Raises ``ProviderError`` when an endpoint
        or a folder cannot be read: then nobody knows what is needed.
        """
        if self._layout.is_copy or not self._layout.state.is_dir():
            return []
        needed = keep.digests | self._used()
        with explained("look for what is not needed"):
            found = [*self._manifests(keep), *([] if keep.gate_answers else self._answers())]
        found += [Leftover("artifact", digest, size) for digest, size in self._store.sizes() if digest not in needed]
        return sorted(found, key=lambda item: (item.what, item.name))

    def remove(self, leftovers: Sequence[Leftover], guard: Callable[[], None]) -> None:
        """Take these away; ``guard`` raises when that is no longer allowed. What is gone already is done."""
        with self._lock.held(), explained("clear away what is not needed"):
            for item in leftovers:
                guard()
                if item.what == "artifact":
                    self._store.delete(item.name)
                else:
                    (self._layout.state / item.name).unlink(missing_ok=True)

    def _used(self) -> set[str]:
        """The content that endpoints run with, or would when they are started again."""
        with explained("read the endpoints"):
            endpoints, damaged = endpoint_files(self._layout)
        if damaged:
            raise ProviderError(
                "an endpoint cannot be read, so nobody knows which content it needs, and nothing is cleared away",
                detail="\n".join(damaged.values()),
                hint="Run `llmctl apply`, which puts it right.",
            )
        processes = (endpoint for endpoint in endpoints if endpoint.is_process)
        return {digest for e in processes for digest in Launch.from_spec(e.key, e.spec).digests}

    def _manifests(self, keep: Keep) -> Iterator[Leftover]:
        for path in self._layout.manifests.glob("*/*.json"):
            if (path.parent.name, Key.parse(path.stem).revision) not in keep.artifacts:
                yield self._file("manifest", path)

    def _answers(self) -> Iterator[Leftover]:
        for path in (self._layout.state / "gates").glob("*.jsonl"):
            yield self._file("gate answers", path)

    def _file(self, what: str, path: Path) -> Leftover:
        return Leftover(what, path.relative_to(self._layout.state).as_posix(), path.lstat().st_size)
