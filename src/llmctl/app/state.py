"""Use cases: what the record holds of each resource, and to make it forget one without touching what runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llmctl.app.recorded_change import Notice, changing
from llmctl.app.workspace import Workspace, record_reader
from llmctl.core.address import Address
from llmctl.core.diagnostics import Diagnostic
from llmctl.core.errors import Denied, InvalidInput
from llmctl.core.protocols import Change
from llmctl.core.resources import Recorded, RecordState
from llmctl.graph import users_of
from llmctl.record import Entry, History
from llmctl.record.approvals import before
from llmctl.spec.suggestions import suggestion


@dataclass(frozen=True, slots=True)
class Listing:
    """The resources of a record, sorted by address."""

    environment: str
    serial: int
    resources: tuple[Recorded, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """One resource of a record. ``recorded_by`` is the entry that wrote it as it is; ``users`` need it.

    ``first`` is by revision the serial of the entry that recorded it first; a revision that an attempt took back
    has a version and no such entry.
    """

    environment: str
    serial: int
    resource: Recorded
    recorded_by: Entry
    first: Mapping[str, int]
    users: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What the record is to forget, or forgot. ``serial`` is 0 when that was declined."""

    environment: str
    resources: tuple[Recorded, ...]
    serial: int = 0


def listing(file: str | None, environment: str | None, kind: str | None) -> Listing:
    """What is recorded, of one kind or of all; raises ``InvalidInput`` for a kind of which nothing is recorded."""
    _, reader = record_reader(file, environment)
    state = reader.state()
    found = tuple(r for a, r in sorted(state.resources.items()) if kind in (None, a.kind))
    if kind is not None and not found:
        kinds = ", ".join(sorted({a.kind for a in state.resources})) or "nothing"
        raise _refused(f"no {kind} is recorded in {reader.environment}", f"Recorded kinds: {kinds}.")
    return Listing(reader.environment, state.serial, found)


def show(file: str | None, environment: str | None, text: str) -> Shown:
    """All that is recorded of one resource; raises ``InvalidInput`` when nothing is."""
    repository, reader = record_reader(file, environment)
    state = reader.state()
    address = _recorded(state, [text])[0]
    versions = History(repository, reader.environment).versions(address)
    if not versions:
        raise _refused(f"no entry of the record says who recorded {address}", "Run `llmctl audit verify`.")
    first: dict[str, int] = {}
    for version in versions:
        if version.recorded is not None:
            first.setdefault(version.recorded.revision, version.entry.serial)
    users = tuple(_users(state).get(address, ()))
    return Shown(reader.environment, state.serial, state.resources[address], versions[-1].entry, first, users)


def forget(
    workspace: Workspace, texts: Sequence[str], reason: str, confirm: Callable[[Forgotten], bool], notice: Notice
) -> Forgotten:
    """Take resources out of the record, and leave what runs as it is; ``confirm`` is asked first.

    Raises ``InvalidInput`` for one that is not recorded, or that a resource needs which is not named too, and
    ``Denied`` for one that is protected.
    """
    with changing(workspace, "state rm", notice) as held:
        addresses = _recorded(held.state, texts)
        _refuse_while_needed(held.state, addresses)
        _refuse_protected(held.state, addresses)
        _refuse_rules(workspace, held.state, addresses)
        asked = Forgotten(workspace.environment.name, tuple(held.state.resources[a] for a in addresses))
        if not confirm(asked):
            return asked
        changes = [
            Change(
                f"forget {a} v{held.state.resources[a].version}",
                {a: None},
                trailers=(("Resource", str(a)), ("Revision", held.state.resources[a].revision)),
            )
            for a in addresses
        ]
        planned = [
            {"address": str(r.address), "action": "forget", "reason": reason, "before": r.revision, "after": ""}
            for r in asked.resources
        ]
        names = ", ".join(str(a) for a in addresses[:3]) + (f" and {len(addresses) - 3} more" if addresses[3:] else "")
        serial = held.record(
            subject=f"state rm: {names}: {reason}", reason=reason, decided={"changes": planned}, changes=changes
        )
        return Forgotten(asked.environment, asked.resources, serial)


def _recorded(state: RecordState, texts: Iterable[str]) -> list[Address]:
    """The addresses that are meant, each once; raises ``InvalidInput`` that names all that are not recorded."""
    known = {str(address): address for address in state.resources}
    unknown = [text for text in texts if text not in known]
    if unknown:
        findings = []
        for text in unknown:
            hint = suggestion(text, sorted(known), "resources") if known else "Nothing is recorded."
            findings.append(Diagnostic(f"{text} is not recorded in {state.environment}", hint=hint))
        raise InvalidInput(findings)
    return [known[text] for text in dict.fromkeys(texts)]


def _users(state: RecordState) -> Mapping[Address, Sequence[Address]]:
    users = users_of({address: was.needs for address, was in state.resources.items()})
    return {address: sorted(set(found)) for address, found in users.items()}


def _refuse_while_needed(state: RecordState, addresses: Sequence[Address]) -> None:
    users = _users(state)
    findings = []
    for address in addresses:
        others = [user for user in users.get(address, ()) if user not in addresses]
        if others:
            names = ", ".join(map(str, others))
            summary = f"{address} is needed by what stays recorded: {names}"
            findings.append(Diagnostic(summary, address=address, hint="Name these too, or leave it recorded."))
    if findings:
        raise InvalidInput(findings)


def _refuse_protected(state: RecordState, addresses: Sequence[Address]) -> None:
    """What is forgotten and not declared is taken away by the next apply, which `protect` is there to refuse."""
    protected = [str(a) for a in addresses if state.resources[a].spec.get("protect")]
    if protected:
        raise Denied(
            f"{', '.join(protected)} {'is' if len(protected) == 1 else 'are'} protected, and stays recorded",
            hint="Apply `protect: false` for it first, in a change of its own.",
        )


def _refuse_rules(workspace: Workspace, state: RecordState, addresses: Sequence[Address]) -> None:
    """Without the record of a gate or a policy, a change that loosens it is not held to it any more."""
    rules = [a for a in addresses if a.kind in ("gate", "policy")]
    skipped = {gate: b.serial for b in state.break_glass for gate in b.gates}
    for address in rules:
        if address in skipped:
            raise Denied(
                f"{address} was skipped by the break-glass of serial {skipped[address]}, which is still open",
                hint="Run `llmctl apply`: what serves must pass it first.",
            )
    needed = max(workspace.environment.approvals, before(workspace.repository, state.head, state.serial).declared)
    if rules and needed:
        raise Denied(
            f"{', '.join(map(str, rules))}: {state.environment} asks for approvals, and forgetting a rule has none",
            hint="Take it out of the file, and have that plan approved.",
        )


def _refused(summary: str, hint: str) -> InvalidInput:
    return InvalidInput([Diagnostic(summary, hint=hint)])
