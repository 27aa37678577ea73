"""The operations that are broken: from which state each begins, what it changes, and how it is brought to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.faults.rig import Rig, Run, Wanted

FIRST_STEPS = ("shift:", "promote:")  # of which traffic may have moved when they begin


@dataclass(frozen=True, slots=True)
class Operation:
    """``prepare`` brings the project to where the operation begins, ``change`` edits it, ``command`` is what is
    broken, ``settle`` what is done after. ``serves``: a client is answered all the while. ``engines``: how many run
    in the end. ``lag_s`` is how far git may be behind the journal; ``only`` narrows what is broken to
    some kinds of points. ``plans``: how a plan of the file may exit after the fault.
    """

    name: str
    about: str
    prepare: Callable[[Rig], None]
    change: Callable[[Rig], None]
    command: Callable[[Rig], tuple[str, ...]] = lambda _: ("apply", "--yes")
    settled: Callable[[Rig], None] = lambda _: None
    serves: bool = True
    engines: int = 1
    lag_s: float = 0.0
    only: tuple[str, ...] = ()
    plans: tuple[int, ...] = (0,)

    def settle(self, rig: Rig) -> Run:
        """The next command of the same kind, which has to bring it to its end."""
        run = rig.run(*self.command(rig))
        self.settled(rig)
        return run


def _applied(rig: Rig) -> None:
    """The example with one engine, as it was changed last."""
    _have(rig, replace(rig.wanted, replicas=1, second=False))


def _have(rig: Rig, wanted: Wanted) -> None:
    if rig.applied != wanted:
        rig.write(wanted)
        rig.ok("apply", "--yes")
        rig.applied = wanted


def _nothing(rig: Rig) -> None:
    """As before the first apply: nothing runs, nothing is recorded."""
    project = rig.project
    if (project.root / ".llmctl").exists() or "refs/heads/llmctl/dev" in project.refs():
        rig.ok("destroy", "--yes")
    assert project.processes() == []
    if "refs/heads/llmctl/dev" in project.refs():
        project.git("update-ref", "-d", "refs/heads/llmctl/dev")
    rig.want(replicas=1, second=False)


def _two(rig: Rig) -> None:
    _have(rig, replace(rig.wanted, replicas=1, second=True))


def _changed_since(rig: Rig) -> None:
    """A model that serves, and one after it: ``good`` is the entry to go back to."""
    _applied(rig)
    if rig.outcome() != "applied":  # but interrupted by the trial before: to that nobody can go back
        rig.want(salt=rig.next())
        rig.ok("apply", "--yes")
    rig.good = rig.serial()
    rig.before = rig.wanted
    rig.want(salt=rig.next())
    rig.ok("apply", "--yes")


def _back(rig: Rig) -> None:
    rig.write(rig.before)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            "create",
            "the first apply of the example",
            _nothing,
            lambda rig: rig.want(salt=rig.next()),
            serves=False,
        ),
        Operation(
            "update",
            "operating fields in place: a model's card, and a second replica of its engine",
            _applied,
            lambda rig: rig.want(card=rig.next(), replicas=2),
            engines=2,
        ),
        Operation(
            "replace",
            "another model: a new endpoint revision, its gate, the shift, and the old one retired",
            _applied,
            lambda rig: rig.want(salt=rig.next()),
        ),
        Operation(
            "prompt",
            "another prompt: a new route revision on the same endpoint",
            _applied,
            lambda rig: rig.want(seed=rig.next()),
        ),
        Operation(
            "behind",
            "the same, where git has the changes only at the close",
            _applied,
            lambda rig: rig.want(seed=rig.next()),
            lag_s=60.0,
            only=("record", "git", "write", "unlink"),
        ),
        Operation(
            "shared",
            "the same, with the record on a remote",
            lambda rig: _have(rig, replace(rig.wanted, replicas=1, second=False, shared=True)),
            lambda rig: rig.want(seed=rig.next()),
            only=("record", "git", "process", "write", "unlink"),
        ),
        Operation(
            "delete",
            "a route and its endpoint are taken out of the file",
            _two,
            lambda rig: rig.want(second=False),
        ),
        Operation(
            "rollback",
            "back to the model before",
            _changed_since,
            lambda _: None,
            lambda rig: ("rollback", "--yes", "--to", str(rig.good)),
            _back,
            plans=(0, 3),  # the file still says what was rolled back, which is refused from then on
        ),
        Operation(
            "destroy",
            "everything is taken away",
            _applied,
            lambda _: None,
            lambda _: ("destroy", "--yes"),
            serves=False,
            engines=0,
        ),
    )
}
