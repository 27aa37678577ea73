"""The journal of an attempt on the remote, where another machine finds it when this one is gone.

It lies on the remote's ref ``refs/llmctl/<env>/attempt/<serial>``, in the segments in which it was pushed:
``journal/000001.jsonl`` and so on. Every push renews the lock in the same transaction, so that one who lost the lock
can add nothing. Lines of several threads that wait at once go out in one push.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from llmctl.core.errors import LlmctlError, RecordError
from llmctl.record.head import Head
from llmctl.record.messages import compose, trailers_of, value
from llmctl.record.objects import list_files, read_commits, read_objects
from llmctl.record.remote import PATIENCE
from llmctl.record.repository import Repository, side_ref
from llmctl.record.tree import Tree
from llmctl.record.writing import Batch, add_commit, store

if TYPE_CHECKING:
    from llmctl.record.lock import HeldLock

_FOLDER = "journal/"


class Shipping:
    """Brings the lines of one journal to the remote. Safe to use from several threads.

    ``sent`` bytes of the journal are there already, at the ref's value ``tip`` ("" when there is none).
    """

    def __init__(self, repository: Repository, lock: HeldLock, ref: str, title: str, tip: str = "") -> None:
        self._repository = repository
        self._lock = lock
        self.ref = ref
        self._title = title
        self._tip = tip
        files = list_files(repository, tip, _FOLDER) if tip else {}
        self._tree = Tree(files)
        self._segments = len(files)
        self._waiting: list[bytes] = []
        self._taken = 0  # lines that were made a segment, and are there or on their way
        self._there = 0  # lines that are there
        self._changed = threading.Condition()
        self._pushing = False
        self._failed = 0  # pushes
        self._error: LlmctlError | None = None  # of the last one of those
        lock.renew_with(self.flush)

    def there(self, ref: str) -> str:
        """What a ref is on the remote, "" for none."""
        return self._lock.there(ref)

    def add(self, line: bytes) -> None:
        """Take a line, in the order of the journal; it goes along with the next push."""
        with self._changed:
            self._waiting.append(line)

    def flush(self) -> None:
        """Push all lines that wait, or only renew the lock when none does."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pushing)
            self._pushing = True
        self._push({})

    def wait(self) -> None:
        """Return when every line that was added before is on the remote.

        One of the threads that wait pushes for all of them. Raises ``LeaseLost`` when the lock was lost, and
        ``RecordError`` when the remote could not be reached or refused.
        """
        with self._changed:
            mine, failed = self._taken + len(self._waiting), self._failed
            while self._there < mine and self._pushing:
                # A push that has begun may be without this line; the next one that fails speaks for all that wait.
                self._changed.wait()
                if self._error and self._failed > failed:
                    raise self._error
            if self._there >= mine:
                return
            self._pushing = True
        self._push({})

    def publish(self, refs: Mapping[str, str]) -> None:
        """Push what waits together with other refs, all or nothing."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pushing)
            self._pushing = True
        self._push(refs)

    def close(self, refs: Mapping[str, str]) -> None:
        """Push refs and delete the attempt's: all that it holds is in the record now."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pushing)
            self._lock.push({**refs, self.ref: ""}, PATIENCE)
            self._tip = ""
            self._waiting.clear()
        self._noted({**refs, self.ref: ""})

    def _push(self, refs: Mapping[str, str]) -> None:
        """Push as the one thread that may; lines that could not go are in the next push again."""
        try:
            taken = self._pack()
            self._lock.push({**refs, self.ref: self._tip}, PATIENCE)
            with self._changed:
                self._there = max(self._there, taken)
            self._noted({**refs, self.ref: self._tip})
        except LlmctlError as error:
            with self._changed:
                self._failed, self._error = self._failed + 1, error
            raise
        finally:
            with self._changed:
                self._pushing = False
                self._changed.notify_all()

    def _noted(self, refs: Mapping[str, str]) -> None:
        """Name here what the remote has: the next push is made on it, and the user's ``git gc`` must not take it."""
        if self._lock.remote:
            with suppress(RecordError):  # the next command fetches it
                self._lock.remote.noted(refs)

    def _pack(self) -> int:
        """Make a commit of the lines that wait; returns how many lines there are in all."""
        with self._changed:
            lines = list(self._waiting)
        if lines:
            batch = Batch(self._repository.algorithm)
            self._tree.put(f"{_FOLDER}{self._segments + 1:06}.jsonl", batch.add("blob", b"".join(lines)))
            message = compose(self._title, [("Fence", str(self._lock.fence))])
            parents = [self._tip] if self._tip else []
            tip = add_commit(self._repository, batch, self._tree.write(batch), parents, message)
            store(self._repository, batch)
            with self._changed:
                self._tip = tip
                self._segments += 1
                self._taken += len(lines)
                del self._waiting[: len(lines)]
        return self._taken


def shipped(repository: Repository, tip: str) -> bytes:
    """The journal that an attempt's commit on the remote holds; raises ``RecordError`` when it holds none."""
    files = list_files(repository, tip, _FOLDER)
    return b"".join(item.data for item in read_objects(repository, [files[path] for path in sorted(files)]))


def fence_of(repository: Repository, tip: str) -> int:
    """The fencing token under which an attempt's commit on the remote was made, 0 where it does not say."""
    with suppress(RecordError):  # it is no commit, as is told when the attempt is looked at
        text = value(trailers_of(read_commits(repository, [tip])[0].message), "Fence")
        return int(text) if text.isascii() and text.isdigit() else 0
    return 0


def require_lock(repository: Repository, lock: HeldLock | None) -> None:
    """Raise ``ValueError`` where the lock is missing without which nothing gets to the remote."""
    if repository.remote and (lock is None or lock.remote is None):
        raise ValueError("an attempt whose record is on a remote needs the lock there")


def ship(repository: Repository, head: Head, lock: HeldLock, tip: str = "") -> Shipping:
    """What brings the journal of an attempt to the remote; ``tip`` is what the remote has of it, "" for nothing."""
    ref = side_ref(head.environment, f"attempt/{head.serial}")
    return Shipping(repository, lock, ref, f"The journal of attempt {head.serial} of {head.environment}", tip)
